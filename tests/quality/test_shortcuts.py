import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.data.inspection import inspect_images
from efficientnet_finetuning.data.manifest import build_manifest
from efficientnet_finetuning.data.prepare import prepare
from efficientnet_finetuning.data.sources import open_source
from efficientnet_finetuning.parameters import AuditParameters, DatasetParameters
from efficientnet_finetuning.quality.image_properties import measure_properties
from efficientnet_finetuning.quality.shortcuts import find_shortcuts

CLASSES = ("cat", "dog", "owl")
EACH = 30


def picture(generator: np.random.Generator, size: tuple[int, int] = (24, 20)) -> Image.Image:
    """Blotches of some brightness, which says nothing about a class."""
    blotches = generator.integers(0, 120, (4, 4, 3)) + generator.integers(0, 130)
    return Image.fromarray(blotches.astype(np.uint8)).resize(size)


def shortcuts_in(dataset: DatasetParameters, seed: int = 0):
    source = open_source(dataset)
    findings = inspect_images(source, dataset, 100.0, seed=0)
    manifest = build_manifest(findings, source.class_names, dataset, AuditParameters(), seed=0)
    examples = {}
    for split in ("train", "validation", "test"):
        part = prepare(source, manifest, len(source.class_names), split, image_size=32)
        examples[split] = Examples(np.stack(list(part.images)), part.labels, part.ids)
    return find_shortcuts(manifest, measure_properties(manifest, examples), seed)


def folder_of(root, save) -> DatasetParameters:
    """``save`` gets the folder of a class, its label, a number and a generator."""
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for index in range(EACH):
            save(root / name, label, index, np.random.default_rng((label, index)))
    return DatasetParameters(path=root)


def save_png_or_jpeg(folder, label, index, generator):
    picture(generator).save(folder / f"{index}.{'png' if label == 1 else 'jpg'}")


def save_brighter(folder, label, index, generator):
    pixels = np.asarray(picture(generator)).astype(int) // 2 + (127 if label == 1 else 0)
    Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")


def save_framed(folder, label, index, generator):
    image = picture(generator)
    image = ImageOps.expand(ImageOps.crop(image, 2), 2) if label == 1 else image
    image.save(folder / f"{index}.png")


def save_sizes(folder, label, index, generator):
    side = int(generator.integers(20, 40)) + (30 if label == 1 else 0)
    picture(generator, (side, side)).save(folder / f"{index}.png")


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("format", save_png_or_jpeg),
        ("brightness", save_brighter),
        ("border", save_framed),
        ("size", save_sizes),
    ],
)
def test_a_planted_shortcut_is_named(tmp_path, name, save):
    found = shortcuts_in(folder_of(tmp_path / "set", save))
    assert found["chance"] == pytest.approx(1 / 3)
    planted = found["properties"][name]
    assert planted["tells"]
    assert planted["class_name"] == "dog"
    assert planted["recall"] > 0.85
    assert planted["false_alarms"] < 0.15
    title = {"size": "size in pixels", "format": "file format"}.get(name, name)
    assert any(f"The {title} alone predicts" in warning and "dog" in warning for warning in found["warnings"])
    assert json.loads(json.dumps(found)) == found


def csv_of(root, path_of, seed: int = 0) -> DatasetParameters:
    """Files in no order of their classes, wherever ``path_of(class name, number, generator)`` says."""
    generator = np.random.default_rng(seed)
    rows = []
    for index in generator.permutation(len(CLASSES) * EACH):
        label, name = index % 3, CLASSES[index % 3]
        path = root / path_of(name, int(index), generator)
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(np.random.default_rng((label, index))).save(path)
        rows.append({"path": path.relative_to(root).as_posix(), "label": name})
    pd.DataFrame(rows).to_csv(root / "labels.csv", index=False)
    return DatasetParameters(path=root / "labels.csv")


def test_a_folder_for_each_camera_is_named(tmp_path):
    def path_of(name, index, generator):
        camera = name if generator.random() < 0.9 else generator.choice(CLASSES)
        return f"camera{CLASSES.index(camera)}/{name}/{index}.png"

    found = shortcuts_in(csv_of(tmp_path, path_of))
    assert any(warning.startswith("The folder of the file alone predicts") for warning in found["warnings"])


@pytest.mark.parametrize(
    "path_of",
    [
        lambda name, index, _: f"images/{name}/{index}.png",
        lambda name, index, _: f"n{CLASSES.index(name):04d}/{index}.png",  # a class folder of another name
        lambda name, index, _: f"{name.title()}/patient{index % 12}/{index}.png",
        lambda name, index, generator: f"{name}/batch{generator.integers(4)}/{index}.png",
    ],
)
def test_the_folders_of_classes_and_of_patients_are_no_shortcut(tmp_path, path_of):
    found = shortcuts_in(csv_of(tmp_path, path_of))
    assert not found["properties"].get("folder", {"tells": False})["tells"]
    assert found["warnings"] == []


