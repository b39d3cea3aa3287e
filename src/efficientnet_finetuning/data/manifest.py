"""The manifest: one row an image, from a look at every image's header."""

import hashlib
import io

import pandas as pd
from PIL import Image
from tqdm import tqdm

from efficientnet_finetuning.data.prepare import UNREADABLE
from efficientnet_finetuning.data.sources import EncodedImage, Source
from efficientnet_finetuning.data.splits import assign_splits
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import DatasetParameters


def build_manifest(source: Source, dataset: DatasetParameters, seed: int) -> pd.DataFrame:
    """Look at every image once and put it into a split.

    Args:
        source: the images.
        dataset: the fractions to cut where the source lacks a split.
        seed: of the cut.

    Returns:
        One row an image in the source's order: ``id``, ``source_split`` (where the source keeps it), ``split``
        (``train``, ``validation`` or ``test``), ``label`` (index), ``class_name``, ``width`` and ``height`` in pixels,
        ``sha256`` of the encoded image.

    Raises:
        InputError: an image is not one, or a class would be missing from a split.
    """
    rows, broken, unlabelled = [], [], []
    for split, count in source.splits.items():
        for image in tqdm(source.images(split), total=count, desc=f"look at {split}", unit="image", disable=None):
            try:
                width, height = _size(image)
            except UNREADABLE as error:
                broken.append(f"{image.id} ({error})")
                continue
            if not 0 <= image.label < len(source.class_names):
                unlabelled.append(f"{image.id} ({image.label})")
            rows.append((image.id, split, image.label, width, height, hashlib.sha256(image.encoded).hexdigest()))
    if broken:
        raise InputError(
            f"{len(broken)} image(s) cannot be read: {'; '.join(broken[:10])}{'; …' if len(broken) > 10 else ''}. "
            "Mend them or take them out of the set."
        )
    if unlabelled:
        raise InputError(
            f"{len(unlabelled)} image(s) have a label that is no class: {', '.join(unlabelled[:10])}"
            f"{', …' if len(unlabelled) > 10 else ''}. Many sets mark an unlabelled test split so: choose another one "
            "with dataset.test_split."
        )
    manifest = pd.DataFrame(rows, columns=["id", "source_split", "label", "width", "height", "sha256"])
    manifest.insert(2, "split", manifest["source_split"])
    manifest = assign_splits(manifest, source.class_names, dataset.validation_fraction, dataset.test_fraction, seed)
    manifest.insert(4, "class_name", [source.class_names[label] for label in manifest["label"]])
    return manifest


def _size(image: EncodedImage) -> tuple[int, int]:
    with Image.open(io.BytesIO(image.encoded)) as opened:
        return opened.size
