"""Thumbnails for a page: which test images, and how small."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import pandas as pd
from PIL import Image

_MOST_EXAMPLES = 2_000
# The page must be small enough for an e-mail.
_MOST_BYTES = 3_700_000
_LARGEST_SIDE, _SMALLEST_SIDE = 224, 32
_BYTES_PER_PIXEL = 0.16  # of photographs as WebP; noise takes more


def examples_of_classes(predictions: pd.DataFrame) -> pd.DataFrame:
    """The mistakes of each class, and three right answers: the most, the median and the least confident.

    If there are too many, every pair of classes gets an example before any gets a second one. The most confident come
    first.
    """
    ordered = predictions.sort_values("confidence", ascending=False, kind="stable")
    kinds = ordered.groupby(["true", "predicted"])["id"]
    place, size = kinds.cumcount(), kinds.transform("size")
    right = ordered[ordered["correct"] & ((place == 0) | (place == size // 2) | (place == size - 1))]
    most = max(_MOST_EXAMPLES // predictions["true"].nunique() - 3, 1)
    wrong = ordered[~ordered["correct"]].assign(place=place).sort_values("place", kind="stable")
    chosen = wrong.groupby("true").head(most).index.union(right.index)
    return ordered[ordered.index.isin(chosen)]


def thumbnails(images: np.ndarray, rows: Sequence[int]) -> dict[int, bytes]:
    """WebP thumbnails of some rows of uint8 images ``(N, size, size, 3)``. They have at most 3.7 MB together."""
    side = min(_LARGEST_SIDE, int((_MOST_BYTES / _BYTES_PER_PIXEL / max(len(rows), 1)) ** 0.5))
    while True:
        found = {row: as_webp(Image.fromarray(images[row]), side) for row in rows}
        if sum(map(len, found.values())) <= _MOST_BYTES or side <= _SMALLEST_SIDE:
            return found
        side = max(int(0.7 * side), _SMALLEST_SIDE)


def as_webp(picture: Image.Image, side: int | None = None) -> bytes:
    """A picture as a WebP file, at most ``side`` pixels wide and high."""
    if side:
        picture.thumbnail((side, side))
    buffer = BytesIO()
    picture.save(buffer, "webp", quality=70, method=2)
    return buffer.getvalue()
