"""Optimizer and learning-rate schedule, with lower rates for lower stages."""

import math
from collections.abc import Sequence
from typing import TypeAlias

import keras

from efficientnet_finetuning.models.heads import stage_of
from efficientnet_finetuning.parameters import SettledTrainingParameters

_OPTIMIZERS = {"adamw": keras.optimizers.AdamW, "sgd": keras.optimizers.SGD, "rmsprop": keras.optimizers.RMSprop}

Schedule: TypeAlias = keras.optimizers.schedules.LearningRateSchedule | float


def build_schedule(parameters: SettledTrainingParameters, steps_per_epoch: int) -> Schedule:
    """The learning-rate schedule over all steps; ``parameters.learning_rate`` must be a number.

    With a time budget, the number of steps is unknown, so the training sets the rate by the clock (:func:`rate_at`).
    """
    assert not isinstance(parameters.learning_rate, str)
    if parameters.schedule == "constant" or parameters.time_budget_minutes is not None:
        return parameters.learning_rate
    steps = steps_per_epoch * parameters.epochs
    warmup_steps = round(parameters.warmup_fraction * steps)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_steps else parameters.learning_rate,
        decay_steps=max(steps - warmup_steps, 1),
        warmup_target=parameters.learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )


def rate_at(parameters: SettledTrainingParameters, share: float) -> float:
    """The learning rate after a share (0–1) of the training, with the same shape as :func:`build_schedule`."""
    assert not isinstance(parameters.learning_rate, str)
    if parameters.schedule == "constant":
        return parameters.learning_rate
    warmup = parameters.warmup_fraction
    if share < warmup:
        return parameters.learning_rate * share / warmup
    cosine = 1.0 + math.cos(math.pi * (share - warmup) / max(1.0 - warmup, 1e-9))
    return parameters.learning_rate * 0.5 * cosine if share < 1 else 0.0


def build_optimizer(model: keras.Model, parameters: SettledTrainingParameters, schedule: Schedule) -> keras.Optimizer:
    """The optimizer for the trainable variables of ``model``, whose layers are named after their blocks."""
    shares = stage_shares(model, parameters.stage_decay)
    options = {"momentum": 0.9} if parameters.optimizer == "sgd" else {}
    starts = _starts(model) if parameters.start_decay else [None] * len(shares)
    kind = _with_shares(_OPTIMIZERS[parameters.optimizer], shares, starts, parameters.start_decay)
    optimizer = kind(schedule, weight_decay=parameters.weight_decay, **options)
    # Weight decay is not useful for biases and scales.
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    # Otherwise `fit` creates the variables while TensorFlow traces the first step, which must then be traced again:
    # half a minute on two cores.
    optimizer.build(model.trainable_variables)
    return optimizer


def stage_shares(model: keras.Model, stage_decay: float) -> list[float]:
    """The factor of the learning rate for each of ``model.trainable_variables``: 1 in the head.

    Each stage has ``stage_decay`` times the rate of the stage above, because lower stages are more general. Source:
    discriminative fine-tuning, Howard and Ruder 2018 (arXiv:1801.06146), by stages instead of layers, so that the
    factor means the same in deep and shallow networks.
    """
    stages = list(dict.fromkeys(stage_of(layer) for layer in model.layers if layer.trainable_variables))
    return [
        stage_decay ** (len(stages) - 1 - stages.index(stage_of(layer)))
        for layer in model.layers
        for _ in layer.trainable_variables
    ]


def _starts(model: keras.Model) -> list:
    """Copies of ``model.trainable_variables``; ``None`` for those of the head."""
    return [
        None if stage_of(layer) == "logits" else keras.ops.copy(variable)
        for layer in model.layers
        for variable in layer.trainable_variables
    ]


def _with_shares(
    optimizer: type[keras.Optimizer], shares: Sequence[float], starts: Sequence, start_decay: float
) -> type[keras.Optimizer]:
    """An optimizer class with a learning-rate factor per variable and decay towards the initial weights.

    The decay is L2-SP (Li et al. 2018, arXiv:1802.01483), decoupled from the gradient as in AdamW.
    """

    class WithShares(optimizer):
        def update_step(self, gradient, variable, learning_rate):
            # As in Keras' optimizers, because TensorFlow variables have no path here.
            index = self._get_variable_index(variable)
            rate = learning_rate * shares[index]
            if starts[index] is not None:
                self.assign_sub(variable, rate * start_decay * (variable - starts[index]))
            super().update_step(gradient, variable, rate)

    return WithShares
