"""Console output of a run: the plan, one line per step and, on a terminal, a progress bar."""

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.file_proxy import FileProxy
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from efficientnet_finetuning.errors import counted
from efficientnet_finetuning.storage import time_of

if TYPE_CHECKING:
    from efficientnet_finetuning.running.incremental import Step

logger = logging.getLogger(__name__)

# Without a terminal, an epoch is printed only if nothing was printed for this many seconds.
_SILENCE = 30.0


class Display:
    """Prints the progress of a run. Every line is a log record, so log files contain it too."""

    def __init__(self, verbose: bool = False, stream: TextIO | None = None) -> None:
        """Print all log records and no progress bar if ``verbose``. ``stream`` defaults to the standard output."""
        self._verbose = verbose
        self._stream = stream or sys.stdout
        self._bar: _Bar | None = None
        self._width = 0

    @contextmanager
    def of(self, steps: Sequence["Step"]) -> Iterator[None]:
        """Print the plan, and show the progress bar while the steps run."""
        self._width = max((len(step.node.name) for step in steps), default=0)
        self._total = len(steps)
        for line in plan_lines(steps):
            logger.info("%s", line)
        with ExitStack() as stack:
            if not self._verbose and self._stream.isatty():
                self._bar = stack.enter_context(_drawn(steps, self._stream))
            elif not self._verbose:
                stack.enter_context(_without_most_epochs(self._stream))
            yield
        self._bar = None

    @contextmanager
    def during(self, step: "Step") -> Iterator[None]:
        """Show one step in the progress bar while it runs, and print a line when it has ended."""
        began = time.monotonic()
        number = f"[{step.number:>{len(str(self._total))}}/{self._total}]"
        if step.version:
            logger.debug("fresh  %s (version of %s)", step.node.name, _clock(step.version))
        else:
            logger.debug("stale  %s: %s", step.node.name, step.reason or "no result is stored yet")
        if self._bar and not step.version:
            self._bar.begin(step, f"{number} {step.node.name}")
        yield
        took = f"stored ({_clock(step.version)})" if step.version else spell(time.monotonic() - began)
        logger.info("%s %-*s  %s", number, self._width, step.node.name, took)
        if self._bar:
            self._bar.end(step)


def plan_lines(steps: Sequence["Step"]) -> Iterator[str]:
    """The number of steps to run, the estimated time, and why stored results are computed again."""
    to_do = [step for step in steps if not step.version]
    if not to_do:
        yield f"Nothing to do: the results of {counted(len(steps), 'step')} are stored."
        return
    known = [step.seconds for step in to_do if step.seconds is not None]
    time_left = f", about {spell(sum(known))}" if known and len(known) == len(to_do) else ""
    part = "" if len(to_do) == len(steps) else f"{len(to_do)} of "
    yield f"{part}{counted(len(steps), 'step')} to do{time_left}"
    reasons: dict[str, list[Step]] = {}
    for step in to_do:
        if step.reason:
            reasons.setdefault(step.reason, []).append(step)
    for reason, alike in reasons.items():
        more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
        slowest = max(alike, key=lambda step: step.seconds or 0.0)
        yield f"  {slowest.node.name}{more}: {reason}"


def spell(seconds: float) -> str:
    """Format a duration: ``0.4 s``, ``48 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    hours, of_hour = divmod(minutes, 60)
    return f"{hours} h {of_hour} min" if hours else f"{minutes} min {rest} s"


def _clock(version: str) -> str:
    """The local time of a version, with its date unless that is today."""
    made = time_of(version)
    if made is None:
        return version
    made = made.astimezone()
    return f"{made:%H:%M}" if made.date() == datetime.now().astimezone().date() else f"{made:%Y-%m-%d %H:%M}"


class _Bar(logging.Handler):
    """A progress bar over the steps. It shows the last epoch and the estimated time left."""

    def __init__(self, steps: Sequence["Step"], console: Console) -> None:
        super().__init__(logging.INFO)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), _TimeLeft())
        self.progress = Progress(
            *columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._seconds = {step.number: step.seconds or 0.0 for step in steps if not step.version}
        self._task = self.progress.add_task("", total=len(steps))
        self._told = ""

    def begin(self, step: "Step", told: str) -> None:
        self._told = told
        left = sum(self._seconds.values()) if step.seconds is not None else None
        self.progress.update(self._task, description=told, left=left, since=time.monotonic())

    def end(self, step: "Step") -> None:
        self._seconds.pop(step.number, None)
        self.progress.advance(self._task)

    def emit(self, record: logging.LogRecord) -> None:
        if metrics := getattr(record, "metrics", None):
            epoch = f"epoch {metrics['epoch']}/{metrics['epochs']}, validation {100 * metrics['val_accuracy']:.1f} %"
            self.progress.update(self._task, description=f"{self._told}, {epoch}")


class _TimeLeft(ProgressColumn):
    def render(self, task: Task) -> Text:
        if "since" not in task.fields:
            return Text()
        spent, left = time.monotonic() - task.fields["since"], task.fields["left"]
        if left is None:
            return Text(spell(spent))
        return Text(f"about {spell(left - spent)} left" if left > spent else "any moment now")


@contextmanager
def _drawn(steps: Sequence["Step"], stream: TextIO) -> Iterator[_Bar]:
    """Keep a progress bar at the bottom of the terminal. Other output appears above it."""
    bar = _Bar(steps, console := Console(file=stream))
    before = sys.stdout, sys.stderr
    handlers = _printing_to(stream)
    package = logging.getLogger("efficientnet_finetuning")
    with bar.progress, _filtered(handlers, lambda record: not hasattr(record, "metrics")):
        above = _Above(console, stream)
        sys.stdout = sys.stderr = above
        for handler in handlers:
            handler.setStream(above)
        package.addHandler(bar)
        try:
            yield bar
        finally:
            package.removeHandler(bar)
            for handler in handlers:
                handler.setStream(stream)
            sys.stdout, sys.stderr = before


class _Above(FileProxy):
    """Prints above the bar. It claims to be no terminal, so other libraries draw no bars of their own."""

    def isatty(self) -> bool:
        return False


@contextmanager
def _without_most_epochs(stream: TextIO) -> Iterator[None]:
    last = time.monotonic()

    def passes(record: logging.LogRecord) -> bool:
        nonlocal last
        if hasattr(record, "metrics") and time.monotonic() - last < _SILENCE:
            return False
        last = time.monotonic()
        return True

    with _filtered(_printing_to(stream), passes):
        yield


@contextmanager
def _filtered(handlers: Sequence[logging.Handler], passes: "logging._FilterType") -> Iterator[None]:
    for handler in handlers:
        handler.addFilter(passes)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(passes)


def _printing_to(stream: TextIO) -> list[logging.StreamHandler]:
    handlers = logging.getLogger().handlers
    return [handler for handler in handlers if isinstance(handler, logging.StreamHandler) and handler.stream is stream]
