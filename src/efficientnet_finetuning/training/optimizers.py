"""The optimizer of a training: its schedule, its decay, and lower learning rates for lower stages."""

import math
from collections.abc import Sequence
from typing import TypeAlias

import keras

from efficientnet_finetuning.models.heads import stage_of
from efficientnet_finetuning.parameters import SettledTrainingParameters

_OPTIMIZERS = {
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
    "rmsprop": keras.optimizers.RMSprop,
}


Schedule: TypeAlias = keras.optimizers.schedules.LearningRateSchedule | float


def build_schedule(parameters: SettledTrainingParameters, steps_per_epoch: int) -> Schedule:
    """The learning rate over all steps of a training; ``parameters.learning_rate`` is a number.

    Where a time budget takes the place of the epochs nobody knows the steps: the clock sets the rate (:func:`rate_at`).
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
    """The learning rate when a share (0–1) of the training is over, as :func:`build_schedule` has it step by step."""
    assert not isinstance(parameters.learning_rate, str)
    if parameters.schedule == "constant":
        return parameters.learning_rate
    warmup = parameters.warmup_fraction
    if share < warmup:
        return parameters.learning_rate * share / warmup
    cosine = 1.0 + math.cos(math.pi * (share - warmup) / max(1.0 - warmup, 1e-9))
    return parameters.learning_rate * 0.5 * cosine if share < 1 else 0.0


def build_optimizer(model: keras.Model, parameters: SettledTrainingParameters, schedule: Schedule) -> keras.Optimizer:
    """The optimizer that the parameters describe, built for what ``model`` trains.

    Args:
        model: a classifier's network with its layers frozen or not; layers are named after their blocks.
        parameters: of the training.
        schedule: of the learning rate, as :func:`build_schedule` makes it.
    """
    shares = stage_shares(model, parameters.stage_decay)
    options = {"momentum": 0.9} if parameters.optimizer == "sgd" else {}
    starts = _starts(model) if parameters.start_decay else [None] * len(shares)
    kind = _with_shares(_OPTIMIZERS[parameters.optimizer], shares, starts, parameters.start_decay)
    optimizer = kind(schedule, weight_decay=parameters.weight_decay, **options)
    # Decay pulls weights to zero, which is where neither a bias nor a scale wants to be.
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    # Left to `fit`, the optimizer's variables appear while TensorFlow traces the first step, which it then traces
    # once more: half a minute on two cores.
    optimizer.build(model.trainable_variables)
    return optimizer


def stage_shares(model: keras.Model, stage_decay: float) -> list[float]:
    """The share of the learning rate that each of ``model.trainable_variables`` gets: 1 in the head.

    A stage gets ``stage_decay`` times what the one above it gets: what lies near the pixels is general already.
    Source: discriminative fine-tuning, Howard and Ruder 2018 (arXiv:1801.06146), by stages instead of layers, so that
    one number means the same for deep and shallow networks.
    """
    stages = list(dict.fromkeys(stage_of(layer) for layer in model.layers if layer.trainable_variables))
    return [
        stage_decay ** (len(stages) - 1 - stages.index(stage_of(layer)))
        for layer in model.layers
        for _ in layer.trainable_variables
    ]


def _starts(model: keras.Model) -> list:
    """What each of ``model.trainable_variables`` is now; ``None`` for the head's, which have nothing to forget."""
    return [
        None if stage_of(layer) == "logits" else keras.ops.copy(variable)
        for layer in model.layers
        for variable in layer.trainable_variables
    ]


def _with_shares(
    optimizer: type[keras.Optimizer], shares: Sequence[float], starts: Sequence, start_decay: float
) -> type[keras.Optimizer]:
    """An optimizer with a share of the learning rate for each variable, and a decay towards where it started.

    The decay is L2-SP (Li et al. 2018, arXiv:1802.01483), decoupled from the gradient as AdamW's is from it.
    """

    class WithShares(optimizer):
        def update_step(self, gradient, variable, learning_rate):
            # As Keras' own optimizers find their state: TensorFlow's variables that come here have no path.
            index = self._get_variable_index(variable)
            rate = learning_rate * shares[index]
            if starts[index] is not None:
                self.assign_sub(variable, rate * start_decay * (variable - starts[index]))
            super().update_step(gradient, variable, rate)

    return WithShares
