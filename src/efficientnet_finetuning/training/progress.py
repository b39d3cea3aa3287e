"""The progress of a training: history, best weights, early stopping and checkpoints."""

import logging
import math
import time
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from efficientnet_finetuning.device import peak_memory
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import SettledTrainingParameters
from efficientnet_finetuning.storage import check_free_space
from efficientnet_finetuning.training.batches import Batches
from efficientnet_finetuning.training.checkpoint import Arrays, Checkpoints, Signals
from efficientnet_finetuning.training.clock import TimeBudget
from efficientnet_finetuning.training.optimizers import rate_at
from efficientnet_finetuning.training.ranks import Ranks

logger = logging.getLogger(__name__)

_TIMED_STEPS = 5
_ABOVE_GUESSING = 1.5
_COLLAPSE = 0.02
# Of a training step's time, at most.
_FORWARD_SHARE = 0.4
# More epochs than any time budget holds.
_MANY = 1_000_000


class Progress(keras.callbacks.Callback):
    """A Keras callback with all state that a checkpoint must contain.

    It writes the history and logs each row (with ``metrics`` and ``step``). It keeps the weights of the epoch with the
    best validation accuracy, where the lower loss decides between equals, or those of the last epoch. It stops the
    training early if ``early_stopping_patience`` says so, and with an error if the loss is not finite. It writes
    checkpoints after each epoch, every ``checkpoint_minutes``, and when a stop is requested.

    Attributes:
        rows: the history, one row per epoch.
        kept_weights: of the best epoch, or of the last one.
        kept_epoch: number of that epoch, from 1; 0: the start.
        epoch: number of completed epochs.
    """

    def __init__(
        self,
        parameters: SettledTrainingParameters,
        batches: Batches,
        checkpoints: Checkpoints | None,
        signals: Signals,
        began: float,
        rate_is_given: bool,
        ranks: Ranks,
    ) -> None:
        """See :func:`~efficientnet_finetuning.training.epochs.run_epochs`. ``began``: ``time.monotonic``."""
        super().__init__()
        self._ranks = ranks
        self._rate_is_given = rate_is_given
        self._parameters, self._batches = parameters, batches
        self._checkpoints, self._signals = checkpoints, signals
        self.rows: list[dict[str, float]] = []
        self.kept_weights: list[np.ndarray] = []
        self.kept_epoch = 0
        self.epoch = 0
        self._start = self._best = (-np.inf, -np.inf)
        self._stale_epochs, self._num_validation = 0, 0
        minutes = parameters.time_budget_minutes
        self._budget = None if minutes is None else TimeBudget(minutes, began, ranks.agree)
        self._step, self._validation_began = 0, 0.0
        # What an earlier process did of the current epoch, and when this process began it. The first epoch includes
        # the preparation.
        self._earlier = {"images": 0.0, "seconds": 0.0}
        self._began, self._written = began, time.monotonic()
        self._timed, self._previewed = 0.0, False

    @property
    def is_over(self) -> bool:
        """Whether all epochs are done, the time is up, the loss is low enough, or training stops early."""
        patience = self._parameters.early_stopping_patience
        is_stale = patience is not None and self._stale_epochs >= patience
        return self.epoch >= self.last_epoch or is_stale or self._is_learnt or (self.epoch > 0 and self._time_is_up)

    @property
    def _is_learnt(self) -> bool:
        enough = self._parameters.stop_at_loss
        return enough is not None and bool(self.rows) and self.rows[-1]["loss"] < enough

    @property
    def last_epoch(self) -> int:
        """The largest number of epochs."""
        return self._parameters.epochs if self._budget is None else _MANY

    @property
    def _planned_epochs(self) -> int:
        """The expected number of epochs; with a time budget, estimated from the completed ones."""
        if self._budget is None:
            return self._parameters.epochs
        return self.epoch if self._time_is_up else max(self.epoch + 1, round(self.epoch / self._budget.share))

    @property
    def _time_is_up(self) -> bool:
        return self._budget is not None and self._budget.is_up

    def begin(self, validation: Batches) -> None:
        """Resume from the newest checkpoint, or evaluate the start and check the disk space for checkpoints."""
        self._num_validation = len(validation.labels)
        found = self._checkpoints.newest() if self._checkpoints else None
        if found is not None:
            self._resume(*found)
            return
        if self._checkpoints is not None:
            # A checkpoint has the model, the best weights and the optimizer. Up to three exist at once.
            variables = (*self.model.variables, *self.model.variables, *self.model.optimizer.variables)
            size = sum(4 * math.prod(variable.shape) for variable in variables)
            check_free_space(self._checkpoints.folder, 3 * size, "Training with its checkpoints")
        self.on_test_begin()
        logs = self.model.evaluate(validation, return_dict=True, verbose=0)
        self.on_test_end()
        self._start = self._best = (float(logs["accuracy"]), -float(logs["loss"]))
        self.kept_weights = self.model.get_weights()
        logger.debug("start: validation %.1f %%, loss %.3f", 100 * self._start[0], -self._start[1])

    def _resume(self, arrays: Arrays, state: Mapping[str, Any]) -> None:
        for variables, values in ((self.model.variables, "model"), (self.model.optimizer.variables, "optimizer")):
            for variable, value in zip(variables, arrays[values], strict=True):
                variable.assign(value)
        self.rows, self.kept_weights = state["rows"], list(arrays["best"])
        self._best, self._stale_epochs = tuple(state["best"]), state["stale_epochs"]
        self._start, self.kept_epoch = tuple(state["start"]), state["kept_epoch"]
        self.epoch, self._batches.skipped, self._earlier = state["epoch"], state["step"], state["earlier"]
        if self._budget is not None:
            self._budget.go_on(**state["clock"])
        steps = self.epoch * self._batches.all_batches + self._batches.skipped
        is_checkpoints = int(self.model.optimizer.iterations) == steps
        assert is_checkpoints or self._time_is_up, "the optimizer has another number of steps than the checkpoint"
        logger.info(
            "Training resumes from its checkpoint after %d of %d epochs and %d of %d steps",
            self.epoch,
            self._planned_epochs,
            self._batches.skipped,
            self._batches.all_batches,
        )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # Batches cannot count epochs: Keras calls their `on_epoch_end` before the first epoch too.
        self._batches.epoch = epoch
        if self.rows or self._batches.skipped:
            self._began = time.monotonic()
        self._read_clock()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._budget is not None:
            self._take_state()
            self.model.optimizer.learning_rate = rate_at(self._parameters, self._budget.share)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._validation_began = time.monotonic()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._budget is not None:
            self._budget.validation_seconds = self._ranks.agree(time.monotonic() - self._validation_began)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        step = self._step = self._batches.skipped + batch + 1
        if not np.isfinite(logs["loss"]):
            raise InputError(self._diverged("loss", step))
        self._preview(batch + 1)
        self._read_clock()
        if self._time_is_up:
            self.model.stop_training = True
        if step == self._batches.all_batches or self._checkpoints is None or self._time_is_up:
            return  # the epoch ends now and writes a checkpoint
        is_due = (time.monotonic() - self._written) / 60 >= self._parameters.checkpoint_minutes
        if self._ranks.agree(self._signals.pending or is_due):
            self._write(step, self._with_earlier(logs, step))
            self._stop_if_asked()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        if not np.isfinite(logs["val_loss"]):
            raise InputError(self._diverged("validation loss", self._step))
        self._read_clock()
        whole = self._with_earlier(logs, self._step)
        self.epoch, self._earlier = epoch + 1, {"images": 0.0, "seconds": 0.0}
        row = {
            "epoch": self.epoch,
            "epochs": self._planned_epochs,
            "learning_rate": float(self.model.optimizer.learning_rate),
            **{name: float(value) for name, value in (logs | whole).items()},
        }
        self.rows.append(row)
        self._judge(row)
        is_over = self.is_over  # read once, because the clock continues
        if is_over and self._budget is not None:
            row["epochs"] = self.epoch
        self._tell(row)
        if self._is_learnt and self.epoch < self.last_epoch:
            logger.info("Training ends: its loss is below stop_at_loss (%g).", self._parameters.stop_at_loss)
        self._warn(row)
        if self._checkpoints is not None:
            self._write(0, self._earlier)
        self._stop_if_asked()
        self.model.stop_training = is_over

    def _stop_if_asked(self) -> None:
        if not self._ranks.agree(self._signals.pending):
            return
        if self._checkpoints is not None:
            logger.info("Training stops. A checkpoint is written, and the same command resumes from it.")
        self._signals.let_through()

    def _read_clock(self) -> None:
        if self._budget is not None:
            self._budget.read()

    def _take_state(self) -> None:
        """Copy the current values into the variables. During an epoch, JAX keeps them elsewhere."""
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()

    def _preview(self, steps: int) -> None:
        """Log the expected cost of the training after a few timed steps, without the first, which compiles."""
        if steps == 1:
            self._timed = time.monotonic()
        elif steps == _TIMED_STEPS + 1 and not self._previewed:
            self._previewed = True
            seconds = (time.monotonic() - self._timed) / _TIMED_STEPS
            if self._budget is not None:
                if self._parameters.refit_head:
                    refit = _FORWARD_SHARE * self._batches.all_batches * seconds
                    self._budget.refit_seconds = self._ranks.agree(refit)
                left = int(self._budget.left / seconds)
            else:
                left = (self._parameters.epochs - self.epoch) * self._batches.all_batches - self._batches.skipped
            minutes = left * seconds / 60
            logger.log(
                logging.INFO if minutes > 1 else logging.DEBUG,
                "cost: %.0f images/s, %s%d steps, about %.1f minutes plus validation; peak memory %.1f GB so far",
                self._batches.batch_size / seconds,
                "" if self._parameters.stop_at_loss is None else "at most ",
                left,
                minutes,
                peak_memory() / 1e9,
            )

    def _judge(self, row: dict[str, float]) -> None:
        # Keras' callback keeps the first of equal accuracies, which are frequent with few validation images.
        score = (row["val_accuracy"], -row["val_loss"])
        self._stale_epochs = 0 if row["val_accuracy"] > self._best[0] else self._stale_epochs + 1
        if score > self._best or self._parameters.keep == "last":
            self.kept_weights, self.kept_epoch = self.model.get_weights(), int(row["epoch"])
        self._best = max(self._best, score)

    def _with_earlier(self, logs: dict[str, Any], step: int) -> dict[str, float]:
        """Means over the whole epoch so far, including the part that an earlier process did."""
        images = min(step * self._batches.batch_size, len(self._batches.labels))
        share = self._earlier["images"] / images
        means = {
            name: share * self._earlier.get(name, 0.0) + (1 - share) * float(logs[name])
            for name in ("loss", "accuracy")
        }
        return means | {"images": images, "seconds": self._earlier["seconds"] + time.monotonic() - self._began}

    def _write(self, step: int, earlier: dict[str, float]) -> None:
        self._take_state()
        arrays = {
            "model": [np.asarray(variable) for variable in self.model.variables],
            "optimizer": [np.asarray(variable) for variable in self.model.optimizer.variables],
            "best": self.kept_weights,
        }
        if not all(np.isfinite(values).all() for values in (*arrays["model"], *arrays["optimizer"])):
            raise InputError(self._diverged("weights", step))
        assert self._checkpoints is not None
        state = {
            "epoch": self.epoch,
            "step": step,
            "rows": self.rows,
            "best": self._best,
            "kept_epoch": self.kept_epoch,
            "start": self._start,
            "stale_epochs": self._stale_epochs,
            "earlier": earlier,
        }
        if self._budget is not None:
            state["clock"] = self._budget.state
        if self._ranks.rank == 0:
            self._checkpoints.write(self.epoch, step, arrays, state)
        self._written = time.monotonic()

    def _tell(self, row: dict[str, float]) -> None:
        logger.info(
            "epoch %d/%d: loss %.3f, top-1 train %.1f %%, validation %.1f %%, %.1f s",
            row["epoch"],
            row["epochs"],
            row["loss"],
            100 * row["accuracy"],
            100 * row["val_accuracy"],
            row["seconds"],
            extra={"metrics": row, "step": row["epoch"]},
        )

    def _warn(self, row: dict[str, float]) -> None:
        """Warn about common problems of fine-tuning."""
        if self.is_over and self._parameters.keep == "best" and self._best == self._start:
            advice = " Lower training.learning_rate, or freeze more with training.unfreeze_from."
            logger.log(
                logging.WARNING if self._rate_is_given else logging.INFO,
                "No epoch was better on validation than the start (%.1f %%), so the initial weights are restored.%s",
                100 * self._start[0],
                advice if self._rate_is_given else "",
            )
        if row["epoch"] == 1 and self._time_is_up:
            logger.warning(
                "The time budget of %g minutes ended within the first epoch, after %d of %d steps. Raise it, or "
                "freeze more with finetune.training.unfreeze_from.",
                self._parameters.time_budget_minutes,
                self._step,
                self._batches.all_batches,
            )
        if not self._rate_is_given:
            return
        guessing = math.log(self.model.output_shape[-1])
        if row["epoch"] == 1 and row["loss"] > _ABOVE_GUESSING * guessing:
            logger.warning(
                "The loss after the first epoch, %.2f, is far above that of random guessing (%.2f). The learning rate "
                "is too high. Divide finetune.training.learning_rate (or baseline.…) by about three.",
                row["loss"],
                guessing,
            )
        start, now = self._start[0], row["val_accuracy"]
        share = (start + now) / 2
        error = math.sqrt(2 * share * (1 - share) / self._num_validation)  # of a difference of two proportions
        if start - now > max(_COLLAPSE, 2 * error):
            logger.warning(
                "Validation accuracy is %.1f points below that before training. Training continues. If it stays low, "
                "lower finetune.training.learning_rate.",
                100 * (start - now),
            )

    def _diverged(self, what: str, step: int) -> str:
        self._take_state()
        kept = "" if self._checkpoints is None else f" The last good checkpoint is in {self._checkpoints.folder}."
        return (
            f"The {what} became infinite or not a number in epoch {self.epoch + 1}, step {step}, at a learning rate of "
            f"{float(self.model.optimizer.learning_rate):.2g} (peak {self._parameters.learning_rate:g}), which is too "
            f"high. Divide finetune.training.learning_rate (or baseline.…) by about ten.{kept}"
        )
