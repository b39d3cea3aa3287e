"""Arrays in folders of ``.npy`` files, memory-mapped when loaded."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import numpy as np

from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.io.committed import Committed
from efficientnet_finetuning.io.local import LocalVersionedDataset


class ArraysDataset(Committed, LocalVersionedDataset[Mapping[str, np.ndarray]]):
    """Named arrays: a folder with one ``.npy`` file each."""

    def _write(self, data: Mapping[str, np.ndarray], path: Path) -> None:
        path.mkdir()
        for name, array in data.items():
            np.save(path / f"{name}.npy", array, allow_pickle=False)

    def _read(self, path: Path) -> Mapping[str, np.ndarray]:
        return {file.stem: np.load(file, mmap_mode="r", allow_pickle=False) for file in sorted(path.glob("*.npy"))}


class ExamplesDataset(Committed, LocalVersionedDataset[Examples]):
    """The images, one-hot labels and ids of a split: a folder with one ``.npy`` file each."""

    def _write(self, data: Examples, path: Path) -> None:
        path.mkdir()
        for field in fields(data):
            file, array = path / f"{field.name}.npy", getattr(data, field.name)
            if not _link(array, file):
                np.save(file, array, allow_pickle=False)

    def _read(self, path: Path) -> Examples:
        return Examples.open(path)


def _link(array: np.ndarray, file: Path) -> bool:
    """Hard-link the file of a memory map instead of copying it; it may have a hundred gigabytes."""
    if not isinstance(array, np.memmap) or array.filename is None or not array.flags.c_contiguous:
        return False
    with suppress(OSError):  # the file is gone or on another file system
        whole = np.load(array.filename, mmap_mode="r", allow_pickle=False)
        if (whole.shape, whole.dtype) == (array.shape, array.dtype):
            os.link(array.filename, file)
            return True
    return False
