"""Who is in which split: the set's own where it has one, else a stratified, seeded part of train."""

import numpy as np
import pandas as pd

from efficientnet_finetuning.errors import InputError, shorten

SPLITS = ("train", "validation", "test")


def assign_splits(
    manifest: pd.DataFrame,
    class_names: tuple[str, ...],
    validation_fraction: float,
    test_fraction: float,
    seed: int,
) -> pd.DataFrame:
    """Cut the splits that the set lacks out of train, at least one image of each class.

    Args:
        manifest: one row an image with ``id``, ``split`` (a role that the set itself fills) and ``label``.
        class_names: by label.
        validation_fraction: share of each class of train, in 0–1, where no row is in ``validation``.
        test_fraction: likewise for ``test``, which is cut first.
        seed: of the choice. It depends on the seed and the order of ids alone.

    Returns:
        A copy with every row in ``train``, ``validation`` or ``test``.

    Raises:
        InputError: a class would be missing from a split.
    """
    manifest = manifest.copy()
    generator = np.random.default_rng(seed)
    fractions = {"test": test_fraction, "validation": validation_fraction}
    cut = [split for split in fractions if not (manifest["split"] == split).any()]
    for split in cut:
        for _, rows in manifest[manifest["split"] == "train"].groupby("label").groups.items():
            count = max(1, round(fractions[split] * len(rows)))
            manifest.loc[generator.permutation(rows)[:count], "split"] = split
    # A class that the set's own test split lacks is the set's business; its accuracy is then unknown.
    _check_no_class_is_empty(manifest, class_names, ("train", *cut), fractions)
    return manifest


def complete_splits(
    manifest: pd.DataFrame,
    class_names: tuple[str, ...],
    validation_fraction: float,
    test_fraction: float,
    seed: int,
) -> pd.DataFrame:
    """After labels have changed, move images from train where a class has none in a split that was cut.

    Takes what :func:`assign_splits` takes, with splits assigned and with ``source_split``; raises the same.
    """
    manifest = manifest.copy()
    generator = np.random.default_rng(seed)
    fractions = {"test": test_fraction, "validation": validation_fraction}
    cut = [split for split in fractions if not (manifest["source_split"] == split).any()]
    for split in cut:
        there = manifest.loc[manifest["split"] == split, "label"]
        for label in sorted(set(range(len(class_names))) - set(there)):
            rows = manifest.index[(manifest["split"] == "train") & (manifest["label"] == label)]
            count = max(1, round(fractions[split] * len(rows)))
            manifest.loc[generator.permutation(rows)[:count], "split"] = split
    _check_no_class_is_empty(manifest[manifest["split"] != ""], class_names, ("train", *cut), fractions)
    return manifest


def _check_no_class_is_empty(
    manifest: pd.DataFrame, class_names: tuple[str, ...], splits: tuple[str, ...], fractions: dict[str, float]
) -> None:
    counts = pd.crosstab(manifest["label"], manifest["split"]).reindex(
        index=range(len(class_names)), columns=SPLITS, fill_value=0
    )
    empty = [
        f"{class_names[label]} has no image in {split} ({counts.loc[label].sum()} in all)"
        for split in splits
        for label in counts.index[counts[split] == 0]
    ]
    if empty:
        raise InputError(
            f"Every class needs images to learn from and to be judged by: {shorten(empty)}. Add "
            f"images, leave the class out, or change dataset.validation_fraction ({fractions['validation']}) and "
            f"dataset.test_fraction ({fractions['test']}) where the splits are cut out of train."
        )
