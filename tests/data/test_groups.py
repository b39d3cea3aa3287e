import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from efficientnet_finetuning.data.audit import audit, format_audit
from efficientnet_finetuning.data.duplicates import near_duplicates
from efficientnet_finetuning.data.groups import describe_groups, group_images, groups_of
from efficientnet_finetuning.data.inspection import inspect_images
from efficientnet_finetuning.data.manifest import build_manifest
from efficientnet_finetuning.data.sources import open_source, reopen
from efficientnet_finetuning.data.splits import assign_splits
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import AuditParameters, DatasetParameters

PATTERN = r"/([^/]+)-[0-9]\.png$"


def rows(groups: dict[str, list[int]]) -> pd.DataFrame:
    """A manifest of the labels in each group, all in train and in the order of the labels."""
    listed = [(group, label) for group, labels in groups.items() for label in labels]
    table = pd.DataFrame(listed, columns=["group", "label"]).sort_values("label", kind="stable", ignore_index=True)
    return table.assign(id=table.index.astype(str), split="train")


def seen(hashes: list[int], group: str = "", excluded: str = "") -> pd.DataFrame:
    ids = [f"{index}.png" for index in range(len(hashes))]
    texts = [f"{value:016x}" for value in hashes]
    return pd.DataFrame({"id": ids, "group": group, "excluded": excluded, "perceptual_hash": texts})


def look(path, seed: int = 0, **dataset):
    """The manifest of a folder or a CSV, and its audit."""
    parameters = DatasetParameters(path=path, **dataset)
    source = open_source(parameters)
    findings = inspect_images(source, parameters, 100.0, seed)
    manifest = build_manifest(findings, source.class_names, parameters, AuditParameters(), seed)
    return manifest, audit(source, manifest, source.class_names, parameters)


def is_whole(manifest: pd.DataFrame) -> bool:
    return bool((manifest.groupby("group")["split"].nunique() == 1).all())


@pytest.fixture
def bursts(tmp_path, write_images):
    """Two classes of ten bursts of four photographs, and in each a photograph by itself."""
    names = [f"{name}/{name}{burst}-{index}.png" for name in "ab" for burst in range(10) for index in range(4)]
    return write_images(tmp_path, *names, "a/alone.png", "b/alone.png")


# The cut


@pytest.mark.parametrize("seed", range(5))
def test_where_every_image_is_alone_the_cut_is_the_first_share_of_each_shuffled_class(seed):
    given = rows({str(index): [index % 3] for index in range(80)}).drop(index=[7, 30])
    expected, generator = given.copy(), np.random.default_rng(seed)
    for split, fraction in (("test", 0.2), ("validation", 0.1)):
        for _, members in expected[expected["split"] == "train"].groupby("label").groups.items():
            chosen = generator.permutation(members)[: round(fraction * len(members))]
            expected.loc[chosen, "split"] = split
    assert assign_splits(given, ("a", "b", "c"), 0.1, 0.2, seed).equals(expected)


