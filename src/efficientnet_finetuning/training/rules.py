"""Rules for the ``auto`` parameters of a fine-tuning, which depend on the number of images.

They were measured with ``tests/benchmarks/levers.py`` (thousands of images) and ``sizes.py`` (few images).
"""

import logging
import math
from typing import Any

import numpy as np

from efficientnet_finetuning.parameters import SettledTrainingParameters, TrainingParameters

logger = logging.getLogger(__name__)

# With fewer held-out images, a choice by their accuracy is random: one of 22 images is 4.5 points.
ENOUGH_TO_CHOOSE_BY = 200
_STEPS, _LEAST_EPOCHS, _MOST_EPOCHS = 200, 3, 30
_LARGE = 1_200
_START_LOSS = 0.8
_START_DECAY = 50.0
_LEARNT = 0.01


def apply_rules(parameters: TrainingParameters, num_train: int, num_validation: int) -> SettledTrainingParameters:
    """The parameters with a number for each ``auto``.

    Below 1,200 training images: batches of 16, about 200 steps but at most 30 epochs, a rate of 2e-4, flattened initial
    logits, decay towards the initial weights, and an end at a loss below 0.01. Above: batches of 32, three epochs,
    6e-4.

    Args:
        parameters: of the training.
        num_train: training images.
        num_validation: validation images; 0 if no epoch is to be chosen.
    """
    batch_size = parameters.batch_size
    if batch_size == "auto":
        batch_size = 16 if num_train < _LARGE else 32
    can_choose = parameters.early_stopping_patience or num_validation >= ENOUGH_TO_CHOOSE_BY
    goes_by_steps = parameters.epochs == "auto" and parameters.time_budget_minutes is None
    rules: dict[str, Any] = {
        "batch_size": batch_size,
        "epochs": min(max(_LEAST_EPOCHS, _STEPS // math.ceil(num_train / batch_size)), _MOST_EPOCHS),
        "learning_rate": 2e-4 if num_train < _LARGE else 6e-4,
        "start_loss": _START_LOSS if num_train < _LARGE else None,
        "keep": "best" if can_choose else "last",
        "start_decay": _START_DECAY if num_train < _LARGE else 0.0,
        "stop_at_loss": _LEARNT if num_train < _LARGE and goes_by_steps else None,
    }
    chosen = {name: value for name, value in rules.items() if getattr(parameters, name) == "auto"}
    if chosen:
        told = ", ".join(f"{name} {value}" for name, value in chosen.items())
        validation = f" and {num_validation} validation" if num_validation else ""
        logger.debug("from %d training%s images: %s", num_train, validation, told)
    return SettledTrainingParameters(**dict(parameters) | chosen)


def class_weights(labels: np.ndarray, class_weight: str) -> dict[int, float] | None:
    """The weight of an image in the loss by label, from one-hot labels ``(N, num_classes)``; ``None`` if all are equal.

    ``balanced`` weights by the inverse frequency of the class, with a mean of one over all images.
    """
    if class_weight == "none":
        return None
    counts = labels.sum(axis=0, dtype=np.int64)
    return dict(enumerate((len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))).tolist()))
