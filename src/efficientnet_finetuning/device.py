"""The device that computes: selected before Keras is imported, and logged once."""

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
    """Set the environment variables that the backend of Keras reads when it is imported."""
    if device.accelerator == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if device.deterministic:
        os.environ["TF_DETERMINISTIC_OPS"] = "1"
    _keep_freed_memory()


@contextmanager
def without_native_output() -> Iterator[None]:
    """Drop the standard error output of compiled libraries; Python's own output stays.

    TensorFlow, XNNPACK and CUDA print a page of lines there that no setting turns off.
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
    """Select the device of this process. Call this before other code imports the backend of Keras.

    Returns:
        A line that names the device.

    Raises:
        InputError: ``accelerator`` is ``gpu``, and there is no GPU.
    """
    prepare_process(device)
    gpus = list_gpus()
    hint = ""
    if not gpus and device.accelerator != "cpu" and shutil.which("nvidia-smi"):
        hint = " An NVIDIA driver is installed. Is the extra `gpu` installed too (pip install -e '.[gpu]')?"
    if device.accelerator == "gpu" and not gpus:
        raise InputError(
            f"device.accelerator is gpu, but Keras' backend sees no GPU on this machine.{hint} "
            "Set device.accelerator to auto to run on the CPU."
        )
    return f"{device_name()}, {device.dtype_policy}.{hint}"


def device_name() -> str:
    """The device that the backend of Keras uses."""
    gpus = list_gpus()
    return f"GPU ({', '.join(gpus)})" if gpus else cpu_name()


def cpu_name() -> str:
    """The CPU, for work that does not use Keras."""
    return f"CPU ({os.cpu_count()} cores)"


def _keep_freed_memory() -> None:
    """Let glibc keep the memory that a training step frees, because the next step needs it again.

    By default it goes back to the kernel, which hands it out again page by page. For Lite0 at 96 px on two cores this
    took half of the processor time: an epoch took 59 s instead of 38 s. The thresholds apply only to the main arena, so
    all threads share it: from 2,500 page faults and 19 ms per image to 300 and 14 ms. A thread keeps the arena it
    already has, so this must run before TensorFlow is imported.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_ARENA_MAX, 1)
    libc.mallopt(_MMAP_THRESHOLD, 1 << 30)
    libc.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
    libc.mallopt(_TOP_PAD, 1 << 28)


def list_gpus() -> list[str]:
    """Names of the GPUs that the backend of Keras uses."""
    import keras

    try:
        return [str(device) for device in keras.distribution.list_devices("gpu")]
    except RuntimeError:  # JAX has no GPU platform
        return []


def use_jit() -> bool:
    """Whether to compile with XLA. It is ten times slower with TensorFlow on CPUs, and faster elsewhere."""
    import keras

    return keras.backend.backend() != "tensorflow" or bool(list_gpus())


def reset_peak_memory() -> None:
    """Restart the measurement of :func:`peak_memory`, if the system can (Linux; proc(5), clear_refs)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory() -> int:
    """The peak memory of this process since the last reset, in bytes, without GPU memory."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes * (1 if platform.system() == "Darwin" else 1024)


def seconds_of(call: Callable[[], Any], rounds: int, enough: float = math.inf) -> list[float]:
    """Seconds of up to ``rounds`` calls after a first one, which compiles; stops after ``enough`` seconds in total."""
    call()
    seconds: list[float] = []
    while len(seconds) < rounds and sum(seconds) < enough:
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return seconds