def test_a_pair_of_near_duplicates_changes_little_of_the_cut():
    alone = rows({str(index): [index % 3] for index in range(300)})
    paired = alone.assign(group=alone["group"].replace({"3": "0"}))  # both of the first class
    cuts = [assign_splits(given, ("a", "b", "c"), 0.1, 0.2, seed=4) for given in (alone, paired)]
    moved = (cuts[0]["split"] == "test") != (cuts[1]["split"] == "test")
    assert moved.sum() <= 2
    assert (alone.loc[moved, "label"] == 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_whole_and_every_class_comes_near_its_share(seed):
    sizes = np.random.default_rng(seed).integers(1, 9, 200)
    cut = assign_splits(rows({f"g{i}": [i % 4] * n for i, n in enumerate(sizes)}), tuple("abcd"), 0.1, 0.2, seed)
    assert is_whole(cut)
    for _, part in cut.groupby("label"):
        counts = part["split"].value_counts()
        assert abs(counts["test"] - 0.2 * len(part)) <= 4
        assert abs(counts["validation"] - 0.08 * len(part)) <= 4


def test_a_group_of_several_classes_counts_for_each_of_them():
    generator = np.random.default_rng(0)
    patients = {f"p{i}": list((generator.random(10) < generator.beta(0.3, 2)).astype(int)) for i in range(100)}
    cut = assign_splits(rows(patients), ("well", "ill"), 0.1, 0.2, seed=0)
    assert is_whole(cut)
    shares = pd.crosstab(cut["label"], cut["split"], normalize="index")
    assert shares["test"].between(0.15, 0.25).all()
    assert shares["validation"].between(0.05, 0.11).all()


def test_a_class_of_few_groups_has_one_in_each_split_whatever_their_sizes():
    for seed in range(10):
        few = {"large": [0] * 60, "one": [0], "other": [0]} | {str(index): [1] for index in range(60)}
        cut = assign_splits(rows(few), ("a", "b"), 0.1, 0.4, seed)
        assert is_whole(cut)
        assert cut[cut["label"] == 0].groupby("split")["group"].first().nunique() == 3


def test_a_group_that_holds_a_whole_class_is_named_with_the_ways_out():
    given = rows({"video": [1] * 30} | {str(index): [0] for index in range(30)})
    with pytest.raises(InputError) as caught:
        assign_splits(given, ("many", "filmed"), 0.1, 0.2, seed=0)
    message = str(caught.value)
    assert "filmed has no image in train (30 in all, in 1 group: video)" in message
    assert "many has" not in message
    assert "a class needs a group for each split" in message
    assert "dataset.group_near_duplicates=false" in message


# What a group is


def test_near_duplicates_are_joined_over_others_and_with_them_the_groups_that_a_user_named():
    findings = seen([0, 0b1111, 0b11111111, 0xFFFF << 40, 0xFFFF << 40, 0xFF << 20, 0x1F << 55])
    assert list(group_images(findings, None)) == ["0.png", "0.png", "0.png", "3.png", "3.png", "5.png", "6.png"]
    findings["group"] = ["", "", "x", "", "y", "x", ""]
    assert list(group_images(findings, None)) == ["x", "x", "x", "y", "y", "x", "6.png"]
    apart = group_images(findings, None, near_duplicates=False)
    assert list(apart) == ["0.png", "1.png", "x", "3.png", "y", "x", "6.png"]


def test_an_image_that_is_left_out_joins_nothing_and_the_index_stays():
    findings = seen([0, 0b1111, 0b11111111]).set_index(pd.Index([5, 7, 9]))
    findings.loc[7, "excluded"] = "duplicate: of another"
    groups = group_images(findings, None)
    assert groups.to_dict() == {5: "0.png", 7: "1.png", 9: "2.png"}
    findings["perceptual_hash"] = ""
    assert group_images(findings, r"([02])(-.)?\.png").to_dict() == {5: "0", 7: "1.png", 9: "2"}


def test_groups_are_counted_among_the_images_in_use():
    manifest = pd.DataFrame({"group": list("aabbbcdddd"), "split": ["train"] * 6 + [""] * 4, "id": list("0123456789")})
    parameters = DatasetParameters(path="photographs")
    assert describe_groups(manifest, parameters) == {
        "count": 2,
        "images": 5,
        "largest": {"name": "b", "images": 3},
        "unmatched": [],
    }
    assert describe_groups(manifest[:0], parameters)["largest"] is None
    optional = DatasetParameters(path="photographs", group_pattern="[0-8]([a-z])?$")
    assert describe_groups(manifest, optional)["unmatched"] == list("0123456789")


def test_groups_of_random_hashes_are_those_that_all_pairs_show():
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**64, 60, dtype=np.uint64)[generator.integers(0, 60, 300)]
    for _ in range(4):
        flipped = np.uint64(1) << generator.integers(0, 64, 300).astype(np.uint64)
        hashes = hashes ^ np.where(generator.random(300) < 0.5, flipped, np.uint64(0))
    near = np.bitwise_count(hashes[:, None] ^ hashes) <= 4
    first = np.arange(300)
    for _ in range(300):
        first = np.array([first[row].min() for row in near])
    assert list(group_images(seen(hashes.tolist()), None)) == [f"{index}.png" for index in first]


def test_the_nearest_on_the_other_side_of_a_split_is_told_once_for_each_image():
    splits = ["train", "train", "test", "test", "test"]
    manifest = seen([0, 0b1, 0b11, 0b11, 0xFFFF]).assign(class_name="a", split=splits, source_split=splits)
    found, num_alike = near_duplicates(manifest)
    assert num_alike == 2
    assert found[["first", "second", "distance"]].to_numpy().tolist() == [["1.png", "2.png", 1], ["1.png", "3.png", 1]]


@pytest.mark.parametrize(("bits", "is_told"), [(4, True), (5, False)])
def test_what_differs_in_more_than_four_of_64_bits_is_no_near_duplicate(bits, is_told):
    splits = ["train", "test", "train"]
    manifest = seen([0, 2**bits - 1, (2**bits - 1) << 40]).assign(class_name="a", split=splits, source_split=splits)
    found, num_alike = near_duplicates(manifest)
    assert (found["distance"].tolist(), num_alike) == (([4], 2) if is_told else ([], 0))


def test_many_equal_images_make_no_pair_each():
    manifest = seen([7] * 20_000).assign(class_name="a", split=["train", "test"] * 10_000, source_split="train")
    assert group_images(manifest, None).nunique() == 1
    found, num_alike = near_duplicates(manifest)
    assert (len(found), num_alike) == (10_000, 20_000)


