"""Training a classifier: one function for the baseline, which starts from nothing, and for fine-tuning."""

import logging
import sys

import keras
import numpy as np

from efficientnet_finetuning.device import use_jit
from efficientnet_finetuning.models.freezing import unfreeze
from efficientnet_finetuning.models.heads import with_rates, without_training_state
from efficientnet_finetuning.parameters import TrainingParameters
from efficientnet_finetuning.training.augmentation import Augmentation
from efficientnet_finetuning.training.batches import Batches
from efficientnet_finetuning.training.checkpoint import Checkpoints, Deferred
from efficientnet_finetuning.training.progress import Progress

logger = logging.getLogger(__name__)


def fit(
    model: keras.Model,
    backbone: str,
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    parameters: TrainingParameters,
    seed: int,
    checkpoints: Checkpoints | None = None,
) -> tuple[keras.Model, list[dict[str, float]]]:
    """Train a copy of a classifier's network and keep its best weights by validation accuracy.

    Args:
        model: from pixels in 0–255 to logits, as :func:`~efficientnet_finetuning.models.heads.attach_head` makes it.
        backbone: name of its architecture.
        train: uint8 images ``(N, size, size, 3)`` and one-hot labels ``(N, num_classes)``.
        validation: likewise.
        parameters: of the training.
        seed: of shuffling, augmentation and dropout.
        checkpoints: where to keep them, and to go on from where there are some. They stay when this function returns:
            give them up once the model is stored.

    Returns:
        The trained model and its history: one row an epoch with ``epoch`` (from 1), ``learning_rate`` at its end,
        ``loss`` (with class weights, if any), ``accuracy``, ``val_loss``, ``val_accuracy`` (top-1, 0–1) and
        ``seconds``.

    Raises:
        InputError: the loss or a weight is no longer finite, or the disk has no room for checkpoints.
    """
    keras.utils.set_random_seed(seed)
    model = with_rates(model, parameters.drop_connect_rate, parameters.head_dropout)
    trainable, frozen = unfreeze(model, backbone, parameters.unfreeze_from, parameters.freeze_batch_norm)
    logger.info("%s parameters are trained, %s stay frozen", f"{trainable:,}", f"{frozen:,}")
    batches = Batches(
        *train,
        parameters.batch_size,
        shuffle_seed=seed,
        augmentation=Augmentation(parameters.augmentation),
    )
    model.compile(
        optimizer=_optimizer(parameters, batches.num_batches * parameters.epochs),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=parameters.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        jit_compile=use_jit(),
    )
    # Left to `fit`, the optimizer's variables appear while TensorFlow traces the first step, which it then traces
    # once more: half a minute on two cores.
    model.optimizer.build(model.trainable_variables)
    weights = class_weights(train[1], parameters.class_weight)
    with Deferred() as signals:
        progress = Progress(parameters, batches, checkpoints, signals)
        progress.set_model(model)
        progress.resume()
        while not progress.is_over:
            epoch = progress.epoch
            model.fit(
                batches,
                initial_epoch=epoch,
                # An epoch that began in an earlier process is shorter than the others.
                epochs=epoch + 1 if batches.skipped else parameters.epochs,
                validation_data=Batches(*validation, parameters.batch_size),
                callbacks=[progress],
                class_weight=weights,
                shuffle=False,  # the batches are shuffled already, by the seed; Keras would draw from a global state
                verbose=1 if sys.stdout.isatty() else 0,
            )
            batches.skipped = 0
    model.set_weights(progress.best_weights)
    return without_training_state(model), progress.rows


def class_weights(labels: np.ndarray, class_weight: str) -> dict[int, float] | None:
    """How much an image of each class counts in the loss.

    Args:
        labels: one-hot ``(N, num_classes)``.
        class_weight: ``none``, or ``balanced``: inversely to the class' frequency, one on average over all images.

    Returns:
        Weights by label, ``None`` for equal ones.
    """
    if class_weight == "none":
        return None
    counts = labels.sum(axis=0, dtype=np.int64)
    weights = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    logger.info("class weights: balanced, %.2g to %.2g", weights.min(), weights.max())
    return {label: float(weight) for label, weight in enumerate(weights)}


def _optimizer(parameters: TrainingParameters, steps: int) -> keras.Optimizer:
    warmup_steps = round(parameters.warmup_fraction * steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_steps else parameters.learning_rate,
        decay_steps=max(steps - warmup_steps, 1),
        warmup_target=parameters.learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=parameters.weight_decay)
    # Decay pulls weights to zero, which is where neither a bias nor a scale wants to be.
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer
