"""Checkpoints with the complete state of a training. They are deleted only when the model is stored.

Keras' BackupAndRestore is not enough: it writes in place, restores only the epoch, and deletes its backup too early.
"""

import fcntl
import logging
import os
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.storage import find_damage, make_folder, read_commit, remove, written_as_a_whole

logger = logging.getLogger(__name__)

Arrays = Mapping[str, Sequence[np.ndarray]]

_KEPT = 2
_NAME = re.compile(r"\d{6}-\d{8}")
_STATE = "state"


class Checkpoints:
    """The folder of a training, or of another long step, for its checkpoints. One process at a time holds it."""

    def __init__(self, folder: Path) -> None:
        """Lock a folder, which is created if necessary.

        Raises:
            InputError: another process holds it.
        """
        self.folder = folder
        self._lock = self._hold()
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%F %T')}")
        self._lock.flush()

    def __getstate__(self) -> dict[str, Path]:
        """Pickle only the path. The lock stays with this process."""
        return {"folder": self.folder}

    def _hold(self) -> TextIO:
        holder = self.folder / "holder"
        while True:
            make_folder(self.folder)
            with suppress(FileNotFoundError):  # another process has just removed the folder
                lock = holder.open("a+", encoding="utf-8")
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    lock.seek(0)
                    raise InputError(
                        f"The same step is already running: {lock.read() or 'another process'} uses {self.folder}. "
                        "Wait for it and run the same command to use its result, or stop it and run the same command "
                        "to resume it."
                    ) from None
                # If the file was removed in the meantime, the lock is useless.
                if os.path.samestat(os.fstat(lock.fileno()), holder.stat()):
                    return lock

    def write(self, epoch: int, step: int, arrays: Arrays, state: Mapping[str, Any]) -> None:
        """Write a checkpoint, and delete all but the last two.

        Args:
            epoch: completed epochs.
            step: completed steps of the next epoch.
            arrays: lists of arrays by file name.
            state: further state, as JSON.
        """
        # An existing checkpoint with this name is damaged, or the training would have resumed from it.
        with written_as_a_whole(self.folder / f"{epoch:06d}-{step:08d}", {_STATE: state}) as staged:
            for name, values in arrays.items():
                np.savez(staged / f"{name}.npz", *values)
        for old in self._all()[_KEPT:]:
            remove(old)

    def newest(self) -> tuple[Arrays, dict[str, Any]] | None:
        """Arrays and state of the newest undamaged checkpoint; ``None`` if there is none."""
        for folder in self._all():
            record = read_commit(folder) or {}
            damage = find_damage(folder, record) if _STATE in record else "its commit file is missing or damaged"
            if damage:
                logger.warning("The checkpoint %s is skipped: %s", folder, damage)
                continue
            return {file.stem: _read(file) for file in folder.glob("*.npz")}, record[_STATE]
        return None

    def decide(self, name: str, decision: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Make a decision once, and store its result as JSON. A resumed run reads it: a new one might differ."""
        folder = self.folder / name
        record = read_commit(folder) or {}
        if "decided" not in record:
            record = {"decided": decision()}
            with written_as_a_whole(folder, record):
                pass  # the folder needs only its record
        return dict(record["decided"])

    def remove(self) -> None:
        """Delete all checkpoints and the folder."""
        for path in self.folder.glob("*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
        # The lock file goes last: without it, another process may take the folder.
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def _all(self) -> list[Path]:
        return sorted((path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)


def _read(file: Path) -> list[np.ndarray]:
    with np.load(file, allow_pickle=False) as arrays:
        return [arrays[f"arr_{index}"] for index in range(len(arrays.files))]


class Signals(Protocol):
    """Requests to stop a training."""

    @property
    def pending(self) -> bool:
        """Whether a stop was requested."""

    def let_through(self) -> None:
        """Stop now if a stop was requested."""


class Deferred:
    """A ``with`` block that delays the first Ctrl-C or SIGTERM until :meth:`let_through`; a second acts at once."""

    def __init__(self) -> None:
        self._pending: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Deferred":
        if threading.current_thread() is threading.main_thread():  # other threads cannot set handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    @property
    def pending(self) -> bool:
        """Whether a signal is held back."""
        return self._pending is not None

    def let_through(self) -> None:
        """Restore the earlier handlers, and send them the signal that was held back."""
        self.__exit__()
        if self._pending is not None:
            signal.raise_signal(self._pending)

    def _note(self, number: int, _: object) -> None:
        if self.pending:
            self.let_through()
        self._pending = number