# From a set to its splits


def test_a_pattern_names_the_groups_and_what_it_does_not_match_is_told(bursts):
    manifest, report = look(bursts, group_pattern=PATTERN)
    assert is_whole(manifest)
    groups = manifest.set_index("id")["group"]
    assert groups["a/a3-2.png"] == "a3"
    assert groups["a/alone.png"] == "a/alone.png"
    numbers = groups_of(manifest, np.array(["b/b1-0.png", "a/a3-2.png", "b/b1-3.png"]))
    assert numbers[0] == numbers[2] != numbers[1]
    assert report["groups"] == {
        "count": 20,
        "images": 80,
        "largest": {"name": "a0", "images": 4},
        "near_duplicates": 0,
    }
    assert "groups: 20 of more than one image, 80 images in all; the largest, a0, has 4" in format_audit(report)
    assert (
        "dataset.group_pattern does not match 2 ids: a/alone.png, b/alone.png. Each of these images is a group of "
        "its own" in (report["warnings"])
    )
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_a_pattern_that_matches_nothing_is_refused_with_an_id_to_look_at(bursts):
    with pytest.raises(InputError, match=r"dataset.group_pattern \(patient\(\[0-9\]\+\)\) matches no id.*a/a0-0\.png"):
        look(bursts, group_pattern="patient([0-9]+)")


def test_a_csv_names_groups_that_stay_whole_through_storing_and_reopening(bursts):
    table = pd.DataFrame({"path": [path.relative_to(bursts).as_posix() for path in bursts.rglob("*.png")]})
    table["label"] = table["path"].str[0]
    table["group"] = table["path"].str.extract(PATTERN, expand=False).fillna("")
    table.to_csv(bursts / "labels.csv", index=False)
    manifest, report = look(bursts / "labels.csv")
    assert is_whole(manifest)
    assert (manifest["group"] != "").all()
    assert report["groups"]["count"] == 20
    source = open_source(DatasetParameters(path=bursts / "labels.csv"))
    again = reopen(json.loads(json.dumps(source.describe())))
    assert again.groups["a/a3-2.png"] == "a3"
    assert "a/alone.png" not in again.groups
    with pytest.raises(InputError, match=r"The column group of .* and dataset.group_pattern both define groups"):
        look(bursts / "labels.csv", group_pattern=PATTERN)


def test_near_duplicates_of_a_folder_are_kept_together_unless_told_otherwise(tmp_path, write_images):
    write_images(tmp_path, *(f"{name}/{index}.png" for name in "ab" for index in range(12)), size=(64, 48))
    for name in "ab":
        for index in range(6):
            with Image.open(tmp_path / name / f"{index}.png") as image:
                image.point(lambda value: value * 0.9).save(tmp_path / name / f"{index}-darker.png")
    manifest, report = look(tmp_path)
    assert is_whole(manifest)
    assert report["groups"]["near_duplicates"] == 24
    assert report["near_duplicates"]["count"] == 0
    apart = [look(tmp_path, seed, group_near_duplicates=False)[1] for seed in range(3)]
    assert sum(report["near_duplicates"]["count"] for report in apart) > 0
    assert all(report["groups"]["near_duplicates"] == 0 for report in apart)


def test_splits_that_a_set_brings_are_untouched_and_groups_across_them_are_told(tmp_path, write_images):
    names = [
        f"{split}/{name}/{name}{i // 2}-{i % 2}.png" for split in ("train", "test") for name in "ab" for i in range(20)
    ]
    manifest, report = look(write_images(tmp_path, *names), group_pattern=PATTERN)
    assert (manifest.loc[manifest["source_split"] == "test", "split"] == "test").all()
    assert is_whole(manifest[manifest["source_split"] == "train"])
    assert any(
        warning.startswith("the set's own splits divide 20 groups: a0, a1, a2 and 17 more")
        for warning in report["warnings"]
    )


def test_shares_that_large_groups_make_impossible_are_told(tmp_path, write_images):
    names = [f"a/{burst}-{index}.png" for burst in "xyz" for index in range(9)]
    manifest, report = look(write_images(tmp_path, *names, *(f"b/{i}.png" for i in range(27))), group_pattern=PATTERN)
    assert is_whole(manifest)
    assert [warning for warning in report["warnings"] if warning.startswith("groups stay whole")] == [
        "groups stay whole, so test does not have the requested share of 1 class: a (9 instead of 5); the "
        "largest group is x with 9 images",
        "groups stay whole, so validation does not have the requested share of 1 class: a (9 instead of 2); the "
        "largest group is x with 9 images",
    ]
