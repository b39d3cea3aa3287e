"""Arrays in folders of ``.npy`` files: written row by row where they are lazy, memory-mapped when loaded."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from efficientnet_finetuning.data.examples import Examples, LazyRows
from efficientnet_finetuning.io.committed import Committed
from efficientnet_finetuning.io.local import LocalVersionedDataset
from efficientnet_finetuning.storage import check_free_space


class ArraysDataset(Committed, LocalVersionedDataset[Mapping[str, np.ndarray]]):
    """Named arrays: a folder with one ``.npy`` file each."""

    def _write(self, data: Mapping[str, np.ndarray], path: Path) -> None:
        _write_arrays(data, path)

    def _read(self, path: Path) -> Mapping[str, np.ndarray]:
        return {file.stem: _read_array(file) for file in sorted(path.glob("*.npy"))}


class ExamplesDataset(Committed, LocalVersionedDataset[Examples]):
    """The images, one-hot labels and ids of a split: a folder with one ``.npy`` file each."""

    def _write(self, data: Examples, path: Path) -> None:
        # Before hours of decoding, not after.
        check_free_space(path, math.prod(data.images.shape) * data.images.dtype.itemsize, f"Storing {path.name}")
        _write_arrays({"images": data.images, "labels": data.labels, "ids": data.ids}, path)

    def _read(self, path: Path) -> Examples:
        return Examples.open(path)


def _write_arrays(arrays: Mapping[str, np.ndarray | LazyRows], folder: Path) -> None:
    folder.mkdir()
    for name, array in arrays.items():
        file = folder / f"{name}.npy"
        if isinstance(array, LazyRows):
            _write_rows(array, file)
        else:
            np.save(file, array, allow_pickle=False)


def _write_rows(array: LazyRows, file: Path) -> None:
    # Not through a memory map: its pages count as this process' memory, and a full disk kills the process.
    header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
    count = 0
    with file.open("wb") as stream:
        np.lib.format.write_array_header_2_0(stream, header)
        for row in array:
            count += 1
            if row.shape != array.shape[1:] or row.dtype != array.dtype:
                raise RuntimeError(
                    f"{file} was promised rows {array.shape[1:]} {array.dtype}, not {row.shape} {row.dtype}"
                )
            stream.write(np.ascontiguousarray(row).data)
    if count != len(array):
        raise RuntimeError(f"{file} was promised {len(array)} rows and got {count}")


def _read_array(file: Path) -> np.ndarray:
    array: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
    return array
