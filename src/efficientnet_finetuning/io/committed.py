"""Catalog datasets that commit: a version is there as a whole or not at all, and is checked before it is believed.

Kedro writes a version under its final name, where a killed run leaves a torn file that counts as the newest version.
"""

import os
import shutil
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy
from pathlib import Path, PurePosixPath
from typing import Any, Self

from kedro.io import AbstractVersionedDataset, DatasetError, Version
from kedro_datasets import json as kedro_json
from kedro_datasets import matplotlib, pandas, text

from efficientnet_finetuning.io.kedro_internals import load_version, save_without_looking, set_load_version
from efficientnet_finetuning.storage import (
    COMMIT_FILE,
    checksums,
    commit,
    digest,
    find_damage,
    make_folder,
    naming_full_disk,
    note_use,
    read_commit,
    versions,
    versions_made_by,
)

_STAGING = ".staging"


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
                save_without_looking(super().save, self, data)  # type: ignore[safe-super]
                commit(staged, Path(self._filepath) / version, self._record(staged))
        finally:
            shutil.rmtree(staged, ignore_errors=True)
            with suppress(OSError):  # another run is writing there, too
                staged.parent.rmdir()
        # What this run has written is what it reads, whatever another run writes meanwhile.
        set_load_version(self, version)
        self._believed = version

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

    def resolve_load_version(self) -> str | None:
        """The version that the user named, that this run has made or used, or that a run made or used last."""
        if not self.is_pinned and load_version(self) is None and (stored := versions(Path(self._filepath))):
            set_load_version(self, stored[0])
        return super().resolve_load_version()

    def made_by(self, key: str) -> list[str]:
        """Versions whose recipe has a key, the one that was used last first."""
        return versions_made_by(Path(self._filepath), key)

    def use(self, version: str) -> None:
        """Load this version from now on, as those do who name none."""
        set_load_version(self, version)
        with suppress(OSError):  # where nothing can be written, it holds for this run alone
            note_use(Path(self._filepath), version, str(self.resolve_save_version()))

    def before(self) -> Self | None:
        """The sound version with other content that was used last before the one that would be loaded."""
        now, content = self.resolve_load_version(), self.content()
        stored = versions(Path(self._filepath))
        for version in stored[stored.index(now) + 1 :] if now in stored else []:
            older = self.of(version)
            if older.content() != content and not older.find_damage():
                return older
        return None

    def of(self, version: str) -> Self:
        """This dataset with one of its versions pinned."""
        pinned = copy(self)
        pinned._version, pinned._believed = Version(version, None), None
        set_load_version(pinned, version)
        return pinned

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


class TextDataset(Committed, text.TextDataset):
    """A text, such as an HTML page."""


class _Picture(matplotlib.MatplotlibDataset):
    def load(self) -> bytes:
        return Path(self._get_load_path()).read_bytes()


class FigureDataset(Committed, _Picture):
    """A figure, kept as a picture: what is loaded are the bytes of its PNG file."""
