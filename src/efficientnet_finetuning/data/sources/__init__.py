"""Image sources: a TensorFlow Datasets set, a folder with one folder per class, or a CSV.

All of them follow the protocol :class:`Source`: they list splits and class names, and yield encoded images in a fixed
order.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from efficientnet_finetuning.data.encoded import EncodedImage
from efficientnet_finetuning.data.sources.files import FilesSource, open_csv, open_folder
from efficientnet_finetuning.data.sources.source import Block, Source, is_showable, natural_key, read_listing
from efficientnet_finetuning.data.sources.tfds import (
    TfdsSource,
    check_name,
    is_prepared_set,
    open_prepared_set,
    open_tfds,
    set_folder,
)
from efficientnet_finetuning.errors import InputError, counted, naming_unreadable, near_matches
from efficientnet_finetuning.parameters import DatasetParameters

__all__ = [
    "Block",
    "EncodedImage",
    "FilesSource",
    "Source",
    "TfdsSource",
    "check_dataset",
    "fingerprint",
    "is_showable",
    "natural_key",
    "open_source",
    "read_listing",
    "reopen",
    "set_folder",
]


def check_dataset(dataset: DatasetParameters) -> None:
    """Refuse unknown sets and missing paths before slow imports, with an ``InputError`` that names near matches."""
    if dataset.path is None:
        with naming_unreadable(f"dataset.data_dir: {dataset.data_dir}"):
            set_folder(dataset).exists()
        check_name(dataset)
    else:
        _existing(dataset.path)
    with naming_unreadable(f"dataset.corrections: {dataset.corrections}"):
        if dataset.corrections and not (file := dataset.corrections.expanduser().absolute()).is_file():
            beside = near_matches(file.name, sorted(near.name for near in file.parent.glob("*.csv")))
            raise InputError(
                f"dataset.corrections: {file} is not a file.{beside} Give the CSV that `make review` writes."
            )


def fingerprint(dataset: DatasetParameters) -> str:
    """A hash of the names, sizes and times of the source's files; opens none of them.

    Does not follow links, and ignores a corrections file in the folder.
    """
    if dataset.path is None:
        root = set_folder(dataset)
    else:
        path = dataset.path.expanduser().resolve()
        root = path if path.is_dir() else path.parent
    corrections = dataset.corrections and str(dataset.corrections.expanduser().resolve())
    entries = hashlib.sha256()
    for folder, subfolders, files in os.walk(root):
        subfolders.sort()
        for name in sorted(files):
            if corrections == f"{folder}/{name}":
                continue
            with suppress(FileNotFoundError):  # skip files that are gone by now
                status = os.lstat(os.path.join(folder, name))  # noqa: PTH118  four times as fast as pathlib
                entry = f"{folder}/{name}\0{status.st_size}\0{status.st_mtime_ns}\n"
                entries.update(entry.encode(errors="surrogateescape"))
    return entries.hexdigest()


def open_source(dataset: DatasetParameters) -> Source:
    """Find the images that the parameters name; downloads a TFDS set if needed and allowed.

    Raises ``InputError`` if the set, folder, split or feature does not exist, or the download fails.
    """
    source = _open(dataset)
    if len(source.class_names) < 2:
        raise InputError(
            f"{source.name} has {counted(len(source.class_names), 'class')}: {', '.join(source.class_names)}. "
            "A classifier needs at least two."
        )
    return source


def reopen(description: dict[str, Any]) -> Source:
    """Open the source that :meth:`Source.describe` described, without a network."""
    kinds: dict[str, Any] = {kind.KIND: kind for kind in (TfdsSource, FilesSource)}
    fields = {name: value for name, value in description.items() if name != "kind"}
    source: Source = kinds[description["kind"]](**fields | {"class_names": tuple(fields["class_names"])})
    return source


def _open(dataset: DatasetParameters) -> Source:
    if dataset.path is None:
        return open_tfds(dataset)
    path = _existing(dataset.path)
    if path.is_file():
        return open_csv(path, dataset)
    with naming_unreadable(f"dataset.path: {path}"):
        is_prepared = is_prepared_set(path)
    return open_prepared_set(path, dataset) if is_prepared else open_folder(path, dataset)


def _existing(path: Path) -> Path:
    with naming_unreadable(f"dataset.path: {path}"):
        path = path.expanduser().resolve()
        exists, is_folder = path.exists(), path.is_dir()
    if not is_showable(str(path)):
        raise InputError(f"dataset.path: {path!a} has control characters or is not UTF-8. Rename it.")
    if is_folder or (path.is_file() and path.suffix.lower() == ".csv"):
        return path
    if exists:
        raise InputError(f"dataset.path: {path} is neither a folder nor a .csv file.")
    beside = near_matches(path.name, sorted(near.name for near in path.parent.glob("*")))
    raise InputError(
        f"dataset.path: {path} does not exist.{beside} Give a folder with one folder per class, or a .csv file with "
        "the columns path,label: --params dataset.path=<path>."
    )
