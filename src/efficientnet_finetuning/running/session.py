"""Start and end of a run: parameters are checked first, user errors have no traceback, signals end runs cleanly."""

import fcntl
import logging
import signal
import sys
import threading
import time
from contextlib import chdir, nullcontext
from pathlib import Path
from typing import Any

import click
from kedro.config import MissingConfigException
from kedro.framework.context import KedroContext
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.io.core import generate_timestamp
from kedro.pipeline import Pipeline
from kedro.runner import AbstractRunner, SequentialRunner

from efficientnet_finetuning.device import without_native_output
from efficientnet_finetuning.errors import InputError, near_matches
from efficientnet_finetuning.io.kedro_internals import hooks_of, is_async
from efficientnet_finetuning.pipeline_registry import COMPARING
from efficientnet_finetuning.running.configuration import parameters_of
from efficientnet_finetuning.running.display import Display
from efficientnet_finetuning.running.incremental import IncrementalRunner
from efficientnet_finetuning.storage import make_folder

_CHOICES = ("tags", "from_nodes", "to_nodes", "node_names", "from_inputs", "to_outputs", "namespaces")
# Logger levels without and with device.verbose.
_LOGGERS = {"efficientnet_finetuning": (logging.INFO, logging.DEBUG), "kedro": (logging.WARNING, logging.INFO)}
_EXIT_STATUS = {KeyboardInterrupt: 130, SystemExit: 143}


class Session(KedroSession):
    """Kedro's session, with early checks, short error messages and incremental runs."""

    def __init__(self, session_id: str, *args: Any, **options: Any) -> None:
        super().__init__(session_id, *args, **options)
        self._context: KedroContext | None = None
        self.session_id = own_version(self._project_path / "data")

    def load_context(self) -> KedroContext:
        """The project's context. It is loaded once, so parameters are read and checked once."""
        if self._context is None:
            self._context = super().load_context()
        return self._context

    def run(  # type: ignore[override]  # the other options pass through unchanged
        self, pipeline_name: str | None = None, pipeline_names: list[str] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Run pipelines; see :meth:`kedro.framework.session.KedroSession.run`.

        Raises:
            click.ClickException: the user made a mistake; the command line prints only the message.
            SystemExit: the run was interrupted, with status 130 after Ctrl-C and 143 after SIGTERM.
        """
        names = [pipeline_name] if pipeline_name else list(pipeline_names or [])
        try:
            # Relative paths in parameters are relative to the project, not to the working folder.
            with chdir(self._project_path), Interruptible():
                _check_names(names)
                verbose = parameters_of(self.load_context().config_loader).device.verbose
                _check_choice(names, options)
                for name, level in _LOGGERS.items():
                    logging.getLogger(name).setLevel(level[verbose])
                display = Display(verbose)
                with nullcontext() if verbose else without_native_output():
                    return super().run(pipeline_names=names, **options | {"runner": _runner(options, display)})
        except MissingConfigException as error:
            folders = sorted(path.name for path in (self._project_path / "conf").iterdir() if path.is_dir())
            raise click.ClickException(f"{error}. Environments (--env) here: {', '.join(folders)}.") from error
        except (KeyboardInterrupt, SystemExit) as interruption:
            self._tell_hooks(interruption)
            sys.exit(_EXIT_STATUS[type(interruption)])
        except Exception as error:
            if (mistake := _input_error(error)) is None:
                raise
            raise click.ClickException(str(mistake)) from error

    def _tell_hooks(self, interruption: BaseException) -> None:
        # Kedro calls its error hooks only for subclasses of Exception, which these two are not.
        hooks_of(self).hook.on_pipeline_error(
            error=interruption, run_params={"run_id": self.session_id}, pipeline=Pipeline([]), catalog=None
        )


def own_version(folder: Path) -> str:
    """A unique save version, stored in the data folder. Kedro's are equal for runs that start in one millisecond."""
    try:
        make_folder(folder)
        with (folder / ".last_version").open("a+", encoding="utf-8", errors="replace") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            last = file.read()
            while (version := generate_timestamp()) == last:
                time.sleep(0.001)
            file.truncate(0)
            file.write(version)
            return version
    except OSError:  # nothing can be written here, so no version can collide
        return generate_timestamp()


def _runner(options: dict[str, Any], display: Display) -> AbstractRunner:
    """The incremental runner, unless the user chose another one."""
    asked = options.get("runner")
    if asked is not None and type(asked) is not SequentialRunner:
        return asked
    forced = any(options.get(name) for name in ("node_names", "from_nodes", "from_inputs"))
    return IncrementalRunner(forced=forced, is_async=asked is not None and is_async(asked), display=display)


def _check_names(names: list[str]) -> None:
    for name in names:
        if name not in pipelines:
            raise InputError(
                f"There is no pipeline {name!r}.{near_matches(name, pipelines)} Known: {', '.join(sorted(pipelines))}."
            )
    if len(comparing := [name for name in COMPARING if name in names]) > 1:
        raise InputError(
            f"{' and '.join(comparing)} each write a comparison, so they cannot run together. `kedro run` without a "
            "name trains and compares all regimes; `finetune` does the same without the baseline."
        )


def _check_choice(names: list[str], options: dict[str, Any]) -> None:
    """Reject names of nodes, tags, namespaces and datasets that select nothing."""
    pipeline = sum((pipelines[name] for name in names or ["__default__"]), Pipeline([]))
    choice = {option.replace("namespaces", "node_namespaces"): options.get(option) for option in _CHOICES}
    try:
        pipeline.filter(**choice)
    except ValueError as error:
        wanted = [name for value in choice.values() for name in value or ()]
        known = [*(node.name for node in pipeline.nodes), *pipeline.datasets(), "gpu", "cpu"]
        hint = "".join(near_matches(name, known) for name in wanted if name not in known)
        raise InputError(
            f"No node matches {', '.join(wanted)}: {str(error).rstrip('.')}.{hint} The tags are gpu and cpu; "
            "`make viz` shows all names."
        ) from error


def _input_error(error: BaseException | None) -> InputError | None:
    """The user's mistake that caused an error. Kedro wraps errors that occur while it saves data."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__
    return error


class Interruptible:
    """A ``with`` block that ends with :class:`KeyboardInterrupt` on Ctrl-C and :class:`SystemExit` on SIGTERM.

    Python drops exceptions that are raised in destructors and in callbacks from C, which training steps use often. So
    the signal is repeated until the block ends.
    """

    def __init__(self, repeat_after: float = 2.0) -> None:
        self._repeat_after = repeat_after
        self._again = threading.Timer(repeat_after, signal.pthread_kill)

    def __enter__(self) -> None:
        # A background job of a shell ignores Ctrl-C on purpose.
        heard = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._interrupt) for number in heard}

    def __exit__(self, *_: object) -> None:
        self._again.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, _: object) -> None:
        self._again.cancel()
        # Python handles signals in this thread. Sent to another one, the signal would not end a wait here.
        self._again = threading.Timer(self._repeat_after, signal.pthread_kill, [threading.get_ident(), number])
        self._again.start()
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit
