"""The learning-rate finder: a short training whose learning rate grows until the loss does."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from efficientnet_finetuning.parameters import TrainingParameters
from efficientnet_finetuning.training.augmentation import Augmentation
from efficientnet_finetuning.training.batches import Batches
from efficientnet_finetuning.training.step import class_weights, compile_for, prepare_network, unchanged

_LOWEST, _HIGHEST, _STEPS = 1e-6, 1.0, 100
_SMOOTHING = 0.9
_DIVERGED = 3.0


def find_learning_rate(
    model: keras.Model,
    backbone: str,
    train: tuple[np.ndarray, np.ndarray],
    parameters: TrainingParameters,
    seed: int,
) -> list[dict[str, float]]:
    """Sweep over the learning rates of a training that is not made; arguments as of ``fit``, rows as of ``sweep``."""
    keras.utils.set_random_seed(seed)
    network = prepare_network(model, backbone, parameters)
    augmentation = Augmentation(parameters.augmentation)
    batches = Batches(*train, parameters.batch_size, shuffle_seed=seed, augmentation=augmentation)
    return sweep(network, batches, parameters)


def sweep(network: keras.Model, batches: Batches, parameters: TrainingParameters) -> list[dict[str, float]]:
    """Train on batch after batch with a growing learning rate; the network's weights come back afterwards.

    Source: the range test of Smith 2015 (arXiv:1506.01186), exponential as in fastai.

    Args:
        network: as it is trained; compiled here.
        batches: of the training, used over again where they are few.
        parameters: of the training.

    Returns:
        One row a step until the loss has grown to three times its minimum: ``learning_rate``, ``loss`` of the batch,
        ``smoothed_loss``.
    """
    growth = keras.optimizers.schedules.ExponentialDecay(_LOWEST, _STEPS, _HIGHEST / _LOWEST)
    compile_for(network, parameters, growth)
    weights = class_weights(batches.labels, parameters.class_weight)
    rows: list[dict[str, float]] = []
    mean = 0.0
    with unchanged(network):
        for step in range(_STEPS):
            network.reset_metrics()
            images, labels = batches[step % batches.all_batches]
            loss = float(network.train_on_batch(images, labels, class_weight=weights)[0])
            mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
            smoothed = mean / (1 - _SMOOTHING ** (step + 1))
            if not np.isfinite(loss) or smoothed > _DIVERGED * min(
                (row["smoothed_loss"] for row in rows), default=smoothed
            ):
                break
            rows.append({"learning_rate": float(growth(step)), "loss": loss, "smoothed_loss": smoothed})
    return rows


def suggest_learning_rate(rows: Sequence[Mapping[Any, float]]) -> float:
    """A tenth of the learning rate at which the smoothed loss is lowest: there it is about to grow."""
    lowest = min(rows, key=lambda row: row["smoothed_loss"])
    return lowest["learning_rate"] / 10
