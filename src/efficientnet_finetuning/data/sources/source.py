"""The contract that all kinds of sources keep, and what they share."""

import re
import unicodedata
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from efficientnet_finetuning.data.blocks import BLOCK_SIZE
from efficientnet_finetuning.data.encoded import EncodedImage
from efficientnet_finetuning.errors import InputError, naming_unreadable, near_matches
from efficientnet_finetuning.parameters import DatasetParameters

# What people call the split that chooses between models.
VALIDATION_NAMES = ("validation", "val", "valid")


class Block(Sized, Iterable[EncodedImage], Protocol):
    """Some images of a source, small enough to be sent to another process: what is large is read there."""


class Source(Protocol):
    """A labelled image set.

    Attributes:
        name: for people.
        class_names: in the order of the labels.
        splits: number of images of each split that is used, by role: ``train`` and, where the set has them,
            ``validation`` and ``test``.
        ignored: how many entries were left out because they are no images, by kind.
        notes: what else a user should know about how the source was read.
        groups: by id, the name of the group of each image that the source puts into one: images of one group show the
            same thing.
    """

    @property
    def name(self) -> str: ...

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def splits(self) -> dict[str, int]: ...

    @property
    def ignored(self) -> Mapping[str, int]: ...

    @property
    def notes(self) -> Sequence[str]: ...

    @property
    def groups(self) -> Mapping[str, str]: ...

    def images(self, split: str, ids: Container[str] | None = None) -> Iterator[EncodedImage]:
        """Yield the images of a split, or those of ``ids``, in an order that never changes."""
        ...

    def blocks(self, split: str, ids: Container[str] | None = None, size: int = BLOCK_SIZE) -> Iterator[Block]:
        """Cut the same images into blocks of ``size``, each of which is read without those before it."""
        ...

    def labels(self, split: str) -> Iterator[tuple[str, int]]:
        """Yield ``(id, label)`` of every image of a split in the same order, without touching pixels."""
        ...

    def describe(self) -> dict[str, Any]:
        """What is needed to open the source again, as JSON."""
        ...


def choose_roles(dataset: DatasetParameters, available: Sequence[str], what: str) -> dict[str, str]:
    """Which of the set's splits plays which role; a role that the set cannot fill is missing.

    Raises:
        InputError: a split that the parameters name is not there.
    """
    wanted = {"train": dataset.train_split, "validation": dataset.validation_split, "test": dataset.test_split}
    for role, split in wanted.items():
        # A sub-split such as train[:10%] or train+test names splits in front of its brackets.
        for base in re.findall(r"[^+\[\]]+(?=\[|\+|$)", split or ""):
            if base not in available:
                raise InputError(
                    f"dataset.{role}_split: {what} has no split {base!r}.{near_matches(base, available)} "
                    f"It has: {', '.join(available)}."
                )
    roles = {role: split for role, split in wanted.items() if split}
    for role, own_names in (("test", ("test",)), ("validation", VALIDATION_NAMES)):
        own = next((name for name in own_names if name in available and name not in roles.values()), None)
        if role not in roles and own:
            roles[role] = own
    return roles


def read_listing(file: Path, what: str, columns: Sequence[str]) -> pd.DataFrame:
    """The cells of a CSV that lists files, as texts without the blanks around them.

    Raises:
        InputError: it is no CSV in UTF-8, or lacks one of the columns; ``what`` names it.
    """
    with naming_unreadable(what, "a CSV in UTF-8"):
        table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    if not isinstance(table.index, pd.RangeIndex):
        raise InputError(f"{what} has rows with more fields than its header {', '.join(table.columns)}.")
    if missing := [column for column in columns if column not in table]:
        raise InputError(
            f"{what} has no column {' and no column '.join(missing)}. It has: {', '.join(table.columns)}. Its columns "
            f"must be separated by commas, and {','.join(columns)} must be among them."
        )
    with naming_unreadable(what, "a CSV in UTF-8"):
        if table["path"].str.contains("\0", regex=False).any():
            raise ValueError("it has null bytes")
    return table.apply(lambda column: column.str.strip())


def is_showable(name: str) -> bool:
    """Whether a table, a terminal and a file in UTF-8 can show a name: it has no line breaks and no odd bytes."""
    return all(unicodedata.category(letter) not in ("Cc", "Cs") for letter in name)


def natural_key(text: str) -> tuple[list[tuple[bool, int, str]], str]:
    """Sort key under which ``img2`` comes before ``img10`` and numbers before letters; different texts never tie."""
    parts = re.findall(r"\d+|\D+", text)
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part.casefold()) for part in parts], text
