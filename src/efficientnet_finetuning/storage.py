"""Folders that are written completely or not at all, and checked against their checksums."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from efficientnet_finetuning.errors import InputError

COMMIT_FILE = "commit.json"
_PARTS = ("parameters", "inputs", "files", "code", "libraries", "versions")  # of a recipe
_USED_FILE = ".used"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def commit(staged: Path, final: Path, record: Mapping[str, Any]) -> None:
    """Publish a folder: write checksums, flush everything to the disk, then rename it.

    ``staged`` must be on the same file system as ``final``, which must not exist. If the process is killed, ``final``
    still does not exist. ``record`` is stored in ``commit.json`` with ``files``, their SHA-256, and ``digest``, its own
    SHA-256.
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
    """A ``with`` block that fills a temporary folder, which replaces the final one at the end.

    Raises:
        InputError: the disk is full.
    """
    staged = final.with_name("partial")
    for old in (staged, final):
        remove(old)
    with naming_full_disk(final):
        staged.mkdir(parents=True)
        yield staged
        commit(staged, final, record)


def read_commit(folder: Path) -> dict[str, Any] | None:
    """The record of a published folder; ``None`` if it is missing or damaged."""
    try:
        record: dict[str, Any] = json.loads((folder / COMMIT_FILE).read_text(encoding="utf-8"))
        found = record.pop("digest")
        return record if found == digest(record) and _is_record(record) else None
    except (OSError, ValueError, LookupError, AttributeError, RecursionError, TypeError):
        return None


def _is_record(record: Mapping[str, Any]) -> bool:
    """Whether a JSON object has the structure of a record. May raise for other structures."""
    recipe, cost = record.get("recipe") or {}, record.get("cost") or {"seconds": 0.0}
    texts = (record["files"], recipe.get("versions", {}))
    return (
        all(isinstance(text, str) for texts_by_name in texts for text in texts_by_name.values())
        and all(isinstance(recipe.get(part, {}), dict) for part in _PARTS)
        and isinstance(cost["seconds"], int | float)
    )


def versions(dataset: Path) -> list[str]:
    """The stored versions of a dataset, the most recently made or used one first.

    The first one is loaded by default. A version is named by its time. Folders with other names, such as manual copies,
    come last. Runs that use an older version record that with :func:`note_use`.
    """
    names: list[str] = []
    with suppress(OSError):  # nothing is stored, or a file lies in the place of the folder
        found = os.listdir(dataset)  # noqa: PTH208  a tenth of the time of glob
        names = [name for name in found if os.path.exists(f"{dataset}/{name}/{dataset.name}")]  # noqa: PTH110
    last_used = {name: name if name[0].isdigit() else "" for name in names}
    with suppress(OSError, ValueError):
        for line in (dataset / _USED_FILE).read_text(encoding="utf-8").splitlines():
            version, _, when = line.partition(" ")
            if version in last_used:
                last_used[version] = max(last_used[version], when)
    return sorted(last_used, key=lambda version: (last_used[version], version), reverse=True)


def note_use(dataset: Path, version: str, when: str) -> None:
    """Make a version the first of :func:`versions`, as used at a time, which has the format of versions."""
    if versions(dataset)[:1] != [version]:
        with (dataset / _USED_FILE).open("a", encoding="utf-8") as file:
            file.write(f"{version} {when}\n")


def time_of(version: str) -> datetime | None:
    """When a version was made, in UTC; ``None`` if its name is no time, because a person chose it."""
    try:
        return datetime.strptime(version, "%Y-%m-%dT%H.%M.%S.%fZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def versions_made_by(dataset: Path, key: str) -> list[str]:
    """The :func:`versions` whose recipe has a key. Reads only their commit files."""
    wanted = f'"key": "{key}"'.encode()  # parsing hundreds of files takes a second

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
    """The recipe of a published version; empty if its record has none."""
    recipe = (read_commit(folder) or {}).get("recipe")
    return {part: {} for part in _PARTS} | recipe if recipe else {}


def find_damage(folder: Path, record: Mapping[str, Any]) -> str:
    """Describe the first file of a published folder that has changed; empty if none has."""
    try:
        found = checksums(folder)
    except OSError as error:
        return f"{error.filename} cannot be read ({error.strerror})"
    for name, expected in record["files"].items():
        if name not in found:
            return f"{folder / name} is missing"
        if found[name] != expected:
            return f"{folder / name} has changed since it was written (its SHA-256 differs)"
    return ""


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder, by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != COMMIT_FILE)
    return {path.relative_to(folder).as_posix(): checksum(path) for path in files}


def checksum(file: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of a JSON-compatible value, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, even while other processes remove empty folders."""
    for _ in range(1000):
        with suppress(FileExistsError, FileNotFoundError):
            folder.mkdir(parents=True, exist_ok=True)
            return
    folder.mkdir(parents=True, exist_ok=True)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def scratch_folder(folder: Path | None) -> Iterator[Path]:
    """A folder for temporary files: the given one, or a new one that is removed afterwards."""
    if folder is not None:
        yield folder
        return
    with TemporaryDirectory() as temporary:
        yield Path(temporary)


def check_free_space(folder: Path, needed: int, what: str) -> None:
    """Check that ``needed`` bytes are free before ``what`` (for the message) is written to a folder.

    Raises:
        InputError: too few bytes are free.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise InputError(
            f"{what} needs {needed / 1e6:,.0f} MB in {folder}, but only {free / 1e6:,.0f} MB are free. Free some space "
            "(`make prune` deletes old versions), or move data/ to a larger disk and link it."
        )


def check_place(folder: Path) -> None:
    """Check that a folder, which need not exist, can be written.

    Raises:
        InputError: it or a parent is a file, or the user lacks the permission.
    """
    folder = folder.absolute()
    existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not existing.is_dir():
        raise InputError(f"{existing} is a file, but the run needs a folder there. Move it away.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"You have no permission to write in {existing}. Change its permissions, or run as its owner.")


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Turn the error of a full disk, which names no path, into a message for the user."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise InputError(
            f"The disk is full: {path} could not be written ({error.strerror}). Results stored earlier are unchanged. "
            "Free some space (`make prune` deletes old versions), then run the same command again."
        ) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
