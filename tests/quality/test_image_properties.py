import numpy as np
import pandas as pd
from PIL import Image, ImageFilter

from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.quality.image_properties import find_property_issues, measure_properties

SIDE = 64


def textured(seed: int, side: int = SIDE) -> np.ndarray:
    """Blotches in many colours with sharp edges."""
    blotches = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(blotches).resize((side, side), Image.Resampling.NEAREST))


def glow() -> np.ndarray:
    """Light that falls off from the middle, without an edge."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    light = 255 * (1 - np.hypot(rows - SIDE / 2, columns - SIDE / 2) / (0.72 * SIDE))
    return np.repeat(light.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def small_set(images: dict[str, np.ndarray], sizes: dict[str, tuple[int, int]], split: str = "train"):
    ids = np.array(list(images))
    # The manifest is in another order, and has an image that is in no split.
    rows = [{"id": id_, "split": split} for id_ in reversed(images)] + [{"id": "excluded", "split": ""}]
    manifest = pd.DataFrame(rows)
    manifest["width"], manifest["height"] = zip(*(sizes.get(id_, (SIDE, SIDE)) for id_ in manifest["id"]), strict=True)
    return manifest, Examples(np.stack(list(images.values())), np.eye(1, dtype=np.uint8)[np.zeros(len(ids), int)], ids)


def found_in(images, sizes=None):
    manifest, examples = small_set(images, sizes or {})
    return find_property_issues(measure_properties(manifest, {"train": examples}))


def test_images_with_a_planted_fault_are_found_by_their_kind_and_no_others():
    images = {f"good{seed}": textured(seed) for seed in range(30)}
    images["night"] = textured(1) // 12
    images["flash"] = 255 - textured(2) // 40
    images["shaken"] = glow()
    images["empty"] = np.full((SIDE, SIDE, 3), 128, np.uint8)
    issues, words = found_in(images, {"good7": (4000, 4000), "good8": (300, 20)})
    by_kind = issues.groupby("kind")["id"].agg(set).to_dict()
    assert by_kind["dark"] == {"night"}
    assert by_kind["light"] == {"flash"}
    assert by_kind["blurry"] == {"shaken"}
    assert by_kind["low_information"] == {"empty"}
    assert by_kind["odd_size"] == {"good7", "good8"}
    assert by_kind["odd_aspect_ratio"] == {"good8"}
    assert words == []
    assert issues["score"].between(0, 1).all()
    assert issues.equals(issues.sort_values(["kind", "score"], kind="stable", ignore_index=True))


def test_a_sound_set_has_no_issues_and_an_empty_table_has_all_columns():
    issues, words = found_in({f"good{seed}": textured(seed) for seed in range(20)})
    assert issues.empty
    assert words == []
    assert list(issues.columns) == ["id", "split", "kind", "score"]


def test_an_enlarged_image_is_judged_at_its_own_size():
    small = {f"{seed}": np.random.default_rng(seed).integers(0, 256, (24, 24, 3), np.uint8) for seed in range(4)}
    soft = {id_: np.asarray(Image.fromarray(a).filter(ImageFilter.GaussianBlur(1))) for id_, a in small.items()}
    enlarged = {
        id_: np.asarray(Image.fromarray(a).resize((192, 192), Image.Resampling.BICUBIC)) for id_, a in soft.items()
    }

    def sharpness(images, size):
        manifest, examples = small_set(images, dict.fromkeys(images, size))
        return measure_properties(manifest, {"train": examples})["blurriness"].to_numpy()

    as_it_was, as_it_is = sharpness(soft, (24, 24)), sharpness(enlarged, (192, 192))
    np.testing.assert_allclose(sharpness(enlarged, (24, 24)), as_it_was, rtol=0.1)
    assert (as_it_is < 0.75 * as_it_was).all()


def test_what_holds_for_most_images_is_said_and_not_listed():
    images = {f"{seed}": textured(seed) // 12 for seed in range(10)}
    issues, words = found_in(images)
    assert "dark" not in set(issues["kind"])
    assert any(sentence.startswith("10 of 10 images are dark") for sentence in words)


def test_properties_are_of_each_split_in_its_order():
    parts = {"train": {"a": textured(0) // 4, "b": textured(1)}, "test": {"c": textured(2)}}
    sets = {split: small_set(images, {"a": (10, 40), "c": (30, 30)}, split) for split, images in parts.items()}
    manifest = pd.concat([manifest for manifest, _ in sets.values()], ignore_index=True)
    found = measure_properties(manifest, {split: examples for split, (_, examples) in sets.items()})
    assert list(found["id"]) == ["a", "b", "c"]
    assert list(found["split"]) == ["train", "train", "test"]
    assert list(found["size"]) == [20, SIDE, 30]
    assert list(found["aspect_ratio"]) == [0.25, 1, 1]
    assert found["brightness"].idxmin() == 0


def test_the_border_is_a_thin_frame():
    framed = textured(0).copy()
    framed[:4], framed[-4:], framed[:, :4], framed[:, -4:] = 255, 255, 255, 255
    manifest, examples = small_set({"framed": framed, "plain": textured(0)}, {})
    found = measure_properties(manifest, {"train": examples}).set_index("id")
    assert found.loc["framed", "border_brightness"] > 0.999
    assert found.loc["framed", "border_spread"] < 0.001 < 0.1 < found.loc["plain", "border_spread"]
