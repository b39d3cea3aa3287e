"""Which device computes: chosen before Keras is imported, said once, and never guessed in silence."""

import ctypes
import math
import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import DeviceParameters

# glibc's names for mallopt (malloc.h).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8


def prepare_process(device: DeviceParameters) -> None:
    """Set what Keras' backend reads when it is imported. Nothing heavy is imported here."""
    if device.accelerator == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if device.deterministic:
        os.environ["TF_DETERMINISTIC_OPS"] = "1"
    _keep_freed_memory()


@contextmanager
def without_native_output() -> Iterator[None]:
    """Drop what compiled libraries write to the standard error past every logger, and keep what Python writes there.

    TensorFlow, its XNNPACK delegate and CUDA greet with a page of lines there that no setting turns off.
    """
    before, kept = sys.stderr, os.dup(2)
    before.flush()
    with Path(os.devnull).open("w") as nowhere, open(kept, "w", buffering=1, closefd=False) as ours:
        os.dup2(nowhere.fileno(), 2)
        sys.stderr = ours
        try:
            yield
        finally:
            sys.stderr = before
            ours.flush()
            os.dup2(kept, 2)
            os.close(kept)


def select_device(device: DeviceParameters) -> str:
    """Choose the device for this process, before anything else imports Keras' backend.

    Returns:
        A line that names the device.

    Raises:
        InputError: a GPU was asked for and none is there.
    """
    prepare_process(device)
    gpus = list_gpus()
    hint = ""
    if not gpus and device.accelerator != "cpu" and shutil.which("nvidia-smi"):
        hint = " An NVIDIA driver is here: is the extra `gpu` installed (pip install -e '.[gpu]')?"
    if device.accelerator == "gpu" and not gpus:
        raise InputError(
            f"device.accelerator is gpu, but Keras' backend sees no GPU on this machine.{hint} "
            "Set device.accelerator to auto to run on the CPU."
        )
    return f"{device_name()}, {device.dtype_policy}.{hint}"


def device_name() -> str:
    """What Keras' backend computes on."""
    gpus = list_gpus()
    return f"GPU ({', '.join(gpus)})" if gpus else cpu_name()


def cpu_name() -> str:
    """What computes where Keras does not."""
    return f"CPU ({os.cpu_count()} cores)"


def _keep_freed_memory() -> None:
    """Let glibc keep the memory that a training step frees, since the next step asks for it again.

    By default it goes back to the kernel, which hands it out page by page anew. With Lite0 at 96 px on two cores
    half of all processor time went there, and an epoch took 59 s instead of 38 s. The thresholds hold for the main
    arena alone, so all threads share that one: it brought a step from 2,500 page faults and 19 ms an image to 300 and
    14. A thread that has an arena already keeps it, so this comes before TensorFlow is imported.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_ARENA_MAX, 1)
    libc.mallopt(_MMAP_THRESHOLD, 1 << 30)
    libc.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
    libc.mallopt(_TOP_PAD, 1 << 28)


def list_gpus() -> list[str]:
    """Names of the GPUs that Keras' backend computes on."""
    import keras

    try:
        return [str(device) for device in keras.distribution.list_devices("gpu")]
    except RuntimeError:  # how JAX says that there is no such platform
        return []


def use_jit() -> bool:
    """Whether XLA pays: on TensorFlow's CPU backend it is ten times slower, elsewhere it is faster."""
    import keras

    return keras.backend.backend() != "tensorflow" or bool(list_gpus())


def reset_peak_memory() -> None:
    """Let :func:`peak_memory` count from now on, where the system can (Linux; proc(5), clear_refs)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory() -> int:
    """The most memory that this process has held since the last reset, in bytes; a GPU's is not counted."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes * (1 if platform.system() == "Darwin" else 1024)


def seconds_of(call: Callable[[], Any], rounds: int, enough: float = math.inf) -> list[float]:
    """Seconds of each call but the first, which compiles; of fewer than ``rounds`` once ``enough`` seconds are over."""
    call()
    seconds: list[float] = []
    while len(seconds) < rounds and sum(seconds) < enough:
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return seconds
