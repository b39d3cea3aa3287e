"""The epochs of a training: the part that several ranks may share."""

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
    """The result of :func:`run_epochs`: see :class:`~efficientnet_finetuning.training.progress.Progress`."""

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
    """Train a network from the start, or from its newest checkpoint.

    Args:
        network: from inputs to logits.
        batches: training batches.
        validation: validation batches.
        parameters: of the training, with a number as learning rate.
        checkpoints: where to store them; ``None``: nowhere.
        spent: seconds that preparing the training took.
        rate_is_given: whether the user chose the learning rate, and so needs advice about it.
        signals: requests to stop.
        ranks: the processes that share each batch. All call this with the same arguments.
    """
    ranks = ranks or Ranks()
    weights = class_weights(batches.labels, parameters.class_weight)
    if weights:
        logger.debug("class weights: balanced, %.2g to %.2g", min(weights.values()), max(weights.values()))
    if ranks.count > 1:
        # Blank images would change the statistics of BatchNorm while it learns them.
        batches.share(ranks, pad=parameters.freeze_batch_norm, class_weights=weights)
        validation.share(ranks, pad=True)
        weights = None  # Keras accepts only one kind of weights
        if left_out := 0 if parameters.freeze_batch_norm else len(batches.labels) % ranks.count:
            logger.info(
                "Each epoch skips %s, so that all workers get equal shares. Each time these are other images.",
                counted(left_out, "image"),
            )
    compile_for(network, parameters, build_schedule(parameters, batches.all_batches))
    if keras.backend.backend() == "jax":
        # Builds the metrics. Otherwise Keras uses the first training batch for that, and changes the order.
        network.test_on_batch(*validation[0])
    progress = Progress(parameters, batches, checkpoints, signals, time.monotonic() - spent, rate_is_given, ranks)
    progress.set_model(network)
    progress.begin(validation)
    while not progress.is_over:
        # Set here, because Keras with JAX prepares batches before it calls on_epoch_begin.
        epoch = batches.epoch = progress.epoch
        network.fit(
            batches,
            initial_epoch=epoch,
            # An epoch that was begun by an earlier process has fewer batches.
            epochs=epoch + 1 if batches.skipped else progress.last_epoch,
            validation_data=validation,
            callbacks=[progress],
            class_weight=weights,
            shuffle=False,  # Batches are already shuffled by the seed
            verbose=1 if sys.stdout.isatty() else 0,
        )
        batches.skipped = 0
    return Course(progress.rows, progress.kept_epoch, progress.kept_weights)
