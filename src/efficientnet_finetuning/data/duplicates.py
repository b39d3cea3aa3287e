"""The same image twice: within a class, under two names, on both sides of a split, or nearly the same."""

import numpy as np
import pandas as pd

# Of the 64 bits of a perceptual hash. Among 9,000 images of CIFAR-10 all ten pairs within four bits show the same
# picture, at six bits two of four, at eight fewer still; of 300 images that were made smaller and encoded anew, 98 %
# stay within four bits.
NEAR_DISTANCE = 4
# Whoever judges keeps the image: test before validation before train.
_JUDGES = {"train": ("validation", "test"), "validation": ("test",), "test": ()}


def exclude_duplicates(findings: pd.DataFrame) -> pd.DataFrame:
    """Exclude copies of the same bytes so that no model is judged by what it was trained on.

    - A copy on both sides of a split stays where it judges: in test rather than in validation or train.
    - Copies in train under several labels teach nothing but confusion: all are excluded.
    - Copies in train under one label: the first is kept.

    Copies within validation or within test are the set's business and stay.

    Args:
        findings: of :func:`~efficientnet_finetuning.data.inspection.inspect_images`.

    Returns:
        A copy with more reasons in ``excluded``.
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
    """Groups of equal images that bear several labels, with ``id``, ``class_name`` and ``source_split`` of each."""
    groups = [copies for _, copies in _equal_images(findings, excluded_too=True) if copies["label"].nunique() > 1]
    return [copies[["id", "class_name", "source_split"]].to_dict("records") for copies in groups]


def _equal_images(findings: pd.DataFrame, excluded_too: bool = False):
    known = findings[findings["perceptual_hash"] != ""] if excluded_too else findings[findings["excluded"] == ""]
    repeated = known[known["sha256"].duplicated(keep=False)]
    return repeated.groupby("sha256", sort=False)


def near_duplicates(manifest: pd.DataFrame) -> pd.DataFrame:
    """Pairs of images that look the same and stand on two sides of a split.

    Their perceptual hashes (DCT, 64 bits: Zauner 2010, as the library ``imagehash`` computes them) differ in
    :data:`NEAR_DISTANCE` bits or fewer.

    Args:
        manifest: with ``id``, ``split``, ``class_name`` and ``perceptual_hash``.

    Returns:
        ``first`` and ``second`` (ids; the first is in the split that is trained on), ``first_split``,
        ``second_split``, ``first_class``, ``second_class`` and ``distance`` in bits, nearest first.
    """
    hashed = manifest[(manifest["split"] != "") & (manifest["perceptual_hash"] != "")]
    parts = dict(list(hashed.groupby("split")))
    pairs = [
        _near_pairs(parts[first], parts[second])
        for first, second in (("train", "validation"), ("train", "test"), ("validation", "test"))
        if first in parts and second in parts
    ]
    found = pd.concat(pairs, ignore_index=True) if pairs else _near_pairs(hashed[:0], hashed[:0])
    return found.sort_values("distance", kind="stable", ignore_index=True)


def _near_pairs(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    left, right = _bits(first), _bits(second)
    hits = [np.empty((0, 2), np.int64)]
    # A row at a time: all pairs at once would need gigabytes.
    for index, value in enumerate(left):
        near = np.flatnonzero(np.bitwise_count(value ^ right) <= NEAR_DISTANCE)
        hits.append(np.column_stack([np.full(len(near), index), near]))
    rows, columns = np.concatenate(hits).T
    one, other = first.iloc[rows].reset_index(drop=True), second.iloc[columns].reset_index(drop=True)
    return pd.DataFrame(
        {
            "first": one["id"],
            "second": other["id"],
            "first_split": one["split"],
            "second_split": other["split"],
            "first_class": one["class_name"],
            "second_class": other["class_name"],
            "distance": np.bitwise_count(left[rows] ^ right[columns]).astype(int),
        }
    )


def _bits(rows: pd.DataFrame) -> np.ndarray:
    return np.array([int(text, 16) for text in rows["perceptual_hash"]], np.uint64)
