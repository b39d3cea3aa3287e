"""From encoded images to squares of pixels, once, in bounded memory."""

import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from tqdm import tqdm

from efficientnet_finetuning.data.examples import Examples, LazyRows
from efficientnet_finetuning.data.sources import EncodedImage, Source
from efficientnet_finetuning.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

# What Pillow raises for a damaged image, depending on where the damage is.
UNREADABLE = (OSError, OverflowError, SyntaxError, TypeError, ValueError, Image.DecompressionBombError)

_INTERPOLATIONS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def prepare(
    source: Source,
    manifest: pd.DataFrame,
    num_classes: int,
    split: str,
    *,
    image_size: int,
    resize: str = "stretch",
    interpolation: str = "bicubic",
) -> Examples:
    """Decode, resize and one-hot encode one split, lazily: pixels are computed while they are stored.

    Args:
        source: the encoded images.
        manifest: with ``id``, ``source_split``, ``split`` and ``label``.
        num_classes: width of the one-hot labels.
        split: ``train``, ``validation`` or ``test``.
        image_size: side of the squares in pixels.
        resize: ``stretch`` or ``center_crop``.
        interpolation: ``bicubic`` or ``bilinear``.

    Returns:
        Examples in the manifest's order, whose images are :class:`LazyRows` that decode on all cores.
    """
    rows = manifest[manifest["split"] == split]

    def pixels() -> Iterator[np.ndarray]:
        encoded = _encoded_images(source, rows)
        decoded = map_in_threads(lambda image: decode(image, image_size, resize, interpolation), encoded)
        yield from tqdm(decoded, total=len(rows), desc=f"prepare {split}", unit="image", disable=None)

    return Examples(
        images=LazyRows((len(rows), image_size, image_size, 3), np.dtype(np.uint8), _Restartable(pixels)),
        labels=one_hot(rows["label"].to_numpy(), num_classes),
        ids=rows["id"].to_numpy(str),
    )


class _Restartable:
    """An iterable that starts its generator anew each time it is iterated."""

    def __init__(self, generate: Callable[[], Iterator[np.ndarray]]) -> None:
        self._generate = generate

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._generate()


def _encoded_images(source: Source, rows: pd.DataFrame) -> Iterator[EncodedImage]:
    for source_split, part in rows.groupby("source_split", sort=False):
        yield from source.images(str(source_split), set(part["id"]))


def decode(image: EncodedImage, image_size: int, resize: str, interpolation: str) -> np.ndarray:
    """Decode one image to an RGB square, uint8 ``(image_size, image_size, 3)``.

    Raises:
        InputError: the image is damaged.
    """
    try:
        with Image.open(io.BytesIO(image.encoded)) as opened:
            return np.asarray(resize_to_square(_upright_rgb(opened), image_size, resize, interpolation))
    except UNREADABLE as error:
        raise InputError(
            f"The image {image.id} cannot be decoded: {error}. Mend it or take it out of the set."
        ) from error


def _upright_rgb(image: Image.Image) -> Image.Image:
    """Turn a photograph as its camera says, and bring every mode to RGB of 8 bits."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        # Pillow cuts at 255 where it should scale.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def resize_to_square(image: Image.Image, image_size: int, resize: str, interpolation: str) -> Image.Image:
    """Resize with anti-aliasing: ``stretch`` both sides, or ``center_crop`` the largest centred square."""
    box = None
    if resize == "center_crop":
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
    return image.resize((image_size, image_size), _INTERPOLATIONS[interpolation], box)


def one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Labels ``(N,)`` in 0 to ``num_classes - 1`` to uint8 ``(N, num_classes)``."""
    return np.eye(num_classes, dtype=np.uint8)[labels]


def map_in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Map on all cores, in order, with a bounded number of items in flight; Pillow releases the lock while it works."""
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        remaining = iter(items)
        pending: deque[Future[Result]] = deque(pool.submit(function, item) for item in islice(remaining, 8 * workers))
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(function, item) for item in islice(remaining, 1))
            yield result
