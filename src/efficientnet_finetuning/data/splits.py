"""Who is in which split: the set's own where it has one, else a stratified, seeded part of train."""

from collections import Counter
from collections.abc import Hashable, Mapping

import numpy as np
import pandas as pd

from efficientnet_finetuning.errors import InputError, counted, shorten

SPLITS = ("train", "validation", "test")


def assign_splits(
    manifest: pd.DataFrame,
    class_names: tuple[str, ...],
    validation_fraction: float,
    test_fraction: float,
    seed: int,
) -> pd.DataFrame:
    """Cut the splits that the set lacks out of train, at least one image of each class.

    The images of a group stay together, so that each class comes as near to its share as the groups allow.

    Args:
        manifest: one row an image with ``id``, ``split`` (a role that the set itself fills), ``label`` and ``group``.
        class_names: by label.
        validation_fraction: share of each class of train, in 0–1, where no row is in ``validation``.
        test_fraction: likewise for ``test``, which is cut first.
        seed: of the choice. It depends on the seed, the groups and the order of ids alone.

    Returns:
        A copy with every row in ``train``, ``validation`` or ``test``.

    Raises:
        InputError: a class would be missing from a split.
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
    # A class that the set's own test split lacks is the set's business; its accuracy is then unknown.
    _check_no_class_is_empty(manifest, class_names, ("train", *cut), fractions, cut_from)
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
            train = manifest[manifest["split"] == "train"]
            chosen = _choose_groups(train[train["label"] == label], fractions[split], 1, generator)
            manifest.loc[train.index[train["group"].isin(chosen)], "split"] = split
    used = manifest[manifest["split"] != ""]
    _check_no_class_is_empty(used, class_names, ("train", *cut), fractions, used[used["source_split"] == "train"])
    return manifest


def wanted(fraction: float, num_images: int) -> int:
    """How many images of a class a split is to have that is cut out of so many."""
    return max(1, round(fraction * num_images))


def missed_shares(manifest: pd.DataFrame, fractions: Mapping[str, float]) -> dict[str, list[str]]:
    """Classes of which a split that was cut out of train has far less or more than its share, since groups stay whole.

    Args:
        manifest: with ``source_split``, ``split`` and ``class_name``.
        fractions: of ``test`` and ``validation``, in this order, as they were cut.

    Returns:
        By split: each such class with the number of images that it has and was to have.
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
    """Groups that together hold about a share of each class, and some of each.

    The images are gone through in random order, class by class, and a group is taken where it brings the classes nearer
    to their shares. A class of which none was taken gives its smallest group.
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
    """Groups that are chosen for a split, and what it lacks.

    Attributes:
        members: of each group, its images by label.
        lacking: images of each label that are still to be taken; negative where too many are.
        bare: labels of which none is taken.
        chosen: the groups.
    """

    def __init__(self, train: pd.DataFrame, fraction: float, keep: int) -> None:
        """Choose nothing yet; of each label ``keep`` groups are to stay, for train and the splits to come."""
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
    told = [
        f"{class_names[label]} has no image in {split} ({counts.loc[label].sum()} in all"
        + (
            f", in {counted(len(in_groups[label]), 'group')}: {shorten(in_groups[label])})"
            if label in in_groups
            else ")"
        )
        for label, split in empty
    ]
    raise InputError(
        f"Every class needs images to learn from and to be judged by: {shorten(told)}. Add "
        f"images, leave the class out, or change dataset.validation_fraction ({fractions['validation']}) and "
        f"dataset.test_fraction ({fractions['test']}) where the splits are cut out of train."
        + (_about_groups(splits) if in_groups else "")
    )


def _about_groups(splits: tuple[str, ...]) -> str:
    return (
        f" Images of one group stay together, so a class needs a group for each of {', '.join(splits)}. A group is "
        "what the CSV's column group or dataset.group_pattern names, and what looks the same: where that is chance, "
        "dataset.group_near_duplicates=false cuts it apart. Splits of your own are never changed."
    )
