"""Catalog datasets that commit: a version is there as a whole or not at all, and is checked before it is believed.

Kedro writes a version under its final name, where a killed run leaves a torn file that counts as the newest version.
"""

import os
import shutil
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy
from inspect import unwrap
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Self

from kedro.io import AbstractVersionedDataset, DatasetError, Version
from kedro_datasets import json as kedro_json
from kedro_datasets import matplotlib, pandas, text

from efficientnet_finetuning.storage import (
    COMMIT_FILE,
    checksums,
    commit,
    digest,
    find_damage,
    make_folder,
    naming_full_disk,
    read_commit,
)

_STAGING = ".staging"
_UTF8 = {"open_args_save": {"mode": "w", "encoding": "utf-8"}, "open_args_load": {"encoding": "utf-8"}}


class Committed(AbstractVersionedDataset):
    """Mixin in front of any versioned dataset that writes local files.

    A version is written to ``<dataset>/.staging/`` and renamed to ``<dataset>/<version>/`` once it is
    complete, on the disk, and has its ``commit.json``: the checksums of its files and the recipe that it was made by.

    Attributes:
        recipe: what the next version is made by, as JSON; it is stored with the version.
        cost: tells what it has cost to make, as JSON, when it is stored.
    """

    recipe: Mapping[str, Any] | None = None
    cost: Callable[[], Mapping[str, Any]] | None = None
    _believed: str | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Otherwise Kedro, which wraps every class' __init__, would put its base class' in front of the next one's.
        super().__init__(*args, **kwargs)

    def save(self, data: Any) -> None:
        """Write a version, all of it or nothing."""
        staged = Path(self._get_save_path()).parent
        _sweep(staged.parent)
        make_folder(staged)
        version = str(self.resolve_save_version())
        try:
            with naming_full_disk(Path(self._filepath)):
                # Kedro wraps every save method, and would look for the version before it is published.
                unwrap(super().save)(self, data)  # type: ignore[safe-super]
                commit(staged, Path(self._filepath) / version, self._record(staged))
        finally:
            shutil.rmtree(staged, ignore_errors=True)
            with suppress(OSError):  # another run is writing there, too
                staged.parent.rmdir()
        # What this run has written is what it reads, whatever another run writes meanwhile.
        self._cached_load_version = self._believed = version

    def load(self) -> Any:
        """Read a version that is what was written."""
        if damage := self.find_damage():
            raise DatasetError(
                f"{damage}. Type the same `kedro run` again, which makes it anew, or remove its version folder."
            )
        return super().load()  # type: ignore[safe-super]

    @property
    def is_pinned(self) -> bool:
        """Whether the user has said which version is to be loaded."""
        return self._version is not None and self._version.load is not None

    @property
    def path(self) -> Path:
        """The file or folder that would be loaded."""
        return Path(self._get_load_path())

    @property
    def folder(self) -> Path:
        """Of the version that would be loaded."""
        return self.path.parent

    def commit_record(self) -> dict[str, Any] | None:
        """The record of the version that would be loaded; ``None`` where nothing is stored."""
        return read_commit(self.folder) if self.list_versions() else None

    def content(self) -> str | None:
        """A hash of what would be loaded, equal for equal content; ``None`` where nothing is stored."""
        if not self.list_versions():
            return None
        record = self.commit_record() or {"files": checksums(self.folder)}
        return str(record.get("content") or digest(record["files"]))

    def before(self) -> Self | None:
        """The newest sound version that is older than the one that would be loaded, and says something else."""
        now, content = self.resolve_load_version(), self.content()
        for version in sorted(self.list_versions(full_path=False), reverse=True):
            older = copy(self)
            older._version, older._cached_load_version, older._believed = Version(version, None), version, None
            if now and version < now and older.content() != content and not older.find_damage():
                return older
        return None

    def find_damage(self) -> str:
        """What is wrong with the version that would be loaded; each is read once, and then believed."""
        version = self.resolve_load_version()
        commit_file = self.folder / COMMIT_FILE
        # A version that somebody put there by hand has no record.
        if version == self._believed or not commit_file.exists():
            return ""
        record = read_commit(self.folder)
        damage = find_damage(self.folder, record) if record else f"{commit_file} is not what was written there"
        self._believed = None if damage else version
        return damage

    def _exists(self) -> bool:
        try:
            return super()._exists() and not self.find_damage()
        except DatasetError:
            return False

    def _get_save_path(self) -> PurePosixPath:
        final = super()._get_save_path()
        return self._filepath / _STAGING / f"{final.parent.name}{_suffix(os.getpid())}" / final.name

    def _record(self, staged: Path) -> dict[str, Any]:
        return {"recipe": self.recipe, "cost": self.cost() if self.cost else None}


def _suffix(process: int | str) -> str:
    return f".{socket.gethostname()}.{process}"


def _sweep(staging: Path) -> None:
    """Remove what killed processes of this machine were writing."""
    left_behind: list[Path] = []
    with suppress(FileNotFoundError):  # another run removes the folder when it is empty
        left_behind.extend(staging.glob(f"*{_suffix('*')}"))
    for left in left_behind:
        try:
            os.kill(int(left.name.rpartition(".")[2]), 0)
        except ProcessLookupError:
            shutil.rmtree(left, ignore_errors=True)
        except (OverflowError, PermissionError, ValueError):
            continue


class CSVDataset(Committed, pandas.CSVDataset):
    """A table."""


class JSONDataset(Committed, kedro_json.JSONDataset):
    """A JSON document."""

    DEFAULT_SAVE_ARGS: ClassVar[dict[str, Any]] = {"indent": 2, "ensure_ascii": False, "allow_nan": False}
    DEFAULT_FS_ARGS: ClassVar[dict[str, Any]] = _UTF8


class TextDataset(Committed, text.TextDataset):
    """A text, such as an HTML page."""

    DEFAULT_FS_ARGS: ClassVar[dict[str, Any]] = _UTF8


class _Picture(matplotlib.MatplotlibDataset):
    def load(self) -> bytes:
        return Path(self._get_load_path()).read_bytes()


class FigureDataset(Committed, _Picture):
    """A figure, kept as a picture: what is loaded are the bytes of its PNG file."""

    # Compressed in a third of the time, the file is a tenth larger.
    DEFAULT_SAVE_ARGS: ClassVar[dict[str, Any]] = {"format": "png", "dpi": 110, "pil_kwargs": {"compress_level": 3}}
