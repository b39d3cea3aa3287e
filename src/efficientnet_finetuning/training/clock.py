"""A time budget: the clock, not a number of epochs, says how far a training is."""

import time
from collections.abc import Callable

# Of the budget, for what comes after training.
_SPARE = 0.02


class TimeBudget:
    """How much of a training's time is over, whichever processes had a part in it.

    Attributes:
        spent: seconds of training so far, when the clock was last read.
        validation_seconds: what a validation takes. The last one comes after the last step, so its time is kept.
        refit_seconds: what it takes to fit the head anew, which comes after that.
    """

    def __init__(self, minutes: float, began: float, agree: Callable[[float], float] = float) -> None:
        """Start the clock of a training.

        Args:
            minutes: that it may take.
            began: when it began, by ``time.monotonic``.
            agree: what several ranks take for the time: that of the first.
        """
        self._seconds, self._began, self._agree = 60 * minutes * (1 - _SPARE), began, agree
        self.validation_seconds = self.refit_seconds = self._earlier = 0.0
        self._is_up = False
        self.read()

    def read(self) -> None:
        """Read the clock."""
        self.spent = self._earlier + self._agree(time.monotonic() - self._began)

    @property
    def state(self) -> dict[str, float]:
        """What a process that goes on must know, as JSON."""
        return {"spent": self.spent, "validation_seconds": self.validation_seconds, "is_up": self._is_up}

    def go_on(self, spent: float, validation_seconds: float, is_up: bool) -> None:
        """Count what an earlier process spent and found out: its ``state``."""
        self._earlier, self.validation_seconds, self._is_up = spent, validation_seconds, is_up
        self.read()

    @property
    def is_up(self) -> bool:
        """Whether training must end; once it must, a validation that is quicker than thought changes nothing."""
        self._is_up = self._is_up or self.left == 0
        return self._is_up

    @property
    def left(self) -> float:
        """Seconds until the last validation must begin; 0 at least."""
        return max(self._for_steps - self.spent, 0.0)

    @property
    def share(self) -> float:
        """How much of the training is over, in 0–1."""
        return min(self.spent / self._for_steps, 1.0)

    @property
    def _for_steps(self) -> float:
        return max(self._seconds - self.validation_seconds - self.refit_seconds, 1e-9)
