"""From encoded images to squares of pixels, once, in bounded memory."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from tqdm import tqdm

from efficientnet_finetuning.data.decode import decode
from efficientnet_finetuning.data.encoded import EncodedImage
from efficientnet_finetuning.data.examples import Examples, LazyRows
from efficientnet_finetuning.data.sources import Source
from efficientnet_finetuning.data.threads import map_in_threads


def prepare(
    source: Source,
    manifest: pd.DataFrame,
    num_classes: int,
    split: str,
    *,
    image_size: int,
    resize: str = "stretch",
    interpolation: str = "bicubic",
    background: str = "#ffffff",
) -> Examples:
    """Decode, resize and one-hot encode one split, lazily: pixels are computed while they are stored.

    Args:
        source: the encoded images.
        manifest: with ``id``, ``source_split``, ``split`` and ``label``.
        num_classes: width of the one-hot labels.
        split: ``train``, ``validation`` or ``test``.
        image_size: side of the squares in pixels.
        resize: ``stretch``, ``center_crop`` or ``pad``.
        interpolation: ``bicubic`` or ``bilinear``.
        background: ``#rrggbb``, seen where an image is transparent or padded.

    Returns:
        Examples in the manifest's order, whose images are :class:`LazyRows` that decode on all cores.
    """
    rows = manifest[manifest["split"] == split]

    def pixels() -> Iterator[np.ndarray]:
        encoded = _encoded_images(source, rows)
        decoded = map_in_threads(lambda image: decode(image, image_size, resize, interpolation, background), encoded)
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


def one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Labels ``(N,)`` in 0 to ``num_classes - 1`` to uint8 ``(N, num_classes)``."""
    return np.eye(num_classes, dtype=np.uint8)[labels]
