"""Checks of model files from unknown sources before Keras opens them.

The safe mode of Keras refuses lambdas, but other layers can also run code or read files, and an archive can expand to a
huge size. Everything that is not known to be harmless is refused.
"""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import h5py

from efficientnet_finetuning.errors import InputError, shorten

_WEIGHTS, _CONFIG = "model.weights.h5", "config.json"
_MOST_BYTES = {
    _WEIGHTS: 4 << 30,
    _CONFIG: 64 << 20,
    "metadata.json": 1 << 20,
    "classifier.json": 64 << 20,
    "references.npy": 1 << 30,
    "reference_labels.npy": 64 << 20,
}
_MOST_COMPRESSED = 100
# Keras layers that run code from the file or load other files.
_RUN_CODE = frozenset({"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"})


def check_keras_file(path: Path) -> None:
    """Check that a ``.keras`` file has only plain Keras layers and their weights.

    Raises:
        InputError: it has a layer that runs code or is not from Keras, an unknown or too large member, or weights in
            another file.
        zipfile.BadZipFile: it is not an archive.
        KeyError: it is incomplete.
        ValueError: its configuration is not JSON.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            most = _MOST_BYTES.get(member.filename)
            if most is None:
                raise InputError(
                    f"{path} was not opened: it has {member.filename!r}, which is not part of a classifier. Allowed "
                    f"are {', '.join(_MOST_BYTES)}."
                )
            if member.file_size > min(most, _MOST_COMPRESSED * max(member.compress_size, 1)):
                raise InputError(
                    f"{path} was not opened: {member.filename} has {member.file_size:,} bytes, compressed to "
                    f"{member.compress_size:,}, which is too much for a classifier."
                )
        if foreign := sorted(set(_foreign(json.loads(archive.read(_CONFIG))))):
            raise InputError(
                f"{path} was not opened: {shorten(foreign)} could run code or is not a Keras layer. Only plain Keras "
                "layers are allowed."
            )
        with archive.open(_WEIGHTS) as weights:
            check_weights(weights, f"{path}: {_WEIGHTS}")


def check_weights(file: IO[bytes] | Path, name: str) -> None:
    """Check that an HDF5 file, or its content, has no arrays in other files. ``name`` is for messages.

    Raises:
        InputError: a link or an array leads to another file.
        OSError: it is not an HDF5 file.
    """
    with h5py.File(file, "r") as content:
        if leading := sorted(_leading_elsewhere(content, "")):
            raise InputError(f"{name} was not opened: {shorten(leading)} leads to another file.")


def _foreign(config: Any) -> Iterator[str]:
    """Names of classes in a configuration that are not from Keras or that run code."""
    if isinstance(config, dict):
        module, name = config.get("module"), config.get("class_name")
        if name is not None and name != "__keras_tensor__" and "config" in config:
            if module is not None and str(module).split(".")[0] != "keras":
                yield f"{module}.{name}"
            elif module is None or name in _RUN_CODE:
                yield str(name)
        for value in config.values():
            yield from _foreign(value)
    elif isinstance(config, list):
        for value in config:
            yield from _foreign(value)


def _leading_elsewhere(group: h5py.Group, path: str) -> Iterator[str]:
    for name in group:
        place, link = f"{path}/{name}", group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            yield place
            continue
        found = group[name]
        if isinstance(found, h5py.Group):
            yield from _leading_elsewhere(found, place)
        elif found.external or found.is_virtual:
            yield place
