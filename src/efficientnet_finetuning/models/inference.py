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

# Kedro resolves the annotations of nodes before it validates parameters, and importing Keras takes seconds.
KerasModel = Any


class Images(Protocol):
    """An array of images, or something that makes them when they are read."""

    shape: tuple[int, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice) -> np.ndarray: ...


# From so many pixels on, in all images together, conversion pays: 100 images of 224 px, 540 of 96 px.
_PIXELS_THAT_PAY = 5_000_000
# What is computed at once, by this process or another one, so that its outputs stay small beside what is computed from.
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
    """Outputs of ``model`` for every image exactly once, in the order of ``images``, the uneven last batch too.

    See :func:`predict_all` for how they are computed.

    Args:
        model: a ``keras.Model`` with one input and one output.
        images: ``(N, height, width, channels)``, pixels in 0–255 for a whole network, uint8 or float; read batch by
            batch, so a memory map is fine.
        batch_size: images in a forward pass, at most.
        description: what the progress bar says.
        flip: average the outputs of each image and of its mirror image, for twice the time. On CIFAR-10 that makes
            predictions more accurate by a point or so.
        map_blocks: who computes the batches: :meth:`~efficientnet_finetuning.workers.Workers.map_blocks`. Other
            processes read the images themselves, and on like processors their outputs are the same to the bit.

    Returns:
        float32 ``(N, …)``.
    """
    return np.concatenate(
        list(predict_batches(model, images, batch_size, description, flip=flip, map_blocks=map_blocks))
    )


def predict_batches(
    model: KerasModel,
    images: Images,
    batch_size: int,
    description: str = "predict",
    *,
    flip: bool = False,
    map_blocks: MapBlocks = map,
) -> Iterator[np.ndarray]:
    """:func:`predict` batch by batch, where all outputs together would fill the memory."""
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
    """:func:`predict` for several arrays of images of one shape, with one conversion for all.

    On a CPU with TensorFlow a float32 model is converted for XNNPACK where that pays, and Keras' own forward pass
    serves otherwise: for few images and, with a line that says so, where conversion fails or the outputs differ.

    The number of pixels decides, since conversion costs the same for every image size and a forward pass grows with
    them: ``tests/benchmarks/inference.py`` has the seconds.

    Args:
        model: as in :func:`predict`.
        arrays: name → images.
        batch_size: images in a forward pass, at most.
        description: what the progress bars say before the name.
        flip: as in :func:`predict`.
        map_blocks: likewise.

    Returns:
        float32 ``(N, …)`` for each key.
    """
    outputs = _in_batches(model, arrays, batch_size, description, flip, map_blocks)
    return {name: np.concatenate(list(batches)) for name, batches in outputs}


def mirrored(images: np.ndarray) -> np.ndarray:
    """Images ``(N, height, width, channels)`` with left and right exchanged, as a view of the same memory."""
    return images[:, :, ::-1]


def _in_batches(
    model: KerasModel,
    arrays: Mapping[str, Images],
    batch_size: int,
    description: str,
    flip: bool,
    map_blocks: MapBlocks,
) -> Iterator[tuple[str, Iterator[np.ndarray]]]:
    """For each array its name and outputs, to be read in this order: all batches are those of one function."""
    forward = _forward(model, list(arrays.values()), batch_size, flip)
    blocks = [(name, rows) for name, images in arrays.items() for rows in _blocks(images.shape, batch_size)]
    outputs = chain.from_iterable(map_blocks(partial(_outputs, forward, arrays, batch_size), blocks))
    for name, images in arrays.items():
        count = math.ceil(len(images) / batch_size)
        batches = islice(outputs, count)
        bar = tqdm(batches, description + name, count, unit="batch", disable=None, leave=False)
        yield name, iter(bar)


def _blocks(shape: tuple[int, ...], batch_size: int) -> list[range]:
    """Rows of several batches: handing a batch of small images to another process takes as long as computing it."""
    images = min(_PIXELS_OF_A_BLOCK // math.prod(shape[1:-1]), _IMAGES_OF_A_BLOCK)
    size = batch_size * max(images // batch_size, 1)
    return [range(start, min(start + size, shape[0])) for start in range(0, shape[0], size)]


def _outputs(
    forward: Callable, arrays: Mapping[str, Images], batch_size: int, block: tuple[str, range]
) -> list[np.ndarray]:
    """Of the batches of a block. Whatever is bound to this function can be pickled."""
    name, rows = block
    starts = range(rows.start, rows.stop, batch_size)
    batches = (arrays[name][start : min(start + batch_size, rows.stop)] for start in starts)
    return [np.asarray(forward(images), np.float32) for images in batches]


def _forward(model: KerasModel, arrays: list[Images], batch_size: int, flip: bool) -> Callable:
    # Chosen by all images, here, so that another process computes as this one would.
    engine = None if use_jit() else _engine(model, arrays, batch_size, passes=1 + flip)
    rows = min(batch_size, max(len(images) for images in arrays))
    plain = engine or partial(_by_keras, model, rows)
    return partial(_with_mirrored, plain) if flip else plain


def _with_mirrored(forward: Callable, images: np.ndarray) -> np.ndarray:
    return (np.asarray(forward(images)) + np.asarray(forward(mirrored(images)))) / 2


def _by_keras(model: KerasModel, rows: int, images: np.ndarray) -> np.ndarray:
    # Not Model.predict: its input pipeline halves the throughput of small images on a CPU.
    model.jit_compile = use_jit()
    if not model.jit_compile:
        return model.predict_on_batch(images)
    return model.predict_on_batch(_padded(images, rows))[: len(images)]


def _padded(images: np.ndarray, rows: int) -> np.ndarray:
    """Blank images after the last one: XLA compiles a network anew for each shape, on a GPU for up to a minute."""
    missing = rows - len(images)
    return np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)]) if missing else images


def _engine(model: KerasModel, arrays: list[Images], batch_size: int, passes: int) -> Callable | None:
    """The converted model, if it pays and agrees with Keras on the first images; else nothing."""
    pixels = passes * sum(math.prod(images.shape[:-1]) for images in arrays)
    if pixels < _PIXELS_THAT_PAY or {layer.compute_dtype for layer in model.layers} != {"float32"}:
        return None
    try:
        # Here, since models must work where TensorFlow is not installed.
        from efficientnet_finetuning.models.litert import Engine

        first = arrays[0][:8]
        engine = Engine(model, first.shape[1:], batch_size)
        expected, got = np.asarray(model(first, training=False)), engine(first)
        difference, largest = np.abs(got - expected).max(), np.abs(expected).max()
        if difference <= _TOLERANCE * largest:
            return engine
        reason = f"the converted model's outputs differ by {difference:.1e} where the largest is {largest:.1e}"
    except Exception as error:  # the converter has no kind of its own
        reason = (str(error).strip() or repr(error)).splitlines()[0].rstrip(".")
    logger.warning("Keras computes this, more slowly than XNNPACK would: %s.", reason)
    return None
