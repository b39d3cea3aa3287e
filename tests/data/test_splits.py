"""Shares and gaps of splits, on made-up manifests."""

import pandas as pd
import pytest

from efficientnet_finetuning.data.splits import assign_splits, complete_splits, missed_shares
from efficientnet_finetuning.errors import InputError

NAMES = ("a", "b", "c")


def manifest_of(counts: dict[tuple[str, str], int], source_split: str = "train") -> pd.DataFrame:
    """So many images of each split and class, each a group of its own."""
    listed = [(split, name) for (split, name), count in counts.items() for _ in range(count)]
    table = pd.DataFrame(listed, columns=["split", "class_name"])
    ids = [f"{source_split} {row}" for row in table.index]
    return table.assign(id=ids, group=ids, label=table["class_name"].map(NAMES.index), source_split=source_split)


def test_train_keeps_one_image_of_each_class_and_no_more_where_the_shares_are_large():
    given = manifest_of({("train", name): 10 for name in NAMES})
    cut = assign_splits(given, NAMES, validation_fraction=0.8, test_fraction=0.5, seed=0)
    assert set(cut.groupby(["class_name", "split"]).size().unstack()[["train", "validation", "test"]].itertuples()) == {
        (name, 1, 4, 5) for name in NAMES
    }


@pytest.fixture
def relabelled() -> pd.DataFrame:
    """Twelve images of class c, all in train, four of them in two groups; and some that are left out."""
    counts = {(split, name): count for split, count in (("train", 8), ("validation", 2), ("test", 3)) for name in "ab"}
    manifest = manifest_of(counts | {("train", "c"): 12, ("", "c"): 5})
    own = manifest.index[manifest["class_name"] == "c"]
    manifest.loc[own[:2], "group"], manifest.loc[own[2:4], "group"] = "first", "second"
    return manifest


@pytest.mark.parametrize("seed", range(4))
def test_a_class_that_a_cut_split_lacks_gives_it_its_share_out_of_train_and_nothing_else_moves(relabelled, seed):
    before = relabelled.copy()
    found = complete_splits(relabelled, NAMES, validation_fraction=0.2, test_fraction=0.25, seed=seed)
    assert relabelled.equals(before)
    moved = found["split"] != before["split"]
    assert set(before.loc[moved, "class_name"]) == {"c"}
    assert set(before.loc[moved, "split"]) == {"train"}
    counts = found[moved]["split"].value_counts()
    assert abs(counts["test"] - 3) <= 1
    assert abs(counts["validation"] - 2) <= 1
    assert (found.groupby("group")["split"].nunique() == 1).all()
    again = complete_splits(relabelled, NAMES, validation_fraction=0.2, test_fraction=0.25, seed=seed)
    assert again.equals(found)


def test_a_split_that_the_set_brings_is_not_completed(relabelled):
    own = manifest_of({("test", "a"): 3, ("test", "b"): 3}, source_split="test")
    manifest = pd.concat([relabelled[relabelled["split"] != "test"], own], ignore_index=True)
    found = complete_splits(manifest, NAMES, validation_fraction=0.2, test_fraction=0.25, seed=0)
    moved = found["split"] != manifest["split"]
    assert set(found.loc[moved, "split"]) == {"validation"}
    complete = found[moved]["class_name"].unique()
    assert list(complete) == ["c"]


@pytest.mark.parametrize(("count", "is_enough"), [(2, False), (3, True)])
def test_a_class_needs_an_image_for_each_split_that_was_cut(count, is_enough):
    others = {(split, name): 4 for split in ("train", "validation", "test") for name in "ab"}
    manifest = manifest_of(others | {("train", "c"): count, ("", "c"): 9})
    if is_enough:
        found = complete_splits(manifest, NAMES, 0.1, 0.2, seed=0)
        assert sorted(found.loc[found["class_name"] == "c", "split"]) == [""] * 9 + ["test", "train", "validation"]
        many = manifest_of(others | {("train", "c"): 10})
        found = complete_splits(many, NAMES, validation_fraction=0.8, test_fraction=0.5, seed=0)
        assert found[found["class_name"] == "c"]["split"].value_counts().to_dict() == {
            "test": 5,
            "validation": 4,
            "train": 1,
        }
    else:
        with pytest.raises(InputError, match=rf"c has no image in train \({count} in all\)"):
            complete_splits(manifest, NAMES, 0.1, 0.2, seed=0)


def test_a_share_is_missed_where_it_is_off_by_more_than_half_of_what_was_asked_for():
    splits = ("train", "validation", "test")
    # Asked for are a quarter in test and a fifth of the rest in validation.
    found = {"right": (12, 3, 5), "many": (10, 2, 8), "some": (10, 3, 7), "half": (8, 2, 6), "none": (32, 8, 0)}
    manifest = pd.concat(
        [
            pd.DataFrame({"class_name": name, "split": split, "source_split": "train"}, index=range(count))
            for name, counts in found.items()
            for split, count in zip(splits, counts, strict=True)
        ]
        + [pd.DataFrame({"class_name": "right", "split": "", "source_split": "train"}, index=range(40))]
    )
    fractions = {"test": 0.25, "validation": 0.2}
    told = {"test": ["many (8 instead of 5)", "none (0 instead of 10)"]}
    assert missed_shares(manifest, fractions) == told
    own = pd.DataFrame({"class_name": "some", "split": "validation", "source_split": "validation"}, index=range(30))
    moved = manifest.assign(split=manifest["split"].replace("validation", "train"))
    assert missed_shares(pd.concat([moved, own]), fractions) == told, "a split that the set brings misses nothing"
    assert missed_shares(manifest[manifest["class_name"] == "right"], fractions) == {}


@pytest.mark.parametrize("seed", range(4))
def test_where_all_groups_are_too_large_the_smallest_goes_that_no_other_class_needs(seed):
    def cut(groups: dict[str, list[int]]) -> dict[str, str]:
        listed = [(group, label) for group, labels in groups.items() for label in labels]
        table = pd.DataFrame(listed, columns=["group", "label"]).sort_values("label", kind="stable", ignore_index=True)
        given = table.assign(id=table.index.astype(str), split="train")
        return (
            assign_splits(given, NAMES[: table["label"].nunique()], 0.1, 0.1, seed)
            .set_index("group")["split"]
            .to_dict()
        )

    assert cut({"a": [0] * 9, "b": [0] * 8, "c": [0] * 7}) == {"a": "train", "b": "validation", "c": "test"}
    assert cut({"a": [0] * 9, "b": [0] * 8, "c": [0] * 6 + [1], "x": [1], "y": [1]})["b"] == "test"
