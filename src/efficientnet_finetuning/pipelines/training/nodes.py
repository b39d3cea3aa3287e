"""Training: from a start to a classifier. The baseline starts from random weights, fine-tuning from transfer."""

from dataclasses import replace

import pandas as pd

from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.models.classifier import Classifier
from efficientnet_finetuning.parameters import (
    BackboneParameters,
    DeviceParameters,
    PreprocessingParameters,
    TrainingParameters,
    image_size,
)
from efficientnet_finetuning.training.checkpoint import Checkpoints


def build_random_start(
    class_names: list[str],
    backbone: BackboneParameters,
    preprocessing: PreprocessingParameters,
    device: DeviceParameters,
    training: TrainingParameters,
    seed: int,
) -> Classifier:
    """Build the same network with random weights."""
    from efficientnet_finetuning.models.backbones import build_backbone
    from efficientnet_finetuning.models.heads import attach_head

    size = image_size(preprocessing, backbone)
    network = build_backbone(backbone.name, size, "none", dtype_policy=device.dtype_policy, seed=seed)
    return Classifier(
        model=attach_head(network, len(class_names), training.head_dropout),
        class_names=tuple(class_names),
        backbone=backbone.name,
        image_size=size,
        **preprocessing.model_dump(exclude={"image_size"}),
    )


def train_classifier(
    start: Classifier,
    train_images: Examples,
    validation_images: Examples,
    class_names: list[str],
    training: TrainingParameters,
    seed: int,
    checkpoints: Checkpoints | None,
) -> tuple[Classifier, pd.DataFrame]:
    """Train from a start and keep the best weights by validation accuracy; returns the history too."""
    from efficientnet_finetuning.training.fit import fit

    start.check_fits(train_images.images.shape[1], class_names)
    images = (train_images.arrays, validation_images.arrays)
    model, history = fit(start.model, start.backbone, *images, training, seed, checkpoints)
    trained = replace(start, model=model, class_weight=training.class_weight)
    return trained, pd.DataFrame(history).assign(class_weight=training.class_weight)
