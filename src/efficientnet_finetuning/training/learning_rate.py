"""The learning-rate finder: a short training with a growing learning rate."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import SettledTrainingParameters, TrainingParameters
from efficientnet_finetuning.training.augmentation import Augmentation
from efficientnet_finetuning.training.batches import Batches
from efficientnet_finetuning.training.rules import apply_rules, class_weights
from efficientnet_finetuning.training.step import compile_for, flatten_logits, prepare_network, unchanged

_LOWEST, _HIGHEST, _STEPS = 1e-6, 1.0, 100
_SMOOTHING = 0.9
_SETTLED = round(1 / (1 - _SMOOTHING))
# Limits of the excess for falling, growing and ending the sweep, relative to the start's loss or, if it is lower, to a
# tenth of the loss of random guessing.
_DESCENT, _GROWN, _DIVERGED = 0.05, 0.1, 2.0


def find_learning_rate(
    model: keras.Model, backbone: str, train: tuple[np.ndarray, np.ndarray], parameters: TrainingParameters, seed: int
) -> list[dict[str, float]]:
    """Run a :func:`sweep` for a training; arguments as for ``fit``, rows as from :func:`sweep`."""
    keras.utils.set_random_seed(seed)
    settled = apply_rules(parameters.model_copy(update={"keep": "last"}), len(train[1]), num_validation=0)
    network = prepare_network(model, backbone, settled)
    flatten_logits(network, train, settled.start_loss)
    augmentation = Augmentation(settled.augmentation)
    batches = Batches(*train, settled.batch_size, shuffle_seed=seed, augmentation=augmentation)
    return sweep(network, batches, settled)


def sweep(network: keras.Model, batches: Batches, parameters: SettledTrainingParameters) -> list[dict[str, float]]:
    """Train with a learning rate that grows from batch to batch, then restore the weights.

    Each loss is compared with the start's loss on the same images, because the differences between batches would hide
    the small improvements of a fitted head. Source: the range test of Smith 2015 (arXiv:1506.01186), exponential as in
    fastai. The network is compiled here; few batches are repeated.

    Returns:
        One row per step, until the loss has grown by twice the start's: ``learning_rate``, ``loss`` of the batch,
        ``start_loss`` of the same images, and ``excess``: the smoothed difference.

    Raises:
        InputError: the loss is not finite in the first step.
    """
    growth = keras.optimizers.schedules.ExponentialDecay(_LOWEST, _STEPS, _HIGHEST / _LOWEST)
    compile_for(network, parameters, growth)
    weights = class_weights(batches.labels, parameters.class_weight)
    served = [batches[step % batches.all_batches] for step in range(_STEPS)]
    start_losses = [
        _loss(
            network.test_on_batch(images, labels, weights and labels @ np.array([*weights.values()], "float32")),
            network,
        )
        for images, labels in served
    ]
    scale = _scale(start_losses, batches.labels.shape[1])
    rows: list[dict[str, float]] = []
    mean = 0.0
    with unchanged(network):
        for step, ((images, labels), start_loss) in enumerate(zip(served, start_losses, strict=True)):
            loss = _loss(network.train_on_batch(images, labels, class_weight=weights), network)
            mean = _SMOOTHING * mean + (1 - _SMOOTHING) * (loss - start_loss)
            excess = mean / (1 - _SMOOTHING ** (step + 1))
            lowest = min((row["excess"] for row in rows[_SETTLED:]), default=excess)
            if not np.isfinite(loss) or excess - lowest > _DIVERGED * scale:
                break
            rows.append(
                {"learning_rate": float(growth(step)), "loss": loss, "start_loss": start_loss, "excess": excess}
            )
    if not rows:
        raise InputError(f"The loss is not finite at a learning rate of {_LOWEST:g}. The initial weights are damaged.")
    return rows


def suggest_learning_rate(rows: Sequence[Mapping[Any, float]], num_classes: int) -> float:
    """The suggested learning rate.

    If the loss falls, it is a tenth of the rate with the lowest excess, as usual. Else it is the last rate before the
    excess grows by a tenth of the start's loss. For a fitted head, 2,000 images of CIFAR-10 and of drawn letters and
    shapes (Lite0, 96 px, batches of 32, ``stage_decay`` 0.8), this gave 2.9e-4 and 3.3e-4, where 3e-4 to 6e-4 were best
    in three epochs. The usual rule gave 8e-6 and 1.4e-5, because the loss of a fitted head hardly falls.
    """
    settled = rows[_SETTLED:] or rows
    scale = _scale([row["start_loss"] for row in rows], num_classes)
    lowest = min(settled, key=lambda row: row["excess"])
    if lowest["excess"] < -_DESCENT * scale:
        return lowest["learning_rate"] / 10
    return max(row["learning_rate"] for row in settled if row["excess"] <= lowest["excess"] + _GROWN * scale)


def _scale(start_losses: Sequence[float], num_classes: int) -> float:
    return max(float(np.mean(start_losses)), 0.1 * math.log(num_classes))


def _loss(results: list[float], network: keras.Model) -> float:
    # The first result is the mean loss of all batches since the last reset.
    network.reset_metrics()
    return float(results[0])
