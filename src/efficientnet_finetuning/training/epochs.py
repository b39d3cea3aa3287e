"""The epochs of a training: the part of it that several ranks may share."""

import logging
import sys
import time
from typing import NamedTuple

import keras
import numpy as np

from efficientnet_finetuning.errors import counted
from efficientnet_finetuning.parameters import SettledTrainingParameters
from efficientnet_finetuning.training.batches import Batches
from efficientnet_finetuning.training.checkpoint import Checkpoints, Signals
from efficientnet_finetuning.training.optimizers import build_schedule
from efficientnet_finetuning.training.progress import Progress
from efficientnet_finetuning.training.ranks import Ranks
from efficientnet_finetuning.training.rules import class_weights
from efficientnet_finetuning.training.step import compile_for

logger = logging.getLogger(__name__)


class Course(NamedTuple):
    """What :func:`run_epochs` returns: see :class:`~efficientnet_finetuning.training.progress.Progress`."""

    rows: list[dict[str, float]]
    kept_epoch: int
    kept_weights: list[np.ndarray]


def run_epochs(
    network: keras.Model,
    batches: Batches,
    validation: Batches,
    parameters: SettledTrainingParameters,
    checkpoints: Checkpoints | None,
    spent: float,
    rate_is_given: bool,
    *,
    signals: Signals,
    ranks: Ranks | None = None,
) -> Course:
    """Train a network from its start or from its newest checkpoint to its end.

    Args:
        network: as it is trained, from inputs to logits.
        batches: of the training.
        validation: of the validation images.
        parameters: of the training, the learning rate a number.
        checkpoints: where to keep them; ``None``: nowhere.
        spent: seconds that the training has taken before.
        rate_is_given: whether the user chose the learning rate, so that advice about it is of use.
        signals: those that wait for the end of a step.
        ranks: the processes that share each batch; all of them call this with the same arguments.
    """
    ranks = ranks or Ranks()
    weights = class_weights(batches.labels, parameters.class_weight)
    if weights:
        logger.debug("class weights: balanced, %.2g to %.2g", min(weights.values()), max(weights.values()))
    if ranks.count > 1:
        # Where BatchNorm learns its statistics, blank images would enter them, so none are added.
        batches.share(ranks, pad=parameters.freeze_batch_norm, class_weights=weights)
        validation.share(ranks, pad=True)
        weights = None  # Keras takes one kind of weights or the other
        if left_out := 0 if parameters.freeze_batch_norm else len(batches.labels) % ranks.count:
            logger.info(
                "each epoch leaves out %s, different ones each time, to give all workers equal shares",
                counted(left_out, "image"),
            )
    compile_for(network, parameters, build_schedule(parameters, batches.all_batches))
    if keras.backend.backend() == "jax":
        # Otherwise Keras builds the metrics with the first batch of a training, and serves the rest out of order.
        network.test_on_batch(*validation[0])
    progress = Progress(parameters, batches, checkpoints, signals, time.monotonic() - spent, rate_is_given, ranks)
    progress.set_model(network)
    progress.begin(validation)
    while not progress.is_over:
        # Here too, since Keras on JAX prepares batches before it says that an epoch begins.
        epoch = batches.epoch = progress.epoch
        network.fit(
            batches,
            initial_epoch=epoch,
            # An epoch that began in an earlier process is shorter than the others.
            epochs=epoch + 1 if batches.skipped else progress.last_epoch,
            validation_data=validation,
            callbacks=[progress],
            class_weight=weights,
            shuffle=False,  # the batches are shuffled already, by the seed; Keras would draw from a global state
            verbose=1 if sys.stdout.isatty() else 0,
        )
        batches.skipped = 0
    return Course(progress.rows, progress.kept_epoch, progress.kept_weights)
