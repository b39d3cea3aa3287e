"""Open every image once: find its format, size, hashes and faults."""

import hashlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from efficientnet_finetuning.data.blocks import BLOCK_SIZE, map_resumably
from efficientnet_finetuning.data.decode import UNREADABLE, open_image, upright_rgb, why_unfit, why_unreadable
from efficientnet_finetuning.data.duplicates import exclude_duplicates
from efficientnet_finetuning.data.encoded import EncodedImage
from efficientnet_finetuning.data.sources import Block, Source
from efficientnet_finetuning.data.threads import map_in_threads
from efficientnet_finetuning.errors import InputError, counted, shorten
from efficientnet_finetuning.parameters import DatasetParameters
from efficientnet_finetuning.storage import scratch_folder
from efficientnet_finetuning.workers import MapBlocks

COLUMNS = (
    *("id", "source_split", "label", "class_name", "group"),
    *("format", "mode", "width", "height", "sha256", "perceptual_hash", "excluded"),
)


def inspect_images(
    source: Source,
    dataset: DatasetParameters,
    max_megapixels: float,
    seed: int,
    folder: Path | None = None,
    map_blocks: MapBlocks = map,
    block_size: int = BLOCK_SIZE,
) -> pd.DataFrame:
    """Open every image once, on all cores, and find out which images training cannot or should not use.

    Args:
        source: the images; they are only read.
        dataset: names the subset.
        max_megapixels: larger images are excluded by their header.
        seed: of the subset.
        folder: keeps intermediate results, so that an interrupted call can resume.
        map_blocks: distributes the images, as :meth:`~efficientnet_finetuning.workers.Workers.map_blocks` does.
        block_size: images in a block.

    Returns:
        One row per image in the source's order: ``id``, ``source_split``, ``label`` (index), ``class_name``, ``group``
        (the source's name for it, or empty), ``format`` and ``mode`` (Pillow's names), ``width`` and ``height`` in
        pixels after rotation, ``sha256`` of the encoded image, ``perceptual_hash`` (64 bits in hexadecimal) and
        ``excluded``: empty, or ``<kind>: <reason>``. Unknown values are empty or 0.

    Raises:
        InputError: a label is not a class.
    """
    subset = choose_subset(source, dataset, seed)
    rows: list[dict[str, Any]] = []
    with scratch_folder(folder) as kept:
        for split, count in source.splits.items():
            ids = None if subset is None else subset[split]
            blocks = source.blocks(split, ids, block_size)
            looks = map_resumably(partial(_look_at_block, max_megapixels), blocks, kept / split, map_blocks)
            total = count if ids is None else len(ids)
            with tqdm(total=total, desc=f"look at {split}", unit="image", disable=None) as progress:
                for found in looks:
                    rows += [row | {"source_split": split} for row in found]
                    progress.update(len(found))
    findings = pd.DataFrame(rows, columns=list(COLUMNS))
    _check_labels(findings, len(source.class_names))
    findings["class_name"] = [source.class_names[label] for label in findings["label"]]
    findings["group"] = [source.groups.get(id_, "") for id_ in findings["id"]]
    return exclude_duplicates(findings)


def choose_subset(source: Source, dataset: DatasetParameters, seed: int) -> dict[str, set[str]] | None:
    """Choose ids of each split by ``dataset.fraction`` or ``dataset.max_per_class``; ``None`` means all images.

    Every class keeps at least one image.
    """
    if dataset.fraction is None and dataset.max_per_class is None:
        return None
    generator = np.random.default_rng(seed)
    subset = {}
    for split in source.splits:
        listing = pd.DataFrame(source.labels(split), columns=["id", "label"])
        kept: set[str] = set()
        for _, ids in listing.groupby("label")["id"]:
            wanted = dataset.max_per_class or max(1, round((dataset.fraction or 1) * len(ids)))
            kept.update(generator.permutation(ids.to_numpy(str))[:wanted].tolist())
        subset[split] = kept
    return subset


def _look_at_block(max_megapixels: float, images: Block) -> list[dict[str, Any]]:
    return list(map_in_threads(partial(look, max_megapixels=max_megapixels), images))


def look(image: EncodedImage, max_megapixels: float) -> dict[str, Any]:
    """Describe one image and its fault, if any, as a row of :func:`inspect_images`. Never raises."""
    row = {"id": image.id, "label": image.label, "format": "", "mode": "", "width": 0, "height": 0}
    row |= {"sha256": "", "perceptual_hash": "", "excluded": ""}
    try:
        with image.open() as stream:
            row["sha256"] = hashlib.file_digest(stream, "sha256").hexdigest()
            if stream.seek(0, os.SEEK_END) == 0:
                return row | {"excluded": "empty: the file has no bytes"}
            stream.seek(0)
            return row | _look_inside(stream, max_megapixels)
    except OSError as error:
        return row | {"excluded": f"unreadable: {error.strerror or error}"}


def _look_inside(stream: BinaryIO, max_megapixels: float) -> dict[str, Any]:
    try:
        opened = open_image(stream)
    except UNREADABLE as error:
        return {"excluded": why_unreadable(error)}
    with opened:
        width, height = opened.size
        found: dict[str, Any] = {"format": opened.format, "mode": opened.mode, "width": width, "height": height}
        if reason := why_unfit(opened.size, max_megapixels):
            return found | {"excluded": reason}
        try:
            return found | _look_at_pixels(opened)
        except UNREADABLE as error:
            return found | {"excluded": f"truncated: {error}"}


def _look_at_pixels(opened) -> dict[str, Any]:
    import imagehash

    opened.load()
    image = upright_rgb(opened)
    found = {"width": image.width, "height": image.height}
    # The hash needs 32 × 32 pixels. Its own filter takes longer for a photograph than decoding does.
    small = image.resize((64, 64), Image.Resampling.BOX, reducing_gap=2.0)
    if _single_colour(small) and _single_colour(image):
        return found | {"excluded": "single_colour: every pixel is the same"}
    return found | {"perceptual_hash": str(imagehash.phash(small))}


def _single_colour(image: Image.Image) -> bool:
    return all(low == high for low, high in image.getextrema())  # type: ignore[misc]  # RGB has three pairs


def _check_labels(findings: pd.DataFrame, num_classes: int) -> None:
    wrong = findings[~findings["label"].between(0, num_classes - 1)]
    if len(wrong):
        listed = [f"{row.id} ({row.label})" for row in wrong.itertuples()]
        raise InputError(
            f"The set has {counted(len(wrong), 'image')} whose label is not a class: {shorten(listed)}. Many sets "
            "mark an unlabelled test split this way. Choose another split with dataset.test_split."
        )


def kinds(excluded: pd.Series) -> Iterator[tuple[str, pd.Series]]:
    """Rows by kind of fault, in the order in which the kinds first appear."""
    faulty = excluded[excluded != ""]
    yield from faulty.groupby(kind_of(faulty), sort=False)


def kind_of(excluded: pd.Series) -> pd.Series:
    """The kind of fault at the start of each reason."""
    return excluded.str.split(":").str[0]
