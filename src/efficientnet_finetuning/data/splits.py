"""Assign images to splits: use the set's own splits, or cut stratified, seeded parts out of train."""

from collections import Counter
from collections.abc import Hashable, Mapping

import numpy as np
import pandas as pd

from efficientnet_finetuning.errors import InputError, counted, shorten

SPLITS = ("train", "validation", "test")
_ABOUT_GROUPS = (
    " Images of one group stay in one split, so a class needs a group for each split. Groups come from the CSV's "
    "column group, from dataset.group_pattern, and from images that look the same; dataset.group_near_duplicates=false "
    "disables the last. Your own splits never change."
)


def assign_splits(
    manifest: pd.DataFrame, class_names: tuple[str, ...], validation_fraction: float, test_fraction: float, seed: int
) -> pd.DataFrame:
    """Cut missing splits out of train, with at least one image of each class.

    Groups stay together; each class comes as close to its share as the groups allow.

    Args:
        manifest: one row per image with ``id``, ``split`` (as the set assigns it), ``label`` and ``group``.
        class_names: by label.
        validation_fraction: share (0–1) of each class in train, cut if no row is in ``validation``.
        test_fraction: the same for ``test``, which is cut first.
        seed: the choice depends only on the seed, the groups and the order of the ids.

    Returns:
        A copy with every row in ``train``, ``validation`` or ``test``.

    Raises:
        InputError: a split would have no image of a class.
    """
    manifest = manifest.copy()
    generator = np.random.default_rng(seed)
    fractions = {"test": test_fraction, "validation": validation_fraction}
    cut = [split for split in fractions if not (manifest["split"] == split).any()]
    cut_from = manifest[manifest["split"] == "train"]
    for done, split in enumerate(cut):
        train = manifest[manifest["split"] == "train"]
        chosen = _choose_groups(train, fractions[split], len(cut) - done, generator)
        manifest.loc[train.index[train["group"].isin(chosen)], "split"] = split
    # The set's own test split may lack a class; the accuracy of that class is then unknown.
    _check_no_class_is_empty(manifest, class_names, ("train", *cut), fractions, cut_from)
    return manifest


def complete_splits(
    manifest: pd.DataFrame, class_names: tuple[str, ...], validation_fraction: float, test_fraction: float, seed: int
) -> pd.DataFrame:
    """Move train images into cut splits that have no image of a class after labels were corrected.

    Takes the arguments of :func:`assign_splits`, with splits assigned and with ``source_split``; raises the same.
    """
    manifest = manifest.copy()
    generator = np.random.default_rng(seed)
    fractions = {"test": test_fraction, "validation": validation_fraction}
    cut = [split for split in fractions if not (manifest["source_split"] == split).any()]
    for split in cut:
        there = manifest.loc[manifest["split"] == split, "label"]
        for label in sorted(set(range(len(class_names))) - set(there)):
            train = manifest[manifest["split"] == "train"]
            chosen = _choose_groups(train[train["label"] == label], fractions[split], 1, generator)
            manifest.loc[train.index[train["group"].isin(chosen)], "split"] = split
    used = manifest[manifest["split"] != ""]
    _check_no_class_is_empty(used, class_names, ("train", *cut), fractions, used[used["source_split"] == "train"])
    return manifest


def wanted(fraction: float, num_images: int) -> int:
    """How many of a class' images a split should get."""
    return max(1, round(fraction * num_images))


def missed_shares(manifest: pd.DataFrame, fractions: Mapping[str, float]) -> dict[str, list[str]]:
    """Find classes whose share in a cut split is far off because groups stay whole.

    Args:
        manifest: with ``source_split``, ``split`` and ``class_name``.
        fractions: of ``test`` and ``validation``, in this order, as they were cut.

    Returns:
        By split, a text for each such class with its actual and its intended number of images.
    """
    pool = manifest[(manifest["source_split"] == "train") & (manifest["split"] != "")]
    missed: dict[str, list[str]] = {}
    for split in (split for split in fractions if not (manifest["source_split"] == split).any()):
        sizes = pool["class_name"].value_counts(sort=False)
        found = pool.loc[pool["split"] == split, "class_name"].value_counts()
        counts = {name: (int(found.get(name, 0)), wanted(fractions[split], size)) for name, size in sizes.items()}
        told = [f"{name} ({n} instead of {asked})" for name, (n, asked) in counts.items() if 2 * abs(n - asked) > asked]
        missed |= {split: told} if told else {}
        pool = pool[pool["split"] != split]
    return missed