def table(ids, labels, generator=None, **columns):
    """A manifest with its properties, of which none says anything but those that are given."""
    generator = generator or np.random.default_rng(0)
    count = len(ids)
    manifest = pd.DataFrame({"id": ids, "split": "train", "source_split": "train", "label": labels, "group": ids})
    manifest["class_name"] = [f"class {label}" for label in labels]
    manifest["format"], manifest["mode"] = generator.choice(["PNG", "JPEG"], count), "RGB"
    manifest["width"], manifest["height"] = generator.integers(30, 300, (2, count))
    properties = manifest[["id", "split"]].copy()
    for name in ("brightness", "contrast", "saturation", "border_brightness", "border_spread"):
        properties[name] = generator.random(count)
    for name, values in columns.items():
        target = properties if name in properties else manifest
        target[name] = values
    return manifest, properties


@pytest.mark.parametrize("num_classes", [2, 12])
def test_a_clean_set_gives_no_warning_whatever_the_seed(num_classes):
    told = 0
    for seed in range(5):
        generator = np.random.default_rng(seed)
        labels = generator.integers(0, num_classes, 180)
        found = find_shortcuts(*table([f"{i:05d}" for i in range(180)], labels, generator), seed)
        assert found["warnings"] == []
        told += any(of["tells"] for of in found["properties"].values())
        assert set(found["properties"]) >= {"format", "size", "brightness", "border", "order"}
    assert told <= 1


def test_one_class_of_many_that_is_given_away_is_enough():
    labels = np.repeat(np.arange(40), 12)
    formats = np.where(labels == 17, "PNG", "JPEG")
    found = find_shortcuts(*table([f"{i}.jpg" for i in range(480)], labels, format=formats), 0)
    assert found["properties"]["format"]["accuracy"] < 0.06
    assert [warning.startswith("The file format alone") for warning in found["warnings"]] == [True]
    assert "recognizes 100 % of the images of class 17, and confuses 0 % of the others" in found["warnings"][0]


def test_classes_photographed_one_after_the_other_are_told_by_the_order():
    labels = np.repeat(np.random.default_rng(0).permutation(np.repeat(np.arange(3), 6)), 15)
    ids = [f"{'abc'[label]}/IMG_{index:04d}.jpg" for index, label in enumerate(labels)]
    manifest, properties = table(ids, labels)
    in_folders = manifest.sort_values("id", ignore_index=True)
    assert any(
        w.startswith("The order of the files alone") for w in find_shortcuts(in_folders, properties, 0)["warnings"]
    )


@pytest.mark.parametrize(
    "number",
    [
        lambda _, index: f"{index + 1}",  # each class has numbers of its own, the larger one larger ones
        lambda label, index: f"{200 * label + index}",  # numbered when they were sorted already
        lambda _, index: "x" * (index + 1),
    ],
)
@pytest.mark.parametrize("corrected", [[], [3, 20, 41, 77, 100, 130, 160, 190]])
def test_the_order_of_files_that_are_sorted_by_class_says_nothing(number, corrected):
    labels = np.repeat([0, 1], [150, 50])
    ids = [f"{'ab'[label]}/{number(label, index)}.png" for label in (0, 1) for index in range((150, 50)[label])]
    labels[corrected] = 1 - labels[corrected]
    found = find_shortcuts(*table(ids, labels), 0)
    assert "order" not in found["properties"]
    assert found["words"][-1] == "The files are sorted by class, so their order is not tested."


def test_images_of_one_group_do_not_tell_each_other():
    generator = np.random.default_rng(0)
    labels = np.repeat(generator.integers(0, 2, 60), 6)
    brightness = np.repeat(generator.random(60), 6) + generator.normal(0, 1e-4, 360)
    ids = [f"{i}" for i in range(360)]
    alone = find_shortcuts(*table(ids, labels, brightness=brightness), 0)
    manifest, properties = table(ids, labels, brightness=brightness, group=np.repeat(np.arange(60), 6).astype(str))
    together = find_shortcuts(manifest, properties, 0)
    assert alone["properties"]["brightness"]["accuracy"] > 0.7
    assert not together["properties"]["brightness"]["tells"]
    assert together["warnings"] == []


def test_the_test_split_is_not_looked_at():
    labels = np.tile([0, 1], 100)
    manifest, properties = table([f"{i}" for i in range(200)], labels)
    before = find_shortcuts(manifest, properties, 0)
    more, of_more = table([f"test/{i}" for i in range(100)], labels[:100], brightness=labels[:100] * 1.0)
    more["split"] = more["source_split"] = "test"
    both = pd.concat([manifest, more], ignore_index=True), pd.concat([properties, of_more], ignore_index=True)
    assert find_shortcuts(*both, 0) == before


def test_a_class_that_is_one_group_is_left_out_and_it_says_so():
    labels = np.repeat([0, 1, 2], 30)
    ids = np.arange(90).astype(str)
    found = find_shortcuts(*table(ids, labels, group=np.where(labels == 1, "one video", ids)), 0)
    assert found["num_images"] == 60
    assert found["chance"] == 0.5
    assert found["words"][-1] == "These classes have fewer than 5 images or groups and are ignored: class 1."


@pytest.mark.parametrize("labels", [[0] * 50, [0] * 40 + [1] * 4])
def test_it_is_said_when_nothing_can_be_told(labels):
    found = find_shortcuts(*table([f"{i}" for i in range(len(labels))], labels), 0)
    assert found["accuracy"] is None
    assert found["words"] == ["The search for shortcuts needs two classes with 5 images or groups each."]
    assert found["warnings"] == []
