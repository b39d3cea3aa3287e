"""Decode image files to upright RGB."""

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from efficientnet_finetuning.data.encoded import EncodedImage
from efficientnet_finetuning.errors import InputError

# Formats by content. Pillow's others are rare, and some run external programs to decode.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
# A file with one of these endings should be an image, so it is a fault if it cannot be read.
IMAGE_SUFFIXES = frozenset(
    {f".{name}" for name in ("bmp", "gif", "jfif", "jpe", "jpeg", "jpg", "png", "tif", "tiff", "webp")}
    | {f".{name}" for name in ("avif", "cr2", "dng", "heic", "heif", "jp2", "nef")}
)
# Exceptions that Pillow raises for damaged images.
UNREADABLE = (
    *(OSError, EOFError, LookupError, MemoryError, OverflowError, SyntaxError, TypeError, ValueError),
    Image.DecompressionBombError,
)

# Smallest usable length of the shorter side, in pixels.
SMALLEST_SIDE = 8

# The audit has its own limit for large images, and reports them.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_INTERPOLATIONS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def open_image(file: BinaryIO | Path) -> Image.Image:
    """Read an image's header; Pillow decodes the pixels when they are needed.

    Raises ``OSError`` if the format is none of :data:`FORMATS`, or any of :data:`UNREADABLE` if the header is damaged.
    """
    return Image.open(file, formats=FORMATS)


def why_unreadable(error: Exception) -> str:
    """The reason, as ``<kind>: <reason>``, for an error of :func:`open_image`."""
    if isinstance(error, Image.DecompressionBombError):
        return "too_large: more than 178 megapixels"
    detail = f"not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file" if "cannot identify" in str(error) else error
    return f"undecodable: {detail}"


def why_unfit(size: tuple[int, int], max_megapixels: float) -> str:
    """The reason, as ``<kind>: <reason>``, why an image is too large or too small; empty if it is neither."""
    width, height = size
    if width * height > max_megapixels * 1e6:
        return f"too_large: {width * height / 1e6:.0f} megapixels"
    if min(size) < SMALLEST_SIDE:
        return f"too_small: {width} × {height} pixels"
    return ""


def is_image(file: Path) -> bool:
    """Whether a file begins like an image, whatever its name."""
    try:
        with EncodedImage(file.name, file).open() as stream:
            open_image(stream)
    except UNREADABLE:
        return False
    return True


def decode(
    image: EncodedImage, image_size: int, resize: str, interpolation: str, background: str = "#ffffff"
) -> np.ndarray:
    """Decode an image's first frame to an RGB square, uint8 ``(image_size, image_size, 3)``.

    Args:
        image: the encoded image.
        image_size: side of the square in pixels.
        resize: ``stretch``, ``center_crop`` or ``pad``.
        interpolation: ``bicubic`` or ``bilinear``.
        background: ``#rrggbb``, behind transparent or padded parts.

    Raises:
        InputError: the image is damaged or gone.
    """
    try:
        stream = image.open()
    except OSError as error:
        raise InputError(
            f"The image {image.id} was found earlier, but cannot be read now: {error}. Run the ingestion again."
        ) from error
    try:
        with stream, open_image(stream) as opened:
            upright = upright_rgb(opened, background)
            return np.asarray(resize_to_square(upright, image_size, resize, interpolation, background))
    except UNREADABLE as error:
        raise InputError(
            f"The image {image.id} cannot be decoded: {error}. Repair it or remove it from the set."
        ) from error


def upright_rgb(image: Image.Image, background: str = "#ffffff") -> Image.Image:
    """Rotate by the EXIF data and convert to RGB with 8 bits; raises ``ValueError`` for floats of unknown range."""
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if image.mode.startswith("I"):
        # Pillow clips 16-bit values at 255 instead of scaling them.
        values = np.asarray(image)
        image = Image.fromarray((values >> 8 if values.max() > 255 else values).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, background), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # convert would copy it


def resize_to_square(
    image: Image.Image, image_size: int, resize: str, interpolation: str, background: str = "#ffffff"
) -> Image.Image:
    """Resize to a square with anti-aliasing.

    ``stretch`` resizes both sides, ``center_crop`` the largest centred square, and ``pad`` the longer side, with bands
    of the background colour beside the image.
    """
    width, height = image.size
    if resize == "center_crop":
        side = min(width, height)
        return _resize(image, (image_size, image_size), interpolation, (width - side) / 2, (height - side) / 2)
    if resize == "stretch":
        return _resize(image, (image_size, image_size), interpolation)
    scale = image_size / max(width, height)
    inside = max(1, round(scale * width)), max(1, round(scale * height))
    square = Image.new("RGB", (image_size, image_size), background)
    corner = (image_size - inside[0]) // 2, (image_size - inside[1]) // 2
    square.paste(_resize(image, inside, interpolation), corner)
    return square


def _resize(
    image: Image.Image, size: tuple[int, int], interpolation: str, left: float = 0.0, top: float = 0.0
) -> Image.Image:
    """Resize the part between margins on both sides, first horizontally and then vertically.

    Pillow starts vertically for some tall images. Their pixels then differ by up to 11 of 255 from those of exported
    models, which always start horizontally.
    """
    how = _INTERPOLATIONS[interpolation]
    across = image.resize((size[0], image.height), how, (left, 0, image.width - left, image.height))
    return across.resize(size, how, (0, top, size[0], image.height - top))