def _choose_groups(train: pd.DataFrame, fraction: float, keep: int, generator: np.random.Generator) -> set[str]:
    """Choose groups that together hold about a share of each class, and at least one image of each.

    Goes through the images class by class in random order, and takes a group if it brings the classes closer to their
    shares. A class without any chosen image gives its smallest group.
    """
    share = _Share(train, fraction, keep)
    rows_of = train.groupby("label").groups
    for label, rows in rows_of.items():
        for group in train.loc[generator.permutation(rows), "group"]:
            if share.lacking[label] <= 0:
                break
            if group not in share.chosen and share.may_go(group) and share.brings_nearer(group):
                share.take(group)
    for label in rows_of:
        if label in share.bare:
            own = [group for group, counts in share.members.items() if label in counts]
            share.take(min(own, key=lambda group: (not share.may_go(group), sum(share.members[group].values()))))
    return share.chosen


class _Share:
    """The groups chosen for a split so far, and what the split still lacks.

    Attributes:
        members: of each group, its number of images by label.
        lacking: images of each label still to take; negative if too many are taken.
        bare: labels without a chosen image.
        chosen: the groups.
    """

    def __init__(self, train: pd.DataFrame, fraction: float, keep: int) -> None:
        """Choose nothing yet; leave ``keep`` groups of each label for train and the splits to come."""
        self.members: dict[str, Counter[Hashable]] = {}
        sizes = train.groupby(["group", "label"], sort=False).size().reset_index(name="size")
        for group, label, size in sizes.itertuples(index=False, name=None):
            self.members.setdefault(group, Counter())[label] = size
        self.lacking = {label: wanted(fraction, size) for label, size in train["label"].value_counts().items()}
        self.bare, self.chosen = set(self.lacking), set[str]()
        self._spare = Counter(label for counts in self.members.values() for label in counts)
        self._spare.subtract(dict.fromkeys(self.lacking, keep))

    def take(self, group: str) -> None:
        counts = self.members[group]
        self.chosen.add(group)
        self.bare.difference_update(counts)
        self._spare.subtract(counts.keys())
        for label, size in counts.items():
            self.lacking[label] -= size

    def may_go(self, group: str) -> bool:
        """Whether train keeps enough groups of each label of this one."""
        return all(self._spare[label] > 0 or label in self.bare for label in self.members[group])

    def brings_nearer(self, group: str) -> bool:
        counts = self.members[group].items()
        return sum(abs(self.lacking[label] - size) - abs(self.lacking[label]) for label, size in counts) < 0


def _check_no_class_is_empty(
    manifest: pd.DataFrame,
    class_names: tuple[str, ...],
    splits: tuple[str, ...],
    fractions: dict[str, float],
    cut_from: pd.DataFrame,
) -> None:
    counts = pd.crosstab(manifest["label"], manifest["split"]).reindex(
        index=range(len(class_names)), columns=SPLITS, fill_value=0
    )
    empty = [(label, split) for split in splits for label in counts.index[counts[split] == 0]]
    if not empty:
        return
    groups = {label: cut_from.loc[cut_from["label"] == label, "group"] for label, _ in empty}
    in_groups = {label: list(rows.unique()) for label, rows in groups.items() if rows.duplicated().any()}
    told = []
    for label, split in empty:
        own = in_groups.get(label, [])
        where = f", in {counted(len(own), 'group')}: {shorten(own)}" if own else ""
        told.append(f"{class_names[label]} has no image in {split} ({counts.loc[label].sum()} in all{where})")
    raise InputError(
        f"Every class needs images in each split: {shorten(told)}. Add images, leave the class out, or "
        f"change dataset.validation_fraction ({fractions['validation']}) and dataset.test_fraction "
        f"({fractions['test']}), which set the shares that are cut out of train." + (_ABOUT_GROUPS if in_groups else "")
    )
