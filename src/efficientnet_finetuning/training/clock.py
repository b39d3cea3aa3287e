"""A time budget: the training progress follows the clock instead of the number of epochs."""

import time
from collections.abc import Callable

# Share of the budget for work after the training.
_SPARE = 0.02


class TimeBudget:
    """The share of a training's time that has passed, including earlier processes.

    Attributes:
        spent: seconds of training at the last :meth:`read`.
        validation_seconds: duration of a validation, reserved for the last one.
        refit_seconds: duration of fitting a new head, reserved as well.
    """

    def __init__(self, minutes: float, began: float, agree: Callable[[float], float] = float) -> None:
        """Start with ``minutes`` at ``began`` (``time.monotonic``). ``agree`` gives all ranks the time of the first."""
        self._seconds, self._began, self._agree = 60 * minutes * (1 - _SPARE), began, agree
        self.validation_seconds = self.refit_seconds = self._earlier = 0.0
        self._is_up = False
        self.read()

    def read(self) -> None:
        """Read the clock."""
        self.spent = self._earlier + self._agree(time.monotonic() - self._began)

    @property
    def state(self) -> dict[str, float]:
        """State for a resumed process, as JSON."""
        return {"spent": self.spent, "validation_seconds": self.validation_seconds, "is_up": self._is_up}

    def go_on(self, spent: float, validation_seconds: float, is_up: bool) -> None:
        """Continue from the ``state`` of an earlier process."""
        self._earlier, self.validation_seconds, self._is_up = spent, validation_seconds, is_up
        self.read()

    @property
    def is_up(self) -> bool:
        """Whether training must end. Once true, this stays true, even if a later validation is faster."""
        self._is_up = self._is_up or self.left == 0
        return self._is_up

    @property
    def left(self) -> float:
        """Seconds until the last validation must begin, at least 0."""
        return max(self._for_steps - self.spent, 0.0)

    @property
    def share(self) -> float:
        """Share of the training that is over, 0–1."""
        return min(self.spent / self._for_steps, 1.0)

    @property
    def _for_steps(self) -> float:
        return max(self._seconds - self.validation_seconds - self.refit_seconds, 1e-9)
