"""Training a classifier: one function for the baseline, which starts from nothing, and for fine-tuning."""

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
    """What :func:`fit` returns.

    Attributes:
        model: from pixels to logits.
        history: one row an epoch with ``epoch`` (from 1), ``epochs`` (planned; with a time budget an estimate),
            ``learning_rate`` at its end, ``loss`` (with class weights, if any), ``accuracy``, ``val_loss``,
            ``val_accuracy`` (top-1, 0–1), ``images`` seen, ``seconds`` (the first epoch's include all that came before
            it, the last one's all after it) and ``kept``: whether its weights are the model's; of no epoch where the
            start's are.
        validation_logits: float32 ``(M, num_classes)`` of the validation images, by the model or, where its head was
            fitted anew on them too, by one that was not.
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
    """Train a copy of a classifier's network and keep its best or its last weights (``parameters.keep``).

    Args:
        model: from pixels in 0–255 to logits, as :func:`~efficientnet_finetuning.models.heads.attach_head` makes it.
        backbone: name of its architecture.
        train: uint8 images ``(N, size, size, 3)`` and one-hot labels ``(N, num_classes)``.
        validation: likewise.
        parameters: of the training.
        seed: of shuffling, augmentation and dropout.
        checkpoints: where to keep them, and to go on from where there are some. They stay when this function returns:
            give them up once the model is stored.
        workers: who shares the work; ``None``: this process alone.
        flip: whether the validation logits average over each image and its mirror image, as the answers will.

    Raises:
        InputError: pixels are not in 0–255, the loss or a weight is no longer finite, the disk has no room for
            checkpoints, or the workers cannot share a batch.
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
    """Refuse images that were scaled already.

    Raises:
        InputError: they are floats in -1 to 1.
    """
    if images.dtype != np.uint8 and np.abs(images[:256]).max() <= 1:
        raise InputError(
            f"The pixels lie in {images[:256].min():.3g} to {images[:256].max():.3g}. The network takes 0 to 255 and "
            "scales them itself: leave them as they are."
        )


def _check_shares(parameters: SettledTrainingParameters, workers: Workers) -> None:
    size = parameters.batch_size
    if size < workers.count:
        raise InputError(
            f"A batch has {size} images, which is less than one for each of the {workers.count} workers. Raise "
            "training.batch_size, and training.learning_rate with it, or give fewer device.workers."
        )
    if not parameters.freeze_batch_norm and size % workers.count:
        raise InputError(
            f"{workers.count} workers cannot share batches of {size} images evenly, which a training of BatchNorm's "
            "statistics needs. Choose a training.batch_size that device.workers divides."
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
    """What is trained, and the batches for it: images, or activations where what lies below is frozen and cached."""
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
    """The parameters with a number for a learning rate that is to be found, which is done once."""
    if parameters.learning_rate != "find":
        return parameters

    def find() -> dict[str, float]:
        rate = suggest_learning_rate(sweep(network, batches, parameters), batches.labels.shape[1])
        logger.debug("learning rate: %.2g, as the finder suggests", rate)
        return {"learning_rate": rate}

    return parameters.model_copy(update=checkpoints.decide("settings", find) if checkpoints else find())
