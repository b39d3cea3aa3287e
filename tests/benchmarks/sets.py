"""The sets on which levers are measured, as arrays: photographs (CIFAR-10) and drawn images."""

from pathlib import Path

import numpy as np
import pandas as pd
from drawn import CLASSES, PER_CLASS, drawn_arrays

from efficientnet_finetuning.data.prepare import prepare
from efficientnet_finetuning.data.sources import open_source
from efficientnet_finetuning.parameters import DatasetParameters

SETS = ("cifar10", "drawn")
SIDE = 96
# First image and number of images, all of CIFAR-10's training split: the test split is for reports alone.
CIFAR10 = {"train": (5_000, 2_000), "validation": (10_000, 2_000)}

Arrays = dict[str, tuple[np.ndarray, np.ndarray]]


def load_arrays(name: str, data_dir: Path | None, most: int | None, cache: Path | None) -> Arrays:
    """Images and labels of ``train`` and ``validation``.

    Args:
        name: one of ``SETS``.
        data_dir: folder with the prepared TFDS set, which ``drawn`` does not need.
        most: images of each split at most, evenly from the classes where they are drawn; ``None``: all.
        cache: folder that keeps the arrays for the next time; ``None``: nowhere.

    Returns:
        By split: uint8 ``(N, SIDE, SIDE, 3)`` and one-hot uint8 ``(N, classes)``.
    """
    if cache is None:
        return _make(name, data_dir, most)
    folder = cache / f"{name}-{most or 'all'}"
    if not folder.is_dir():
        partial = folder.with_suffix(".partial")
        partial.mkdir(parents=True, exist_ok=True)
        for split, (images, labels) in _make(name, data_dir, most).items():
            np.save(partial / f"{split}_images.npy", images)
            np.save(partial / f"{split}_labels.npy", labels)
        partial.rename(folder)
    return {
        split: (np.load(folder / f"{split}_images.npy"), np.load(folder / f"{split}_labels.npy"))
        for split in ("train", "validation")
    }


def _make(name: str, data_dir: Path | None, most: int | None) -> Arrays:
    if name == "cifar10":
        return _cifar10(data_dir, most)
    each = max(PER_CLASS.values()) if most is None else max(most // len(CLASSES), 1)
    return drawn_arrays(SIDE, {split: min(PER_CLASS[split], each) for split in ("train", "validation")})


def _cifar10(data_dir: Path | None, most: int | None) -> Arrays:
    parts = {
        f"{split}_split": f"train[{first}:{first + min(count, most or count)}]"
        for split, (first, count) in CIFAR10.items()
    }
    source = open_source(DatasetParameters(name="cifar10", data_dir=data_dir, download=False, **parts))
    arrays = {}
    for split in CIFAR10:
        manifest = pd.DataFrame(source.labels(split), columns=["id", "label"]).assign(split=split, source_split=split)
        examples = prepare(source, manifest, len(source.class_names), split, image_size=SIDE)
        arrays[split] = np.stack(list(examples.images)), examples.labels
    return arrays
