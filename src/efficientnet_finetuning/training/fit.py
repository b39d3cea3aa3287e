"""Training a classifier: one function for the baseline, which starts from nothing, and for fine-tuning."""

import logging
import sys
import time
from typing import Any

import keras
import numpy as np

from efficientnet_finetuning.device import use_jit
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.models.freezing import unfreeze
from efficientnet_finetuning.models.heads import with_rates, without_training_state
from efficientnet_finetuning.parameters import TrainingParameters
from efficientnet_finetuning.training.augmentation import Augmentation
from efficientnet_finetuning.training.batches import Batches, FollowEpoch

logger = logging.getLogger(__name__)


def fit(
    model: keras.Model,
    backbone: str,
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    parameters: TrainingParameters,
    seed: int,
) -> tuple[keras.Model, list[dict[str, float]]]:
    """Train a copy of a classifier's network and keep its best weights by validation accuracy.

    Args:
        model: from pixels in 0–255 to logits, as :func:`~efficientnet_finetuning.models.heads.attach_head` makes it.
        backbone: name of its architecture.
        train: uint8 images ``(N, size, size, 3)`` and one-hot labels ``(N, num_classes)``.
        validation: likewise.
        parameters: of the training.
        seed: of shuffling, augmentation and dropout.

    Returns:
        The trained model and its history: one row an epoch with ``epoch`` (from 1), ``learning_rate`` at its end,
        ``loss`` (with class weights, if any), ``accuracy``, ``val_loss``, ``val_accuracy`` (top-1, 0–1) and
        ``seconds``.

    Raises:
        InputError: the loss is no longer finite.
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
    history = History()
    best = BestWeights()
    callbacks = [FollowEpoch(batches), keras.callbacks.TerminateOnNaN(raise_error=True), history, best]
    if parameters.early_stopping_patience:
        callbacks.append(
            keras.callbacks.EarlyStopping("val_accuracy", mode="max", patience=parameters.early_stopping_patience)
        )
    try:
        model.fit(
            batches,
            epochs=parameters.epochs,
            validation_data=Batches(*validation, parameters.batch_size),
            callbacks=callbacks,
            class_weight=class_weights(train[1], parameters.class_weight),
            shuffle=False,  # the batches are shuffled already, by the seed; Keras would draw from a global state
            verbose=1 if sys.stdout.isatty() else 0,
        )
    except RuntimeError as error:
        if "NaN" not in str(error):
            raise
        raise InputError(_diverged(parameters, len(history.rows) + 1)) from error
    if not best.found:
        raise InputError(_diverged(parameters, parameters.epochs))
    best.restore()
    return without_training_state(model), history.rows


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


def _diverged(parameters: TrainingParameters, epoch: int) -> str:
    return (
        f"The loss became infinite or not a number in epoch {epoch}: the learning rate "
        f"{parameters.learning_rate:g} is too high. Lower training.learning_rate; ten times less is a fair try."
    )


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


class History(keras.callbacks.Callback):
    """Rows of one epoch each, also sent out as log records with ``metrics`` and ``step`` for whoever tracks them."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []
        self._started = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        row = {
            "epoch": epoch + 1,
            "learning_rate": float(self.model.optimizer.learning_rate),
            **{name: float(value) for name, value in (logs or {}).items()},
            "seconds": time.perf_counter() - self._started,
        }
        self.rows.append(row)
        logger.info(
            "epoch %d/%d: loss %.3f, top-1 train %.1f %%, validation %.1f %%, %.1f s",
            row["epoch"],
            self.params["epochs"],
            row["loss"],
            100 * row["accuracy"],
            100 * row["val_accuracy"],
            row["seconds"],
            extra={"metrics": row, "step": row["epoch"]},
        )


class BestWeights(keras.callbacks.Callback):
    """Keeps the weights of the epoch with the best validation accuracy; the lower loss decides between equals.

    Keras' own callback keeps the first of equals, and a small validation split has many.
    """

    def __init__(self) -> None:
        super().__init__()
        self._best = (-np.inf, -np.inf)
        self._weights: list[np.ndarray] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        score = (logs["val_accuracy"], -logs["val_loss"])
        if np.isfinite(logs["val_loss"]) and score > self._best:
            self._best, self._weights = score, self.model.get_weights()

    @property
    def found(self) -> bool:
        """Whether any epoch ended with a finite validation loss."""
        return bool(self._weights)

    def restore(self) -> None:
        """Give the model its best weights back."""
        self.model.set_weights(self._weights)
