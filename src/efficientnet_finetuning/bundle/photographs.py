"""Find photographs by a path, and read them as squares; faults become reasons."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from glob import glob
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from efficientnet_finetuning.data.decode import (
    IMAGE_SUFFIXES,
    UNREADABLE,
    is_image,
    open_image,
    resize_to_square,
    upright_rgb,
    why_unfit,
    why_unreadable,
)
from efficientnet_finetuning.data.encoded import EncodedImage
from efficientnet_finetuning.data.sources import natural_key, read_listing
from efficientnet_finetuning.data.threads import map_in_threads
from efficientnet_finetuning.errors import InputError, naming_unreadable, near_matches, printable
from efficientnet_finetuning.models.classifier import TrainedClassifier

Photograph = EncodedImage | Image.Image | np.ndarray


def find_photographs(path: Path | str) -> list[EncodedImage]:
    """List the photographs at a path: a file, a folder (recursively), a glob, or a CSV with a column ``path``.

    Returns:
        In natural order, or in the CSV's. An id is the path below the folder, or the path in the glob or the CSV. Files
        with an image suffix are listed even if they are damaged; others only if they are images.

    Raises:
        InputError: the path does not exist or has no photograph.
    """
    with naming_unreadable(str(path)):
        place = Path(path).expanduser()
        if place.is_dir():
            found = _below(place)
        elif place.suffix.lower() == ".csv" and place.is_file():
            found = _listed(place)
        elif place.exists():
            found = [_photograph(place.name, place)]
        else:
            files = (Path(name) for name in sorted(glob(str(place), recursive=True), key=natural_key))  # noqa: PTH207
            found = [_photograph(str(file), file) for file in files if file.is_file() and _is_meant_as_image(file)]
            if not found and not place.parent.is_dir():
                raise InputError(f"{path} does not exist: there is no folder {place.parent}.")
    if not found:
        names = [] if place.exists() else sorted(near.name for near in place.parent.glob("*"))
        beside, what = near_matches(place.name, names), "has no photographs" if place.exists() else "does not exist"
        raise InputError(
            f"{path} {what}.{beside} Give a file, a folder, a glob such as 'photos/*.jpg', or a CSV with a "
            "column `path`."
        )
    return found


def fingerprint(path: Path | str) -> str:
    """A hash of the ids, sizes and times of the photographs at a path; raises as :func:`find_photographs` does."""
    entries = hashlib.sha256()
    for photograph in find_photographs(path):
        assert isinstance(photograph.content, Path)
        with suppress(OSError):  # of missing photographs only the id counts
            status = os.stat(photograph.content)  # noqa: PTH116  twice as fast as pathlib
            entries.update(f"{status.st_size}\0{status.st_mtime_ns}\0".encode())
        entries.update(f"{photograph.id}\n".encode())
    return entries.hexdigest()


def _below(folder: Path) -> list[EncodedImage]:
    found = []
    for place, subfolders, names in os.walk(folder, onerror=_cannot_be_listed):
        subfolders[:] = sorted((name for name in subfolders if not name.startswith(".")), key=natural_key)
        for name in sorted(names, key=natural_key):
            file = Path(place, name)
            if not name.startswith(".") and _is_meant_as_image(file):
                found.append(_photograph(file.relative_to(folder).as_posix(), file))
    return found


def _photograph(name: str, file: Path) -> EncodedImage:
    return EncodedImage(printable(name), file)


def _cannot_be_listed(error: OSError) -> None:
    raise InputError(f"The folder {error.filename} cannot be listed: {error.strerror}.") from error


def _listed(file: Path) -> list[EncodedImage]:
    table = read_listing(file, str(file), ["path"])
    return [_photograph(name, file.parent / name) for name in table["path"]]


def _is_meant_as_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES or is_image(file)


class Reader:
    """An array of photographs' pixels, decoded on all cores while it is read from start to end.

    An unreadable photograph becomes black, and :attr:`reasons` says why.
    """

    def __init__(
        self, photographs: Sequence[Photograph], classifier: TrainedClassifier, max_megapixels: float = 100
    ) -> None:
        """Prepare to read encoded images, Pillow images, or arrays.

        Arrays are uint8 ``(height, width, 3)`` in RGB, ``(height, width, 4)`` with opacity, or ``(height, width)``. The
        classifier sets how they become squares. Photographs above ``max_megapixels`` are unreadable.
        """
        size = classifier.image_size
        self.shape: tuple[int, ...] = (len(photographs), size, size, 3)
        self.reasons = np.full(len(photographs), "", dtype=object)
        self._classifier, self._max_megapixels = classifier, max_megapixels
        self._decoded = map_in_threads(self._read, photographs)
        self._first, self._kept = 0, list[np.ndarray]()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """uint8 pixels ``(rows, size, size, 3)``; forgets all earlier rows."""
        start, stop, _ = rows.indices(len(self))
        if start < self._first:
            raise IndexError(f"row {start} was read already; the next row is {self._first}")
        del self._kept[: start - self._first]
        self._first = start
        while self._first + len(self._kept) < stop:
            row = self._first + len(self._kept)
            pixels, self.reasons[row] = next(self._decoded)
            self._kept.append(pixels)
        return np.stack(self._kept[: stop - start])

    def _read(self, photograph: Photograph) -> tuple[np.ndarray, str]:
        try:
            if not isinstance(photograph, EncodedImage):
                return self._square(_as_image(photograph))
            with photograph.open() as stream:
                if not stream.read(1):
                    return self._blank("empty: the file has no bytes")
                stream.seek(0)
                return self._decode(stream)
        except OSError as error:
            return self._blank(f"unreadable: {error.strerror or error}")

    def _decode(self, stream: BinaryIO) -> tuple[np.ndarray, str]:
        try:
            opened = open_image(stream)
        except UNREADABLE as error:
            return self._blank(why_unreadable(error))
        with opened:
            return self._square(opened)

    def _square(self, image: Image.Image) -> tuple[np.ndarray, str]:
        if reason := why_unfit(image.size, self._max_megapixels):
            return self._blank(reason)
        rule = self._classifier
        try:
            upright = upright_rgb(image, rule.background)
            how = (rule.image_size, rule.resize, rule.interpolation, rule.background)
            return np.asarray(resize_to_square(upright, *how)), ""
        except UNREADABLE as error:
            return self._blank(f"truncated: {error}")

    def _blank(self, reason: str) -> tuple[np.ndarray, str]:
        return np.zeros(self.shape[1:], np.uint8), reason


def _as_image(photograph: Image.Image | np.ndarray) -> Image.Image:
    if isinstance(photograph, Image.Image):
        return photograph.copy()  # rotating it would change the caller's image
    if photograph.dtype != np.uint8 or photograph.ndim not in (2, 3) or photograph.shape[2:] not in ((), (3,), (4,)):
        raise InputError(
            f"An array of shape {photograph.shape} and type {photograph.dtype} is not an image. Give uint8 of shape "
            "(height, width, 3) in the order red, green, blue, (height, width, 4) with opacity, or (height, width)."
        )
    return Image.fromarray(photograph)
