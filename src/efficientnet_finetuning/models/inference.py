"""Forward passes over arrays that may be larger than memory."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain, islice
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from efficientnet_finetuning.device import use_jit
from efficientnet_finetuning.workers import MapBlocks

logger = logging.getLogger(__name__)

# Not keras.Model: Kedro resolves annotations of nodes before it validates parameters, and Keras imports slowly.
KerasModel = Any


class Images(Protocol):
    """An array of images, or an object that computes them when they are read."""

    shape: tuple[int, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice) -> np.ndarray: ...


# Conversion is worthwhile from this number of pixels: 100 images of 224 px, 540 of 96 px.
_PIXELS_THAT_PAY = 5_000_000
# The size of a block, which limits the memory for its outputs.
_PIXELS_OF_A_BLOCK, _IMAGES_OF_A_BLOCK = 16_000_000, 1024
# Largest difference between the engine's and Keras' outputs, as a fraction of the largest output.
_TOLERANCE = 1e-3


def predict(
    model: KerasModel,
    images: Images,
    batch_size: int,
    description: str = "predict",
    *,
    flip: bool = False,
    map_blocks: MapBlocks = map,
) -> np.ndarray:
    """Outputs of ``model`` for all images, float32 ``(N, …)``.

    See :func:`predict_all` for how they are computed.

    Args:
        model: a ``keras.Model`` with one input and one output.
        images: ``(N, height, width, channels)``, uint8 or float, read batch by batch; memory maps are possible.
        batch_size: largest number of images in a forward pass.
        description: label of the progress bar.
        flip: average the outputs of each image and its mirror image, for twice the time. On CIFAR-10 this gains about a
            point.
        map_blocks: computes the batches: :meth:`~efficientnet_finetuning.workers.Workers.map_blocks`. Other processes
            read the images themselves. On equal processors, their outputs are exactly equal.
    """
    return predict_all(model, {"": images}, batch_size, description, flip=flip, map_blocks=map_blocks)[""]


def predict_batches(
    model: KerasModel,
    images: Images,
    batch_size: int,
    description: str = "predict",
    *,
    flip: bool = False,
    map_blocks: MapBlocks = map,
) -> Iterator[np.ndarray]:
    """:func:`predict` batch by batch, for outputs that do not fit into memory."""
    for _, batches in _in_batches(model, {"": images}, batch_size, description, flip, map_blocks):
        yield from batches


def predict_all(
    model: KerasModel,
    arrays: Mapping[str, Images],
    batch_size: int,
    description: str = "",
    *,
    flip: bool = False,
    map_blocks: MapBlocks = map,
) -> dict[str, np.ndarray]:
    """Outputs of a model by name for several arrays of images of one shape; arguments as in :func:`predict`.

    With TensorFlow on a CPU, a float32 model is converted for XNNPACK if there are enough pixels: conversion takes the
    same time for all sizes (``tests/benchmarks/inference.py``). Otherwise, and if the conversion fails or its outputs
    differ, Keras computes the outputs.
    """
    outputs = _in_batches(model, arrays, batch_size, description, flip, map_blocks)
    return {name: np.concatenate(list(batches)) for name, batches in outputs}


def mirrored(images: np.ndarray) -> np.ndarray:
    """Images ``(N, height, width, channels)`` mirrored left to right, as a view."""
    return images[:, :, ::-1]


def _in_batches(
    model: KerasModel,
    arrays: Mapping[str, Images],
    batch_size: int,
    description: str,
    flip: bool,
    map_blocks: MapBlocks,
) -> Iterator[tuple[str, Iterator[np.ndarray]]]:
    """For each array its name and batches of outputs. They must be read in this order."""
    forward = _forward(model, list(arrays.values()), batch_size, flip)
    blocks = [(name, rows) for name, images in arrays.items() for rows in _blocks(images.shape, batch_size)]
    outputs = chain.from_iterable(map_blocks(partial(_outputs, forward, arrays, batch_size), blocks))
    for name, images in arrays.items():
        count = math.ceil(len(images) / batch_size)
        batches = islice(outputs, count)
        bar = tqdm(batches, description + name, count, unit="batch", disable=None, leave=False)
        yield name, iter(bar)


def _blocks(shape: tuple[int, ...], batch_size: int) -> list[range]:
    """Rows of several batches: sending one batch of small images to a process takes as long as computing it."""
    images = min(_PIXELS_OF_A_BLOCK // math.prod(shape[1:-1]), _IMAGES_OF_A_BLOCK)
    size = batch_size * max(images // batch_size, 1)
    return [range(start, min(start + size, shape[0])) for start in range(0, shape[0], size)]


def _outputs(
    forward: Callable, arrays: Mapping[str, Images], batch_size: int, block: tuple[str, range]
) -> list[np.ndarray]:
    """Outputs of the batches of a block. All arguments can be pickled."""
    name, rows = block
    starts = range(rows.start, rows.stop, batch_size)
    batches = (arrays[name][start : min(start + batch_size, rows.stop)] for start in starts)
    return [np.asarray(forward(images), np.float32) for images in batches]


def _forward(model: KerasModel, arrays: list[Images], batch_size: int, flip: bool) -> Callable:
    # Chosen here from all images, so that all processes compute alike.
    engine = None if use_jit() else _engine(model, arrays, batch_size, passes=1 + flip)
    rows = min(batch_size, max(len(images) for images in arrays))
    plain = engine or partial(_by_keras, model, rows)
    return partial(_with_mirrored, plain) if flip else plain


def _with_mirrored(forward: Callable, images: np.ndarray) -> np.ndarray:
    return (np.asarray(forward(images)) + np.asarray(forward(mirrored(images)))) / 2


def _by_keras(model: KerasModel, rows: int, images: np.ndarray) -> np.ndarray:
    # Not Model.predict, whose input pipeline halves the speed for small images on a CPU.
    model.jit_compile = use_jit()
    if not model.jit_compile:
        return model.predict_on_batch(images)
    return model.predict_on_batch(_padded(images, rows))[: len(images)]


def _padded(images: np.ndarray, rows: int) -> np.ndarray:
    """Images with blank ones added, because XLA compiles a network for each shape, on a GPU for up to a minute."""
    missing = rows - len(images)
    return np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)]) if missing else images


def _engine(model: KerasModel, arrays: list[Images], batch_size: int, passes: int) -> Callable | None:
    """The converted model if conversion is worthwhile and agrees with Keras on some images, else ``None``."""
    pixels = passes * sum(math.prod(images.shape[:-1]) for images in arrays)
    if pixels < _PIXELS_THAT_PAY or {layer.compute_dtype for layer in model.layers} != {"float32"}:
        return None
    try:
        # Here, because TensorFlow may not be installed.
        from efficientnet_finetuning.models.litert import Engine

        first = arrays[0][:8]
        engine = Engine(model, first.shape[1:], batch_size)
        expected, got = np.asarray(model(first, training=False)), engine(first)
        difference, largest = np.abs(got - expected).max(), np.abs(expected).max()
        if difference <= _TOLERANCE * largest:
            return engine
        reason = f"the converted model's outputs differ by {difference:.1e} where the largest is {largest:.1e}"
    except Exception as error:  # the converter raises many kinds of errors
        reason = (str(error).strip() or repr(error)).splitlines()[0].rstrip(".")
    logger.warning("Keras is used instead of the faster XNNPACK: %s.", reason)
    return None
