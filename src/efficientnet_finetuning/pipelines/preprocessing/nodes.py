"""Preprocessing: decode, resize and one-hot encode images once."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.data.prepare import prepare
from efficientnet_finetuning.data.sources import Source
from efficientnet_finetuning.data.splits import SPLITS
from efficientnet_finetuning.evaluation.pictures import image_grid
from efficientnet_finetuning.parameters import (
    BackboneParameters,
    PreprocessingParameters,
    TrainingParameters,
    image_size,
)
from efficientnet_finetuning.training.checkpoint import Checkpoints
from efficientnet_finetuning.workers import Workers

_GRID_SIZE = 9


def prepare_images(
    source: Source,
    manifest: pd.DataFrame,
    class_names: list[str],
    preprocessing: PreprocessingParameters,
    backbone: BackboneParameters,
    checkpoints: Checkpoints | None,
    workers: Workers,
) -> tuple[Examples, ...]:
    """Prepare train, validation and test images."""
    return tuple(
        prepare(
            source,
            manifest,
            len(class_names),
            split,
            image_size=image_size(preprocessing, backbone),
            **preprocessing.model_dump(exclude={"image_size"}),
            folder=checkpoints.folder if checkpoints else None,
            map_blocks=workers.map_blocks,
        )
        for split in SPLITS
    )


def plot_samples(train_images: Examples, class_names: list[str], seed: int) -> Figure:
    """Nine training images with their labels."""
    images, labels = train_images.arrays
    rows = np.random.default_rng(seed).permutation(len(images))[:_GRID_SIZE]
    titles = [class_names[label] for label in labels[rows].argmax(1)]
    return image_grid(images[rows], titles, "Nine training images")


def plot_augmentations(
    train_images: Examples, class_names: list[str], training: TrainingParameters, seed: int
) -> Figure:
    """Nine augmentations of one training image, as in fine-tuning."""
    from efficientnet_finetuning.training.augmentation import Augmentation

    images, labels = train_images.arrays
    row = int(np.random.default_rng(seed).integers(len(images)))
    changed = Augmentation(training.augmentation)(np.repeat(images[row : row + 1], _GRID_SIZE, axis=0), seed)
    heading = f"Nine augmentations of one image ({class_names[labels[row].argmax()]})"
    return image_grid(changed, [""] * _GRID_SIZE, heading)
