"""Checkpoints of a training: all of its state, committed as a whole, and given up only when the model is stored.

Keras' BackupAndRestore writes in place, restores the epoch alone and deletes its backup before anybody has stored the
model, so this project has its own.
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
    """The folder in which a training, or another long step, keeps what it has done, held by one process at a time.

    Attributes:
        folder: its place.
    """

    def __init__(self, folder: Path) -> None:
        """Take hold of a folder, which is made where it is missing.

        Raises:
            InputError: another process makes the same thing.
        """
        self.folder = folder
        self._lock = self._hold()
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%F %T')}")
        self._lock.flush()

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets the folder without the lock, which stays with this one."""
        return _of_another_process, (self.folder,)

    def _hold(self) -> TextIO:
        holder = self.folder / "holder"
        while True:
            make_folder(self.folder)
            with suppress(FileNotFoundError):  # whoever held the folder has just removed it
                lock = holder.open("a+", encoding="utf-8")
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    lock.seek(0)
                    raise InputError(
                        f"The same step runs already: {lock.read() or 'another process'} holds {self.folder}. Wait "
                        "for it, then type the same command, which finds its result; or stop it, and the same command "
                        "goes on where it was."
                    ) from None
                # A lock on a file that was removed in between keeps nobody away.
                if os.path.samestat(os.fstat(lock.fileno()), holder.stat()):
                    return lock

    def write(self, epoch: int, step: int, arrays: Arrays, state: Mapping[str, Any]) -> None:
        """Commit a checkpoint and let go of all but the last two.

        Args:
            epoch: epochs that are complete.
            step: steps of the next epoch that are done.
            arrays: lists of arrays by the name of the file that holds them.
            state: whatever else the training must know, as JSON.
        """
        # One that is there already is damaged, or this training would not have come here again.
        with written_as_a_whole(self.folder / f"{epoch:06d}-{step:08d}", {_STATE: state}) as staged:
            for name, values in arrays.items():
                np.savez(staged / f"{name}.npz", *values)
        for old in self._all()[_KEPT:]:
            remove(old)

    def newest(self) -> tuple[Arrays, dict[str, Any]] | None:
        """Arrays and state of the newest checkpoint that is as it was written; ``None`` where there is none."""
        for folder in self._all():
            record = read_commit(folder)
            damage = "it has no commit file" if record is None else find_damage(folder, record)
            if record is None or damage or _STATE not in record:
                logger.warning("The checkpoint %s is passed over: %s", folder, damage)
                continue
            return {file.stem: _read(file) for file in folder.glob("*.npz")}, record[_STATE]
        return None

    def decide(self, name: str, decision: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What was decided when this training began: a run that goes on does not decide again, for it might differ.

        Args:
            name: of the decision.
            decision: makes it; the result is kept as JSON.
        """
        folder = self.folder / name
        record = read_commit(folder)
        if record is None or "decided" not in record:
            record = {"decided": decision()}
            with written_as_a_whole(folder, record):
                pass  # the record is all there is
        decided: dict[str, Any] = record["decided"]
        return decided

    def remove(self) -> None:
        """Give up all checkpoints and the folder."""
        for path in self.folder.glob("*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
        # Last, for once the lock's file is gone, another process may come in.
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def _all(self) -> list[Path]:
        return sorted((path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)


def _of_another_process(folder: Path) -> Checkpoints:
    checkpoints = Checkpoints.__new__(Checkpoints)
    checkpoints.folder = folder
    return checkpoints


def _read(file: Path) -> list[np.ndarray]:
    with np.load(file, allow_pickle=False) as arrays:
        return [arrays[f"arr_{index}"] for index in range(len(arrays.files))]


class Signals(Protocol):
    """What asks a training to end."""

    @property
    def pending(self) -> bool:
        """Whether somebody has asked."""

    def let_through(self) -> None:
        """End now, if somebody has asked."""


class Deferred:
    """A ``with`` block in which Ctrl-C and SIGTERM wait until somebody is ready for them; a second one is not kept."""

    def __init__(self) -> None:
        self._pending: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Deferred":
        if threading.current_thread() is threading.main_thread():  # others can set no handlers
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
        """Whether a signal waits."""
        return self._pending is not None

    def let_through(self) -> None:
        """Send the signal that waits to those who handled it before."""
        self.__exit__()
        if self._pending is not None:
            signal.raise_signal(self._pending)

    def _note(self, number: int, _: object) -> None:
        if self.pending:
            self.let_through()
        self._pending = number
