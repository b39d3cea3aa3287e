"""Pickling for other processes of a run: memory-mapped arrays by file name, networks by configuration and values.

Pickles are never stored.
"""

import io
import mmap
import pickle
import sys
from typing import Any

import cloudpickle
import numpy as np


def pack(value: Any) -> bytes:
    """Serialize a value for another process, which must find the project at the same path."""
    stream = io.BytesIO()
    _Pickler(stream).dump(value)
    return stream.getvalue()


def unpack(packed: bytes) -> Any:
    """Restore a value from :func:`pack`. Networks are built with the Keras backend of this process."""
    return pickle.loads(packed)  # noqa: S301  from the process that started this one


class _Pickler(cloudpickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.ndarray) and (found := _in_file(value)):
            return _read, found
        keras = sys.modules.get("keras")  # without it there is no network
        if keras and isinstance(value, keras.Model):
            # All variables, because the seed states of dropout are not among the weights.
            variables = [np.asarray(keras.ops.convert_to_numpy(variable)) for variable in value.variables]
            return _build, (type(value), value.get_config(), variables)
        return super().reducer_override(value)


def _in_file(array: np.ndarray) -> tuple[Any, ...] | None:
    """The position of an array in a memory-mapped file, also of a view; ``None`` for other arrays."""
    root: Any = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    if not (isinstance(root, np.memmap) and isinstance(root.base, mmap.mmap)):
        return None
    start = array.__array_interface__["data"][0] - root.__array_interface__["data"][0]
    mapped = (str(root.filename), root.dtype.str, "r", root.offset, root.shape)
    return mapped, array.shape, array.dtype.str, start, array.strides


def _read(mapped: tuple[Any, ...], shape: tuple[int, ...], dtype: str, start: int, strides: tuple[int, ...]) -> Any:
    return np.ndarray(shape, dtype, np.memmap(*mapped), start, strides)


def _build(kind: Any, config: dict[str, Any], values: list[np.ndarray]) -> Any:
    network = kind.from_config(config)
    for variable, value in zip(network.variables, values, strict=True):
        variable.assign(value)
    return network
