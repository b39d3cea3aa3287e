"""Train a classifier: the same function trains the baseline from random weights and fine-tunes a fitted head."""

import logging
import time
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.models.folding import unfold
from efficientnet_finetuning.models.freezing import frozen_blocks, split
from efficientnet_finetuning.models.heads import without_training_state
from efficientnet_finetuning.models.inference import predict
from efficientnet_finetuning.parameters import SettledTrainingParameters, TrainingParameters
from efficientnet_finetuning.storage import scratch_folder
from efficientnet_finetuning.training.activations import cache_activations
from efficientnet_finetuning.training.augmentation import Augmentation, Views
from efficientnet_finetuning.training.batches import Batches
from efficientnet_finetuning.training.checkpoint import Checkpoints, Deferred
from efficientnet_finetuning.training.epochs import run_epochs
from efficientnet_finetuning.training.learning_rate import suggest_learning_rate, sweep
from efficientnet_finetuning.training.refit import refit_head
from efficientnet_finetuning.training.rules import apply_rules
from efficientnet_finetuning.training.step import flatten_logits, prepare_network
from efficientnet_finetuning.workers import Workers

logger = logging.getLogger(__name__)


class Trained(NamedTuple):
    """The result of :func:`fit`.

    Attributes:
        model: from pixels to logits.
        history: one row per epoch with ``epoch`` (from 1), ``epochs`` (planned; an estimate with a time budget),
            ``learning_rate`` at its end, ``loss`` (with class weights, if any), ``accuracy``, ``val_loss``,
            ``val_accuracy`` (top-1, 0–1), ``images`` seen, ``seconds`` (including the work before the first and after
            the last epoch) and ``kept``: whether the model has its weights. No epoch is kept if the model has the
            start's weights.
        validation_logits: float32 ``(M, num_classes)``. If a new head was fitted, they come from a head that was fitted
            without the validation images.
    """

    model: keras.Model
    history: list[dict[str, float]]
    validation_logits: np.ndarray


def fit(
    model: keras.Model,
    backbone: str,
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    parameters: TrainingParameters,
    seed: int,
    checkpoints: Checkpoints | None = None,
    workers: Workers | None = None,
    *,
    flip: bool = False,
) -> Trained:
    """Train a copy of a classifier's network, and keep its best or its last weights (``parameters.keep``).

    Args:
        model: from pixels in 0–255 to logits, as made by :func:`~efficientnet_finetuning.models.heads.attach_head`.
        backbone: name of its architecture.
        train: uint8 images ``(N, size, size, 3)`` and one-hot labels ``(N, num_classes)``.
        validation: as ``train``.
        parameters: of the training.
        seed: of shuffling, augmentation and dropout.
        checkpoints: where to store them; an existing one is resumed. Delete them once the model is stored.
        workers: the processes that share the work; ``None``: only this one.
        flip: average the validation logits of each image and its mirror image.

    Raises:
        InputError: pixels are not in 0–255, the loss or a weight is no longer finite, the disk is full, or the workers
            cannot share a batch.
    """
    began = time.monotonic()
    workers = workers or Workers()
    check_pixels(train[0])
    keras.utils.set_random_seed(seed)
    rate_is_given = not isinstance(parameters.learning_rate, str)
    settled = apply_rules(parameters, len(train[1]), len(validation[1]))
    _check_shares(settled, workers)
    network = prepare_network(model, backbone, settled)
    flatten_logits(network, train, settled.start_loss)
    with scratch_folder(checkpoints.folder / "activations" if checkpoints else None) as scratch, Deferred() as signals:
        trained_part, batches, validation_batches = _above_freeze_point(
            network, backbone, train, validation, settled, seed, scratch, workers
        )
        settled = _with_rate(trained_part, batches, settled, checkpoints)
        course = workers.train(
            run_epochs,
            trained_part,
            batches,
            validation_batches,
            settled,
            checkpoints,
            time.monotonic() - began,
            rate_is_given,
            signals=signals,
        )
        trained_part.set_weights(course.kept_weights)
    trained = without_training_state(model)
    if parameters.freeze_batch_norm:
        unfold(network, trained)
    else:
        trained.set_weights(network.get_weights())
    until = time.monotonic()
    if settled.refit_head:
        trained, logits = refit_head(trained, train, validation, settled, flip=flip, map_blocks=workers.map_blocks)
    else:
        logits = predict(trained, validation[0], 64, flip=flip, map_blocks=workers.map_blocks)
    course.rows[-1]["seconds"] += time.monotonic() - until
    history = [row | {"kept": row["epoch"] == course.kept_epoch} for row in course.rows]
    return Trained(trained, history, logits)


def check_pixels(images: np.ndarray) -> None:
    """Check that images are not scaled yet.

    Raises:
        InputError: they are floats in -1 to 1.
    """
    if images.dtype != np.uint8 and np.abs(images[:256]).max() <= 1:
        raise InputError(
            f"The pixels are in {images[:256].min():.3g} to {images[:256].max():.3g}. The network needs 0 to 255 and "
            "scales them itself. Do not scale them before."
        )


def _check_shares(parameters: SettledTrainingParameters, workers: Workers) -> None:
    size = parameters.batch_size
    if size < workers.count:
        raise InputError(
            f"A batch of {size} images is too small for {workers.count} workers. Raise training.batch_size and "
            "training.learning_rate, or lower device.workers."
        )
    if not parameters.freeze_batch_norm and size % workers.count:
        raise InputError(
            f"{workers.count} workers cannot share batches of {size} images equally, which is necessary if BatchNorm "
            "is trained. Choose a training.batch_size that is a multiple of device.workers."
        )


def _above_freeze_point(
    network: keras.Model,
    backbone: str,
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    parameters: SettledTrainingParameters,
    seed: int,
    scratch: Path,
    workers: Workers,
) -> tuple[keras.Model, Batches, Batches]:
    """The trained part of the network and its batches of images, or of cached activations."""
    augmentation = Augmentation(parameters.augmentation)
    size = parameters.batch_size
    views = parameters.cached_views
    if views and frozen_blocks(backbone, parameters.unfreeze_from):
        frozen, network = split(network, backbone, parameters.unfreeze_from)
        seen = Views(train[0], views, augmentation, seed)
        inputs = cache_activations(frozen, seen, scratch / "train", workers.map_blocks)
        validation_inputs = cache_activations(frozen, validation[0], scratch / "validation", workers.map_blocks)
        batches = Batches(inputs, train[1], size, shuffle_seed=seed)
        return network, batches, Batches(validation_inputs, validation[1], size)
    batches = Batches(train[0], train[1], size, shuffle_seed=seed, augmentation=augmentation)
    return network, batches, Batches(validation[0], validation[1], size)


def _with_rate(
    network: keras.Model, batches: Batches, parameters: SettledTrainingParameters, checkpoints: Checkpoints | None
) -> SettledTrainingParameters:
    """The parameters with the learning rate of the finder if they ask for it. It is searched once."""
    if parameters.learning_rate != "find":
        return parameters

    def find() -> dict[str, float]:
        rate = suggest_learning_rate(sweep(network, batches, parameters), batches.labels.shape[1])
        logger.debug("learning rate: %.2g, as the finder suggests", rate)
        return {"learning_rate": rate}

    return parameters.model_copy(update=checkpoints.decide("settings", find) if checkpoints else find())
