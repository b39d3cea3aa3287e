"""The protocol of image sources, and what they share."""

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

# Common names of the validation split.
VALIDATION_NAMES = ("validation", "val", "valid")


class Block(Sized, Iterable[EncodedImage], Protocol):
    """Some images of a source, small enough to send to another process, which reads large files itself."""


class Source(Protocol):
    """A labelled image set.

    Attributes:
        name: for people.
        class_names: in the order of the labels.
        splits: number of images of each used split, by role: ``train`` and, if the set has them, ``validation`` and
            ``test``.
        ignored: number of ignored entries by kind, such as files that are not images.
        notes: other remarks for the user.
        groups: the group's name by id, for images that the source puts into a group.
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
        """Yield the images of a split, or only those of ``ids``, always in the same order."""

    def blocks(self, split: str, ids: Container[str] | None = None, size: int = BLOCK_SIZE) -> Iterator[Block]:
        """Cut the same images into blocks; each can be read without the blocks before it."""

    def labels(self, split: str) -> Iterator[tuple[str, int]]:
        """Yield ``(id, label)`` of every image of a split in the same order, without decoding."""

    def describe(self) -> dict[str, Any]:
        """Everything needed to open the source again, as JSON."""


def choose_roles(dataset: DatasetParameters, available: Sequence[str], what: str) -> dict[str, str]:
    """The set's split for each role that it can fill; raises ``InputError`` for splits that do not exist."""
    wanted = {"train": dataset.train_split, "validation": dataset.validation_split, "test": dataset.test_split}
    for role, split in wanted.items():
        # Sub-splits such as train[:10%] or train+test start with the names of splits.
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
    """Read a CSV that lists files, as texts without surrounding blanks.

    Raises ``InputError``, with ``what`` in front, if the file is not a CSV in UTF-8 or lacks a column.
    """
    with naming_unreadable(what, "a CSV in UTF-8"):
        table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    if not isinstance(table.index, pd.RangeIndex):
        raise InputError(f"{what} has rows with more fields than its header {', '.join(table.columns)}.")
    if missing := [column for column in columns if column not in table]:
        raise InputError(
            f"{what} has no column {' and no column '.join(missing)}. It has: {', '.join(table.columns)}. Separate "
            f"columns with commas, and include {','.join(columns)}."
        )
    with naming_unreadable(what, "a CSV in UTF-8"):
        if table["path"].str.contains("\0", regex=False).any():
            raise ValueError("it has null bytes")
    return table.apply(lambda column: column.str.strip())


def is_showable(name: str) -> bool:
    """Whether tables, terminals and UTF-8 files can show a name: no line breaks, no invalid bytes."""
    return all(unicodedata.category(letter) not in ("Cc", "Cs") for letter in name)


def natural_key(text: str) -> tuple[list[tuple[bool, int, str]], str]:
    """Sort key with ``img2`` before ``img10`` and numbers before letters; different texts never tie."""
    parts = re.findall(r"\d+|\D+", text)
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part.casefold()) for part in parts], text
