"""Duplicates: equal images within a class, with different labels or in two splits, and near duplicates."""

from collections.abc import Iterator
from itertools import count

import numpy as np
import pandas as pd

# Bits out of the 64 of a perceptual hash. Among 9,000 images of CIFAR-10, all ten pairs within four bits show the same
# picture; at six bits only two of four pairs do. Of 300 images that were shrunk and re-encoded, 98 % stay within four.
NEAR_DISTANCE = 4
# First bit and width of five bands. Two hashes that differ in four bits agree in at least one band.
_BANDS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))
_MANY = 1_000_000
# The splits that keep an image which this split has too: test before validation before train.
_JUDGES = {"train": ("validation", "test"), "validation": ("test",), "test": ()}


def exclude_duplicates(findings: pd.DataFrame) -> pd.DataFrame:
    """Exclude copies of the same bytes, so that no model is tested on images that it was trained on.

    - Test keeps an image that validation or train has too; validation keeps one that train has too.
    - Copies in train with different labels are all excluded. Of copies with one label, the first stays.
    - Copies within validation or within test stay.

    Takes the findings of :func:`~efficientnet_finetuning.data.inspection.inspect_images`. Returns a copy with more
    reasons in ``excluded``.
    """
    findings = findings.copy()
    for _, copies in _equal_images(findings):
        for split, judges in _JUDGES.items():
            here = copies[copies["source_split"] == split]
            judging = copies[copies["source_split"].isin(judges)]
            if here.empty:
                continue
            if len(judging):
                other = judging.iloc[-1]
                findings.loc[here.index, "excluded"] = f"duplicate_across_splits: also {other['id']}"
            elif split == "train" and here["label"].nunique() > 1:
                names = " and ".join(dict.fromkeys(here["class_name"]))
                findings.loc[here.index, "excluded"] = f"conflicting_labels: the same image is in {names}"
            elif split == "train":
                findings.loc[here.index[1:], "excluded"] = f"duplicate: of {here['id'].iloc[0]}"
    return findings


def conflicting_labels(findings: pd.DataFrame) -> list[list[dict[str, str]]]:
    """Groups of equal images with different labels: ``id``, ``class_name`` and ``source_split`` of each image."""
    groups = [copies for _, copies in _equal_images(findings, excluded_too=True) if copies["label"].nunique() > 1]
    return [copies[["id", "class_name", "source_split"]].to_dict("records") for copies in groups]


def _equal_images(findings: pd.DataFrame, excluded_too: bool = False):
    known = findings[findings["perceptual_hash"] != ""] if excluded_too else findings[findings["excluded"] == ""]
    repeated = known[known["sha256"].duplicated(keep=False)]
    return repeated.groupby("sha256", sort=False)


def near_duplicates(manifest: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Find near duplicates across splits, and count those within train.

    The perceptual hashes of near duplicates (DCT, 64 bits: Zauner 2010, computed by ``imagehash``) differ in
    :data:`NEAR_DISTANCE` bits or fewer. The manifest needs ``id``, ``split``, ``source_split``, ``class_name`` and
    ``perceptual_hash``.

    Returns:
        One row for each image of validation or test that has a near duplicate in an earlier split, with the nearest
        one: ``first`` and ``second`` (ids; the first is in the earlier split), ``first_split``, ``second_split``,
        ``first_class``, ``second_class`` and ``distance`` in bits, nearest first; and the number of images in the
        source's train split that have a near duplicate there.
    """
    hashed = manifest[(manifest["split"] != "") & (manifest["perceptual_hash"] != "")]
    hashes, places = distinct_hashes(hashed["perceptual_hash"])
    # By split and hash: the first row that has both, else -1. One image represents all equal hashes of its split.
    rows = {split: np.full(len(hashes), -1) for split, judges in _JUDGES.items() if judges}
    for split, first in rows.items():
        own = np.flatnonzero(hashed["split"] == split)[::-1]
        first[places[own]] = own
    # Distance and index of the nearest hash in a split, as one number. Each hash is nearest to itself.
    none, same = NEAR_DISTANCE + 1, np.arange(len(hashes))
    nearest = {split: np.where(first >= 0, same, none * len(hashes)) for split, first in rows.items()}
    in_train = np.bincount(places[hashed["source_split"] == "train"], minlength=len(hashes))
    is_alike = in_train > 1
    for pairs in near_hashes(hashes):
        distances = np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]).astype(np.int64)
        for one, other in (pairs.T, pairs.T[::-1]):
            is_alike[one[in_train[other] > 0]] = True
            for split, first in rows.items():
                here = first[other] >= 0
                np.minimum.at(nearest[split], one[here], distances[here] * len(hashes) + other[here])
    found = []
    for split, first in rows.items():
        judging = np.flatnonzero(hashed["split"].isin(_JUDGES[split]))
        distances, others = np.divmod(nearest[split][places[judging]], max(len(hashes), 1))
        near = distances < none
        found.append(_pairs(hashed.iloc[first[others[near]]], hashed.iloc[judging[near]], distances[near]))
    return pd.concat(found).sort_values("distance", kind="stable", ignore_index=True), int(in_train[is_alike].sum())


def _pairs(first: pd.DataFrame, second: pd.DataFrame, distances: np.ndarray) -> pd.DataFrame:
    columns = {"": "id", "_split": "split", "_class": "class_name"}
    sides = {"first": first, "second": second}
    return pd.DataFrame(
        {f"{side}{end}": rows[name].to_numpy() for end, name in columns.items() for side, rows in sides.items()}
        | {"distance": distances}
    )


def distinct_hashes(texts: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Convert hexadecimal hashes to distinct sorted numbers, uint64 ``(M,)``, and the index of each text among them."""
    return np.unique(np.array([int(text, 16) for text in texts], np.uint64), return_inverse=True)


def near_hashes(hashes: np.ndarray) -> Iterator[np.ndarray]:
    """Find all pairs of distinct hashes, uint64 ``(M,)``, that differ in :data:`NEAR_DISTANCE` bits or fewer.

    Such hashes agree in at least one of five bands of bits, so only hashes that share a band are compared: 1.28 million
    random hashes take 0.6 billion comparisons instead of 819 billion.

    Yields:
        int64 ``(P, 2)``: indices into ``hashes``, about a million pairs at a time. A pair that shares several bands
        appears several times.
    """
    for first_bit, width in _BANDS:
        bands = hashes >> np.uint64(first_bit) & np.uint64(2**width - 1)
        order = np.argsort(bands, kind="stable")
        bands, ordered, rows = bands[order], hashes[order], np.arange(len(order))
        found: list[np.ndarray] = []
        size = 0
        for step in count(1):  # compare with the next hash, then the one after it, while the band is the same
            rows = rows[: np.searchsorted(rows, len(order) - step)]
            rows = rows[bands[rows + step] == bands[rows]]
            if not len(rows):
                break
            near = rows[np.bitwise_count(ordered[rows] ^ ordered[rows + step]) <= NEAR_DISTANCE]
            found.append(np.column_stack([order[near], order[near + step]]))
            size += len(near)
            if size > _MANY:
                yield np.concatenate(found)
                found, size = [], 0
        yield np.concatenate([np.empty((0, 2), np.int64), *found])
