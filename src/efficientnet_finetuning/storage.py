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


@contextmanager
def written_as_a_whole(final: Path, record: Mapping[str, Any]) -> Iterator[Path]:
    """A ``with`` block that fills a folder ``partial``, which takes the place of the final one beside it at its end.

    Raises:
        InputError: the disk is full.
    """
    staged = final.with_name("partial")
    for old in (staged, final):
        shutil.rmtree(old, ignore_errors=True)
    with naming_full_disk(final):
        staged.mkdir(parents=True)
        yield staged
        commit(staged, final, record)


def read_commit(folder: Path) -> dict[str, Any] | None:
    """The record of a published folder; ``None`` where there is none that is as it was written."""
    try:
        record: dict[str, Any] = json.loads((folder / COMMIT_FILE).read_text(encoding="utf-8"))
        found = record.pop("digest")
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return None
    return record if found == digest(record) else None


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
