"""Folders that are there as a whole or not at all, and that are known to hold what was written."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from efficientnet_finetuning.errors import InputError

COMMIT_FILE = "commit.json"
_USED_FILE = ".used"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def commit(staged: Path, final: Path, record: Mapping[str, Any]) -> None:
    """Publish a written folder: checksums beside its files, everything on the disk, then one rename.

    Whoever is killed on the way leaves ``final`` as it was: absent.

    Args:
        staged: the folder, on the same file system as ``final``.
        final: its place, where nothing is yet.
        record: what else is worth knowing about it, as JSON; kept in ``commit.json`` with ``files``, their SHA-256,
            and ``digest``, its own.
    """
    record = {**record, "files": checksums(staged)}
    text = json.dumps({**record, "digest": digest(record)}, ensure_ascii=False, indent=1)
    (staged / COMMIT_FILE).write_text(text, encoding="utf-8")
    for path in (*staged.rglob("*"), staged):
        _sync(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    staged.rename(final)
    _sync(final.parent)


def read_commit(folder: Path) -> dict[str, Any] | None:
    """The record of a published folder; ``None`` where there is none that is as it was written."""
    try:
        record: dict[str, Any] = json.loads((folder / COMMIT_FILE).read_text(encoding="utf-8"))
        found = record.pop("digest")
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return None
    return record if found == digest(record) else None


def versions(dataset: Path) -> list[str]:
    """Names of a dataset's stored versions, the one that a run made or used last first.

    Whoever names no version gets the first one. A version is named by the time at which it was made. A run that uses an
    older version notes that in a file of the dataset (:func:`note_use`).
    """
    folder = str(dataset)
    found = os.listdir(folder) if dataset.is_dir() else []  # noqa: PTH208  a tenth of the time of glob
    last_used = {name: name for name in found if os.path.exists(f"{folder}/{name}/{dataset.name}")}  # noqa: PTH110
    with suppress(OSError, ValueError):
        for line in (dataset / _USED_FILE).read_text(encoding="utf-8").splitlines():
            version, _, when = line.partition(" ")
            if version in last_used:
                last_used[version] = max(last_used[version], when)
    return sorted(last_used, key=lambda version: (last_used[version], version), reverse=True)


def note_use(dataset: Path, version: str, when: str) -> None:
    """Make a version the first of :func:`versions`, from a time on that is written as versions are."""
    if versions(dataset)[:1] != [version]:
        with (dataset / _USED_FILE).open("a", encoding="utf-8") as file:
            file.write(f"{version} {when}\n")


def versions_made_by(dataset: Path, key: str) -> list[str]:
    """Those of :func:`versions` whose recipe has a key; reads their commit files and nothing else."""
    wanted = f'"key": "{key}"'.encode()  # parsing hundreds of files would take a second

    def may_match(version: str) -> bool:
        try:
            with open(f"{dataset}/{version}/{COMMIT_FILE}", "rb", buffering=0) as file:  # noqa: PTH123
                return wanted in file.read()
        except OSError:
            return False

    return [
        version
        for version in versions(dataset)
        if may_match(version) and recipe_of_version(dataset / version).get("key") == key
    ]


def recipe_of_version(folder: Path) -> dict[str, Any]:
    """What a published version was made by; empty where its record does not say."""
    recipe = (read_commit(folder) or {}).get("recipe")
    return recipe if isinstance(recipe, dict) else {}


def find_damage(folder: Path, record: Mapping[str, Any]) -> str:
    """Which file of a published folder is not as it was written; empty where all are."""
    found = checksums(folder)
    for name, expected in record["files"].items():
        if name not in found:
            return f"{folder / name} is gone"
        if found[name] != expected:
            return f"{folder / name} is not what was written there (its SHA-256 differs)"
    return ""


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder, by its relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != COMMIT_FILE)
    return {path.relative_to(folder).as_posix(): checksum(path) for path in files}


def checksum(file: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of anything that JSON can hold, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, while other processes may be removing them as empty."""
    for _ in range(1000):
        with suppress(FileExistsError, FileNotFoundError):
            folder.mkdir(parents=True, exist_ok=True)
            return
    folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def scratch_folder(folder: Path | None) -> Iterator[Path]:
    """A folder for what a step keeps while it works: the given one, or a temporary one."""
    if folder is not None:
        yield folder
        return
    with TemporaryDirectory() as temporary:
        yield Path(temporary)


def check_free_space(folder: Path, needed: int, what: str) -> None:
    """Refuse to begin what the disk has no room for.

    Args:
        folder: where it would be written; it or one of its parents exists.
        needed: bytes.
        what: names it in the message.

    Raises:
        InputError: fewer bytes are free.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise InputError(
            f"{what} needs {needed / 1e6:,.0f} MB in {folder}, where {free / 1e6:,.0f} MB are free. Make room (`make "
            "prune` removes old versions), or move data/ to a larger disk and link it."
        )


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Turn a full disk, which Python reports without saying where, into a message for the user."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise InputError(
            f"The disk is full: {path} could not be written ({error.strerror}). What was stored before is as it was. "
            "Make room (`make prune` removes old versions), then type the same command again."
        ) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
