"""Catalog datasets with atomic versions, which are checked before they are loaded.

Kedro writes a version under its final name, so a killed run leaves a partial file that counts as the newest version.
"""

import os
import shutil
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Self

from kedro.io import AbstractVersionedDataset, DatasetError, Version
from kedro_datasets import json as kedro_json
from kedro_datasets import matplotlib, pandas, text

from efficientnet_finetuning.io.kedro_internals import load_version, save_without_looking, set_load_version
from efficientnet_finetuning.storage import (
    COMMIT_FILE,
    check_place,
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
_UTF8 = {"open_args_save": {"mode": "w", "encoding": "utf-8"}, "open_args_load": {"encoding": "utf-8"}}


class Committed(AbstractVersionedDataset):
    """Mixin in front of a versioned dataset of local files.

    Writes a version to ``<dataset>/.staging/``, adds ``commit.json`` with checksums and recipe, and renames it to
    ``<dataset>/<version>/``.

    Attributes:
        recipe: inputs of the next version, as JSON; stored with it.
        cost: returns the cost of the version, as JSON, when it is stored.
    """

    recipe: Mapping[str, Any] | None = None
    cost: Callable[[], Mapping[str, Any]] | None = None
    _undamaged: str | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Kedro wraps each class' __init__; without this one, its base class' would run before the next one's.
        super().__init__(*args, **kwargs)

    def save(self, data: Any) -> None:
        """Write a version atomically."""
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
            with suppress(OSError):  # another run writes there too
                staged.parent.rmdir()
        # This run reads what it wrote, whatever another run writes meanwhile.
        set_load_version(self, version)
        self._undamaged = version

    def load(self) -> Any:
        """Load a version, unless it is damaged."""
        if damage := self.find_damage():
            raise DatasetError(f"{damage}. Repeat the same `kedro run` to make it again, or remove its version folder.")
        return super().load()  # type: ignore[safe-super]

    def check_place(self) -> None:
        """Refuse early what :meth:`save` could not store; see :func:`storage.check_place`."""
        for folder in (Path(self._filepath), Path(self._filepath) / _STAGING):
            check_place(folder)

    @property
    def is_pinned(self) -> bool:
        """Whether the user chose the version to load."""
        return self._version is not None and self._version.load is not None

    @property
    def is_stored(self) -> bool:
        """Whether any version is stored. Unlike ``list_versions``, it does not search the folder again and again."""
        return load_version(self) is not None or bool(versions(Path(self._filepath)))

    @property
    def path(self) -> Path:
        """The file or folder to load."""
        return Path(self._get_load_path())

    @property
    def folder(self) -> Path:
        """The folder of the version to load."""
        return self.path.parent

    def commit_record(self) -> dict[str, Any] | None:
        """The record of the version to load; ``None`` if nothing is stored."""
        return read_commit(self.folder) if self.is_stored else None

    def content(self) -> str | None:
        """A hash of the version to load, equal for equal content; ``None`` if nothing is stored."""
        if not self.is_stored:
            return None
        record = self.commit_record() or {"files": checksums(self.folder)}
        return str(record.get("content") or digest(record["files"]))

    def resolve_load_version(self) -> str | None:
        """The version that the user chose, that this run made or used, or that any run made or used last."""
        if not self.is_pinned and load_version(self) is None and (stored := versions(Path(self._filepath))):
            set_load_version(self, stored[0])
        return super().resolve_load_version()

    def made_by(self, key: str) -> list[str]:
        """Versions whose recipe has this key, last used first."""
        return versions_made_by(Path(self._filepath), key)

    def use(self, version: str) -> None:
        """Load this version, which was checked for damage, from now on; later runs load it by default."""
        set_load_version(self, version)
        self._undamaged = version  # checksums of large arrays take seconds
        with suppress(OSError):  # on read-only disks, only for this run
            note_use(Path(self._filepath), version, str(self.resolve_save_version()))

    def before(self) -> Self | None:
        """The previous undamaged version with other content."""
        now, content = self.resolve_load_version(), self.content()
        stored = versions(Path(self._filepath))
        for version in stored[stored.index(now) + 1 :] if now in stored else []:
            older = self.of(version)
            if older.content() != content and not older.find_damage():
                return older
        return None

    def of(self, version: str) -> Self:
        """This dataset, pinned to one version."""
        pinned = copy(self)
        pinned._version, pinned._undamaged = Version(version, None), None
        set_load_version(pinned, version)
        return pinned

    def find_damage(self) -> str:
        """Describe the damage of the version to load, or return an empty text; checks each version once."""
        version = self.resolve_load_version()
        commit_file = self.folder / COMMIT_FILE
        # Versions that a person copied there have no record.
        if version == self._undamaged or not commit_file.exists():
            return ""
        record = read_commit(self.folder)
        damage = find_damage(self.folder, record) if record else f"{commit_file} has changed since it was written"
        self._undamaged = None if damage else version
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
    """Remove staged versions of killed processes of this machine."""
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
    """A figure, stored as PNG; loading returns the bytes of the file."""

    # Takes a third of the time, for files a tenth larger.
    DEFAULT_SAVE_ARGS: ClassVar[dict[str, Any]] = {"format": "png", "dpi": 110, "pil_kwargs": {"compress_level": 3}}
