"""What a model's file may hold before Keras opens it, since anybody may have written it.

Keras' safe mode refuses lambdas, but other layers run code or read files too, and an archive may be a bomb. What is not
known to be harmless is refused by its name.
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
# Layers of Keras that run what a file says, or load what it names.
_RUN_CODE = frozenset({"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"})


def check_keras_file(path: Path) -> None:
    """Refuse a ``.keras`` file that is more than layers of Keras and their weights.

    Raises:
        InputError: it holds a layer that runs code or is none of Keras', a member that does not belong there or is too
            large, or weights that lie in another file; it is named.
        zipfile.BadZipFile: it is no archive.
        KeyError: it lacks what a model needs.
        ValueError: its configuration is no JSON.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            most = _MOST_BYTES.get(member.filename)
            if most is None:
                raise InputError(
                    f"{path} holds {member.filename!r}, which is no part of a classifier, so it is not opened. It may "
                    "hold nothing but " + ", ".join(_MOST_BYTES) + "."
                )
            if member.file_size > min(most, _MOST_COMPRESSED * max(member.compress_size, 1)):
                raise InputError(
                    f"{path} holds {member.filename} with {member.file_size:,} bytes, packed into "
                    f"{member.compress_size:,}, which is too much to be a classifier's, so it is not opened."
                )
        if foreign := sorted(set(_foreign(json.loads(archive.read(_CONFIG))))):
            raise InputError(
                f"{path} holds {shorten(foreign)}, which could run code or is no layer of Keras, so it is not opened. "
                "Only plain Keras layers are."
            )
        with archive.open(_WEIGHTS) as weights:
            check_weights(weights, f"{path}: {_WEIGHTS}")


def check_weights(file: IO[bytes] | Path, name: str) -> None:
    """Refuse an HDF5 file whose arrays lie in other files.

    Args:
        file: its path, or its content as a stream.
        name: for the message.

    Raises:
        InputError: a link, or an array, leads to another file.
        OSError: it is no HDF5 file.
    """
    with h5py.File(file, "r") as content:
        if leading := sorted(_leading_elsewhere(content, "")):
            raise InputError(f"{name} reads {shorten(leading)} from another file, so it is not opened.")


def _foreign(config: Any) -> Iterator[str]:
    """Names of the classes in a model's configuration that are none of Keras' own, or run code."""
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
