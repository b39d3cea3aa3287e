"""Decode and resize images to squares of pixels, once, in bounded memory."""

import math
import os
import zlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from efficientnet_finetuning.data.blocks import BLOCK_SIZE, map_resumably
from efficientnet_finetuning.data.decode import decode
from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.data.sources import Block, Source
from efficientnet_finetuning.data.threads import map_in_threads
from efficientnet_finetuning.storage import check_free_space, naming_full_disk, scratch_folder
from efficientnet_finetuning.workers import MapBlocks


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
    folder: Path | None = None,
    map_blocks: MapBlocks = map,
    block_size: int = BLOCK_SIZE,
) -> Examples:
    """Decode, resize and one-hot encode one split; the pixels go to disk, never all to memory.

    Args:
        source: the encoded images.
        manifest: with ``id``, ``source_split``, ``split`` and ``label``.
        num_classes: width of the one-hot labels.
        split: ``train``, ``validation`` or ``test``.
        image_size, resize, interpolation, background: of :func:`~efficientnet_finetuning.data.decode.decode`.
        folder: stores the pixels, so that an interrupted call can resume. ``None``: in a temporary file.
        map_blocks: distributes the images, as :meth:`~efficientnet_finetuning.workers.Workers.map_blocks` does.
        block_size: images in a block.

    Returns:
        Examples in the manifest's order, with the images as a memory map.

    Raises:
        InputError: an image is damaged or gone, or the disk has too little room.
    """
    rows = manifest[manifest["split"] == split]
    row_bytes = 3 * image_size**2

    def blocks() -> Iterator[tuple[int, Block]]:
        position = first
        for source_split, part in rows.groupby("source_split", sort=False):
            for images in source.blocks(str(source_split), set(part["id"]), block_size):
                yield position, images
                position += len(images) * row_bytes

    how = {"image_size": image_size, "resize": resize, "interpolation": interpolation, "background": background}
    with scratch_folder(folder) as kept:
        file = kept / f"{split}_images.npy"
        first = _make_room(file, (len(rows), image_size, image_size, 3))
        is_sound = partial(_is_written, file, row_bytes)
        written = map_resumably(partial(_write, file, how), blocks(), kept / split, map_blocks, is_sound)
        count = 0
        with tqdm(total=len(rows), desc=f"prepare {split}", unit="image", disable=None) as progress:
            for block in written:
                progress.update(block["images"])
                count += block["images"]
        if count != len(rows):
            raise RuntimeError(f"{file} has {count} rows instead of {len(rows)}")
        images = np.load(file, mmap_mode="r")
    return Examples(images, one_hot(rows["label"].to_numpy(), num_classes), rows["id"].to_numpy(str))


def _make_room(file: Path, shape: tuple[int, ...]) -> int:
    """Reserve the file of an array, unless it exists from an earlier call; return the offset of its first row."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    # Check before hours of decoding. Blocks that the file already occupies count as free.
    needed = math.prod(shape) - 512 * file.stat().st_blocks
    check_free_space(file.parent, needed, f"Storing {file.stem}")
    with naming_full_disk(file), file.open("r+b") as stream:
        np.lib.format.write_array_header_2_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
        first = stream.tell()
        stream.truncate(first + math.prod(shape))  # holes, which take no room
    return first


def _write(file: Path, how: Mapping[str, Any], block: tuple[int, Block]) -> dict[str, int]:
    position, images = block
    count = checksum = 0
    # No memory map: its pages count as this process' memory, and a full disk kills the process. Open for writing only:
    # otherwise an NFS client writes whole pages, and so overwrites the rows of another worker.
    with naming_full_disk(file), os.fdopen(os.open(file, os.O_WRONLY), "wb") as stream:
        stream.seek(position)
        for pixels in map_in_threads(partial(decode, **how), images):
            row = np.ascontiguousarray(pixels).data
            stream.write(row)
            checksum = zlib.crc32(row, checksum)
            count += 1
    return {"images": count, "crc32": checksum}


def _is_written(file: Path, row_bytes: int, block: tuple[int, Block], written: Mapping[str, int]) -> bool:
    """Whether the rows on disk match the checksum; a crash may have lost rows that :func:`_write` reported."""
    position, images = block
    checksum = 0
    with file.open("rb") as stream:
        stream.seek(position)
        for _ in range(len(images)):
            checksum = zlib.crc32(stream.read(row_bytes), checksum)
    return {"images": len(images), "crc32": checksum} == written


def one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Convert labels ``(N,)`` in 0 to ``num_classes - 1`` to uint8 ``(N, num_classes)``."""
    return np.eye(num_classes, dtype=np.uint8)[labels]
