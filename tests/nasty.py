"""A folder of photographs with one of every fault, and what ingestion must say of each.

Run it to write the folder: ``python tests/nasty.py /tmp/nasty``.
"""

import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog", "owl")
# By kind of fault, the images that must be excluded for it.
PLANTED = {
    "undecodable": ["train/cat/text.jpg", "train/cat/phone.heic", "train/dog/header.png"],
    "empty": ["train/cat/empty.jpg"],
    "truncated": ["train/dog/cut.jpg", "train/dog/cut.png"],
    "too_large": ["train/dog/bomb.png", "train/dog/poster.png"],
    "too_small": ["train/owl/icon.png"],
    "single_colour": ["train/owl/black.png"],
    "duplicate": ["train/cat/copy.jpg"],
    "conflicting_labels": ["train/cat/both.jpg", "train/dog/both.jpg"],
    "duplicate_across_splits": ["train/owl/leak.jpg", "validation/owl/leak.jpg", "train/cat/seen.jpg"],
}
# Sound images of every other kind: excluded for nothing.
ODD = {
    "train/cat/really_a_png.jpg": "PNG",
    "train/cat/no_ending": "JPEG",
    "train/dog/grey.png": "PNG",
    "train/dog/grey16.png": "PNG",
    "train/dog/palette.gif": "GIF",
    "train/owl/alpha.png": "PNG",
    "train/owl/alpha.webp": "WEBP",
    "train/owl/cmyk.jpg": "JPEG",
    "train/owl/turned.jpg": "JPEG",
    "train/owl/scan.tiff": "TIFF",
    "train/owl/old.bmp": "BMP",
}
NEAR = ("train/dog/burst.jpg", "test/dog/burst.jpg")
IGNORED = {"hidden": 2, "not an image": 2, "image outside any class folder": 1}


def write_nasty_folder(root: Path) -> Path:
    """Write ``train``, ``validation`` and ``test`` with 30, 6 and 6 sound images a class, and every fault."""
    writer = _Writer(root)
    for split, count in (("train", 30), ("validation", 6), ("test", 6)):
        for label, name in enumerate(CLASSES):
            for index in range(count):
                writer.photo(label).save(writer.path(f"{split}/{name}/{index}.jpg"), quality=90)
    writer.write_broken_files()
    writer.write_copies()
    writer.write_odd_images()
    writer.write_strays()
    return root


class _Writer:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._generator = np.random.default_rng(0)

    def photo(self, label: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
        """Coarse noise in a class' colour, so that no two look alike, even shrunk."""
        coarse = self._generator.integers(0, 150, (6, 8, 3))
        coarse[..., label] += 100
        return Image.fromarray(coarse.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)

    def path(self, name: str) -> Path:
        (self._root / name).parent.mkdir(parents=True, exist_ok=True)
        return self._root / name

    def write_broken_files(self) -> None:
        self.path("train/cat/text.jpg").write_text("this is a text")
        self.path("train/cat/phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
        self.path("train/dog/header.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
        self.path("train/cat/empty.jpg").touch()
        for name in ("train/dog/cut.jpg", "train/dog/cut.png"):
            self.photo(1, (200, 160)).save(self.path(name))
            os.truncate(self.path(name), self.path(name).stat().st_size // 2)
        self.path("train/dog/bomb.png").write_bytes(_png_bomb(20_000, 15_000))
        self.path("train/dog/poster.png").write_bytes(_png_bomb(12_000, 10_000))
        self.photo(2, (7, 30)).save(self.path("train/owl/icon.png"))
        Image.new("RGB", (64, 48)).save(self.path("train/owl/black.png"))

    def write_copies(self) -> None:
        for original, copies in {
            "train/cat/0.jpg": ["train/cat/copy.jpg"],
            "test/owl/0.jpg": ["train/owl/leak.jpg", "validation/owl/leak.jpg"],
            "validation/cat/0.jpg": ["train/cat/seen.jpg"],
        }.items():
            for copy in copies:
                self.path(copy).write_bytes(self.path(original).read_bytes())
        self.photo(0).save(self.path("train/cat/both.jpg"))
        self.path("train/dog/both.jpg").write_bytes(self.path("train/cat/both.jpg").read_bytes())

    def write_odd_images(self) -> None:
        self.photo(0).save(self.path("train/cat/really_a_png.jpg"), "PNG")
        self.photo(0).save(self.path("train/cat/no_ending"), "JPEG")
        self.photo(1).convert("L").save(self.path("train/dog/grey.png"))
        Image.fromarray(self._generator.integers(0, 2**16, (48, 64), np.uint16)).save(self.path("train/dog/grey16.png"))
        frames = [self.photo(1).convert("P"), self.photo(1).convert("P")]
        frames[0].save(self.path("train/dog/palette.gif"), save_all=True, append_images=frames[1:])
        for name in ("alpha.png", "alpha.webp"):
            transparent = self.photo(2).convert("RGBA")
            transparent.putalpha(128)
            transparent.save(self.path(f"train/owl/{name}"))
        self.photo(2).convert("CMYK").save(self.path("train/owl/cmyk.jpg"))
        turned = Image.Exif()
        turned[0x0112] = 6
        self.photo(2).save(self.path("train/owl/turned.jpg"), exif=turned)
        self.photo(2).save(self.path("train/owl/scan.tiff"))
        self.photo(2).save(self.path("train/owl/old.bmp"))

    def write_strays(self) -> None:
        burst = self.photo(1, (160, 120))
        burst.save(self.path(NEAR[0]), quality=95)
        burst.resize((120, 90)).save(self.path(NEAR[1]), quality=60)
        self.path("train/.hidden.jpg").write_bytes(b"")
        self.path("train/cat/.thumbnails/1.jpg").write_bytes(b"")
        self.path("train/cat/Thumbs.db").write_bytes(b"thumbs")
        self.path("train/dog/notes.txt").write_text("a text is no image")
        self.photo(0).save(self.path("train/loose.jpg"))


def _png_bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes that would fill a gigabyte."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000 * (1 + 3 * width)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


if __name__ == "__main__":
    print(write_nasty_folder(Path(sys.argv[1])))  # noqa: T201
