"""Small prepared TensorFlow Datasets sets, written to disk as TFDS itself writes them."""

import colorsys
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


def encode(image: Image.Image | np.ndarray, file_format: str = "PNG") -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, file_format)
    return buffer.getvalue()


def write_set(
    folder: Path,
    name: str,
    version: str,
    features: Mapping[str, Any],
    splits: Mapping[str, Sequence[dict[str, Any]]],
    supervised_keys: tuple[str, str] | None = ("image", "label"),
    examples_per_shard: int = 1000,
) -> Path:
    """Write a prepared set below ``folder``, which then serves as ``dataset.data_dir``.

    Args:
        folder: receives ``<name>/<version>/``.
        features: of the set, by name.
        splits: examples by split, stored in the order given.

    Returns:
        The folder of the version.
    """
    directory = Path(folder) / name / version
    directory.mkdir(parents=True)
    identity = tfds.core.DatasetIdentity(
        name=name, version=tfds.core.Version(version), data_dir=str(directory), module_name=name
    )
    info = tfds.core.DatasetInfo(
        builder=identity, features=tfds.features.FeaturesDict(features), supervised_keys=supervised_keys
    )
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=examples_per_shard)
    writer.initialize_splits(list(splits))
    writer.add_examples(dict(splits))
    writer.close_all()
    return directory


def write_stanford_dogs(
    folder: Path, images_per_class_train: int, images_per_class_test: int, num_classes: int = 120
) -> Path:
    """Write a small set with the name, version, splits and features of ``stanford_dogs``.

    A class is a hue, so that it can be learnt; the sides of the images vary from 40 to 100 pixels.

    Args:
        folder: serves as ``dataset.data_dir`` afterwards.
        num_classes: fewer than the 120 breeds make a smaller set.

    Returns:
        The folder of the version.
    """
    breeds = [f"n{2085620 + index:08d}-breed_{index}" for index in range(num_classes)]
    generator = np.random.default_rng(0)

    def example(label: int, number: int) -> dict[str, Any]:
        height, width = generator.integers(40, 101, 2)
        colour = np.multiply(255, colorsys.hsv_to_rgb(label / num_classes, 0.9, 0.8))
        pixels = (colour + generator.normal(0, 12, (height, width, 3))).clip(0, 255).astype(np.uint8)
        box = {"bbox": tfds.features.BBox(ymin=0.1, xmin=0.2, ymax=0.9, xmax=0.8)}
        return {
            "image": io.BytesIO(encode(pixels, "JPEG")),
            "image/filename": f"{breeds[label].split('-')[0]}_{number}.jpg",
            "label": label,
            "objects": [box] * (1 + number % 2),
        }

    def examples(images_per_class: int) -> list[dict[str, Any]]:
        labels = generator.permutation(np.repeat(np.arange(num_classes), images_per_class))
        return [example(int(label), number) for number, label in enumerate(labels)]

    features = {
        "image": tfds.features.Image(),
        "image/filename": tfds.features.Text(),
        "label": tfds.features.ClassLabel(names=breeds),
        "objects": tfds.features.Sequence({"bbox": tfds.features.BBoxFeature()}),
    }
    splits = {"train": examples(images_per_class_train), "test": examples(images_per_class_test)}
    return write_set(folder, "stanford_dogs", "0.2.0", features, splits)
