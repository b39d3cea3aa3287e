"""Who is in which split: the set's own where it has one, else a stratified, seeded part of train."""

import numpy as np
import pandas as pd

from efficientnet_finetuning.errors import InputError

SPLITS = ("train", "validation", "test")


def assign_splits(
    manifest: pd.DataFrame,
    class_names: tuple[str, ...],
    validation_fraction: float,
    test_fraction: float,
    seed: int,
) -> pd.DataFrame:
    """Cut the splits that the set lacks out of train.

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
    for split, fraction in (("test", test_fraction), ("validation", validation_fraction)):
        if (manifest["split"] == split).any():
            continue
        for _, rows in manifest[manifest["split"] == "train"].groupby("label").groups.items():
            count = round(fraction * len(rows))
            manifest.loc[generator.permutation(rows)[:count], "split"] = split
    _check_no_class_is_empty(manifest, class_names, validation_fraction, test_fraction)
    return manifest


def _check_no_class_is_empty(
    manifest: pd.DataFrame, class_names: tuple[str, ...], validation_fraction: float, test_fraction: float
) -> None:
    counts = pd.crosstab(manifest["label"], manifest["split"]).reindex(
        index=range(len(class_names)), columns=SPLITS, fill_value=0
    )
    empty = [
        f"{class_names[label]} has no image in {split} ({counts.loc[label].sum()} in all)"
        for split in SPLITS
        for label in counts.index[counts[split] == 0]
    ]
    if empty:
        more = f", and {len(empty) - 10} more" if len(empty) > 10 else ""
        raise InputError(
            f"Every class needs an image in every split: {'; '.join(empty[:10])}{more}. Add images, leave the "
            f"class out, or change dataset.validation_fraction ({validation_fraction}) and dataset.test_fraction "
            f"({test_fraction}) where the splits are cut out of train."
        )
