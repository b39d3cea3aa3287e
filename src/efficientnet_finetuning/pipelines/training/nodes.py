"""Training from a start to a classifier: the baseline from random weights, fine-tuning from transfer."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.device import device_name, peak_memory
from efficientnet_finetuning.evaluation.calibration import fit_temperature
from efficientnet_finetuning.evaluation.figures import learning_rate_curve
from efficientnet_finetuning.models.classifier import TrainedClassifier
from efficientnet_finetuning.parameters import (
    BackboneParameters,
    DeviceParameters,
    PreprocessingParameters,
    TrainingParameters,
    image_size,
)
from efficientnet_finetuning.training.checkpoint import Checkpoints
from efficientnet_finetuning.workers import Workers

logger = logging.getLogger(__name__)


def build_random_start(
    class_names: list[str],
    backbone: BackboneParameters,
    preprocessing: PreprocessingParameters,
    device: DeviceParameters,
    training: TrainingParameters,
    seed: int,
) -> TrainedClassifier:
    """Build the network with random weights."""
    random = backbone.model_copy(update={"weights": "none"})
    return build_seed_start(class_names, random, preprocessing, device, training, seed, head_batch_norm=False)


def build_seed_start(
    class_names: list[str],
    backbone: BackboneParameters,
    preprocessing: PreprocessingParameters,
    device: DeviceParameters,
    training: TrainingParameters,
    seed: int,
    head_batch_norm: bool = True,
) -> TrainedClassifier:
    """Build the Keras example's network: a pretrained backbone and a random head with BatchNorm and dropout."""
    from efficientnet_finetuning.models.backbones import build_backbone
    from efficientnet_finetuning.models.heads import attach_head

    size = image_size(preprocessing, backbone)
    network = build_backbone(backbone.name, size, backbone.weights, dtype_policy=device.dtype_policy, seed=seed)
    model = attach_head(network, len(class_names), training.head_dropout, head_batch_norm)
    return TrainedClassifier.of(model, class_names, backbone, preprocessing)


def find_learning_rate(
    start: TrainedClassifier, train_images: Examples, class_names: list[str], training: TrainingParameters, seed: int
) -> pd.DataFrame:
    """Loss by learning rate, over a short training whose weights are discarded."""
    from efficientnet_finetuning.training.learning_rate import find_learning_rate as find

    start.check_fits(train_images.images.shape[1], class_names)
    return pd.DataFrame(find(start.model, start.backbone, train_images.arrays, training, seed))


def plot_learning_rates(learning_rates: pd.DataFrame, class_names: list[str], training: TrainingParameters) -> Figure:
    """Plot the finder's curve, and log its suggestion beside the parameter."""
    from efficientnet_finetuning.training.learning_rate import suggest_learning_rate

    suggested = suggest_learning_rate(learning_rates.to_dict("records"), len(class_names))
    logger.info(
        "learning rate: the finder suggests %.2g, training.learning_rate is %s", suggested, training.learning_rate
    )
    return learning_rate_curve(learning_rates, suggested)


def train_classifier(
    start: TrainedClassifier,
    train_images: Examples,
    validation_images: Examples,
    class_names: list[str],
    training: TrainingParameters,
    flip: bool,
    seed: int,
    checkpoints: Checkpoints | None,
    workers: Workers,
) -> tuple[TrainedClassifier, dict[str, np.ndarray], pd.DataFrame]:
    """Train from a start, and keep the best or the last weights.

    Returns:
        The classifier; ``logits``, ``labels`` and ``ids`` of the validation images; and the history.
    """
    from efficientnet_finetuning.training.fit import fit

    start.check_fits(train_images.images.shape[1], class_names)
    splits = (train_images.arrays, validation_images.arrays)
    trained = fit(start.model, start.backbone, *splits, training, seed, checkpoints, workers, flip=flip)
    held_out = {"logits": trained.validation_logits, "labels": validation_images.labels, "ids": validation_images.ids}
    classifier = replace(
        start,
        model=trained.model,
        class_weight=training.class_weight,
        flip=flip,
        temperature=fit_temperature(held_out["logits"], held_out["labels"]),
    )
    about: dict[str, Any] = {
        "class_weight": training.class_weight,
        "device": workers.device or device_name(),
        "peak_memory_gb": peak_memory() / 1e9,
    }
    return classifier, held_out, pd.DataFrame(trained.history).assign(**about)
