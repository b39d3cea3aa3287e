"""Equal and nearly equal images, on made-up tables that a loop over all pairs judges too."""

import itertools

import numpy as np
import pandas as pd
import pytest

from efficientnet_finetuning.data.duplicates import conflicting_labels, exclude_duplicates, near_duplicates, near_hashes

# sha256, the source's split, class, and what becomes of it: the kind of exclusion and the id that is named.
COPIES = [
    ("alone", "train", "cat", ""),
    ("twice", "train", "cat", ""),
    ("twice", "train", "cat", "duplicate 1"),
    ("twice", "train", "cat", "duplicate 1"),
    ("held out", "train", "cat", "duplicate_across_splits 5"),
    ("held out", "validation", "cat", ""),
    ("tested", "train", "cat", "duplicate_across_splits 9"),
    ("tested", "validation", "cat", "duplicate_across_splits 9"),
    ("tested", "train", "dog", "duplicate_across_splits 9"),
    ("tested", "test", "cat", ""),
    ("not learnt", "validation", "cat", "duplicate_across_splits 11"),
    ("not learnt", "test", "cat", ""),
    ("both", "train", "cat", "conflicting_labels"),
    ("both", "train", "dog", "conflicting_labels"),
    ("both", "train", "cat", "conflicting_labels"),
    ("within", "validation", "cat", ""),
    ("within", "validation", "dog", ""),
    ("the set's", "test", "dog", ""),
    ("the set's", "test", "dog", ""),
    ("unreadable", "train", "cat", "empty"),
    ("unreadable", "train", "cat", "empty"),
    ("left out", "train", "cat", "too_large"),
    ("left out", "train", "dog", ""),
]


def table(copies) -> pd.DataFrame:
    found = pd.DataFrame(copies, columns=["sha256", "source_split", "class_name", "fate"])
    excluded = found["fate"].where(found["fate"].isin(["empty", "too_large"]), "")
    hashes = (found["fate"] != "empty").map({True: "0" * 16, False: ""})
    ids = found.index.astype(str)
    return found.assign(id=ids, label=found["class_name"] == "dog", excluded=excluded, perceptual_hash=hashes)


@pytest.mark.parametrize("index", [0, 100], ids=["plain index", "another index"])
def test_of_copies_the_one_that_judges_stays_and_those_that_contradict_each_other_go(index):
    findings = table(COPIES).set_index(pd.RangeIndex(index, index + len(COPIES)))
    before = findings.copy()
    found = exclude_duplicates(findings)
    pd.testing.assert_frame_equal(findings, before)
    for fate, excluded in zip(found["fate"], found["excluded"], strict=True):
        kind, _, named = fate.partition(" ")
        assert excluded.split(":")[0] == kind
        assert not named or excluded.split()[-1] == named


def test_copies_that_contradict_each_other_are_listed_excluded_or_not():
    found = conflicting_labels(exclude_duplicates(table(COPIES)))
    assert [[image["id"] for image in copies] for copies in found] == [
        ["6", "7", "8", "9"],
        ["12", "13", "14"],
        ["15", "16"],
        ["21", "22"],
    ]
    assert found[2][1] == {"id": "16", "class_name": "dog", "source_split": "validation"}
    unreadable = [("empty", "train", name, "empty") for name in ("cat", "dog")]
    assert conflicting_labels(table(unreadable)) == []


@pytest.fixture(params=range(3))
def hashed(request) -> pd.DataFrame:
    """Images of 30 looks and near them, some without a hash and some in no split."""
    generator = np.random.default_rng(request.param)
    hashes = generator.integers(0, 2**64, 30, dtype=np.uint64)[generator.integers(0, 30, 150)]
    for _ in range(4):
        bits = np.uint64(1) << generator.integers(0, 64, 150).astype(np.uint64)
        hashes = hashes ^ np.where(generator.random(150) < 0.4, bits, np.uint64(0))
    manifest = pd.DataFrame(
        {"id": np.arange(150).astype(str), "perceptual_hash": [f"{value:016x}" for value in hashes]}
    )
    manifest["split"] = generator.choice(["train", "validation", "test", ""], 150, p=[0.4, 0.25, 0.25, 0.1])
    manifest["source_split"] = generator.choice(["train", "test"], 150)
    manifest.loc[generator.random(150) < 0.05, "perceptual_hash"] = ""
    return manifest.assign(class_name=generator.choice(["cat", "dog"], 150))


def test_the_nearest_before_the_split_of_each_image_is_the_one_that_all_pairs_show(hashed):
    found, num_alike = near_duplicates(hashed)
    used = hashed[(hashed["split"] != "") & (hashed["perceptual_hash"] != "")].set_index("id")
    values = np.array([int(text, 16) for text in used["perceptual_hash"]], np.uint64)
    distances = pd.DataFrame(np.bitwise_count(values[:, None] ^ values).astype(int), used.index, used.index)
    expected = {}
    for first_split, second_split in (("train", "validation"), ("train", "test"), ("validation", "test")):
        between = distances.loc[used["split"] == second_split, used["split"] == first_split]
        nearest = between.min(axis=1)
        expected |= {(first_split, id_): distance for id_, distance in nearest[nearest <= 4].items()}
    assert {(row.first_split, row.second): row.distance for row in found.itertuples()} == expected
    assert len(found) == len(expected) > 30
    assert found["distance"].is_monotonic_increasing
    for row in found.itertuples():
        assert distances.loc[row.first, row.second] == row.distance
        of_both = used.loc[[row.first, row.second]]
        assert list(of_both["split"]) == [row.first_split, row.second_split]
        assert list(of_both["class_name"]) == [row.first_class, row.second_class]
        alike = used[
            (used["perceptual_hash"] == of_both["perceptual_hash"].iloc[0]) & (used["split"] == row.first_split)
        ]
        assert row.first == alike.index[0], "one stands for all that look so"
    in_train = used["source_split"] == "train"
    near = distances.loc[in_train, in_train].to_numpy() <= 4
    assert num_alike == (near.sum(1) > 1).sum()


def test_two_that_are_equal_are_alike_and_the_first_row_counts_too():
    splits, hashes = ["train", "train", "train", "test"], [7, 0xFFFF << 40, 0xFFFF << 40, 7]
    texts = [f"{value:016x}" for value in hashes]
    manifest = pd.DataFrame({"id": list("0123"), "split": splits, "source_split": splits, "perceptual_hash": texts})
    found, num_alike = near_duplicates(manifest.assign(class_name="a"))
    assert found[["first", "second", "distance"]].to_numpy().tolist() == [["0", "3", 0]]
    assert num_alike == 2


def test_no_image_has_no_near_duplicate():
    nothing = table([]).assign(split="")
    found, num_alike = near_duplicates(nothing)
    assert (len(found), num_alike) == (0, 0)


def test_hashes_that_differ_in_four_bits_are_found_wherever_the_bits_are():
    flips = [sum(1 << bit for bit in bits) for bits in itertools.combinations(range(0, 64, 4), 4)]
    edges = [sum(1 << bit for bit in bits) for bits in itertools.product((0, 12), (13, 25), (26, 38), (39, 51, 52, 63))]
    for flip in {*flips[::7], *edges}:
        pairs = np.concatenate(list(near_hashes(np.array([5, 5 ^ flip], np.uint64))))
        assert {tuple(sorted(pair)) for pair in pairs.tolist()} == {(0, 1)}
