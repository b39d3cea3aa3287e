"""Kedro's command line in a process that kills itself: ``launcher.py POINT N run --pipelines finetune``.

The product has no hooks for tests, so what it calls is wrapped from outside. With N = 0 nothing is killed, and the
number of times that each point was reached is written as JSON to the file that POINT names.
"""

import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The project in this folder, before any other copy of its package.
sys.path.insert(0, str(Path.cwd() / "src"))

import numpy as np

from efficientnet_finetuning import storage
from efficientnet_finetuning.data import blocks
from efficientnet_finetuning.io import arrays, models, sources

POINT, NUMBER = sys.argv[1], int(sys.argv[2])
reached: Counter[str] = Counter()


def reach(point: str, leave_behind: Callable[[], object] = lambda: None) -> None:
    """Note that a point was reached; where it is the one, leave something behind and die."""
    reached[point] += 1
    if point == POINT and reached[point] == NUMBER:
        leave_behind()
        os.kill(os.getpid(), signal.SIGKILL)


def kind(path: Path) -> str:
    """Whose file it is: checkpoints are staged in a folder of this name, datasets are not."""
    return "checkpoint" if "partial" in path.parts or "finetune_checkpoints" in path.parts else "dataset"


def cut(path: Path) -> None:
    """Leave half of a file, or half of the largest file of a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    largest = max(files, key=lambda file: file.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)


def wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    original = getattr(owner, name)
    setattr(owner, name, lambda *args, **kwargs: around(original, *args, **kwargs))


def sync(original: Callable[..., Any], path: Path) -> None:
    reach(f"{kind(path)}: before a file is synced")
    original(path)


def write_text(original: Callable[..., Any], path: Path, text: str, *args: Any, **kwargs: Any) -> int:
    if path.name == storage.COMMIT_FILE:
        reach(f"{kind(path)}: half of commit.json", lambda: original(path, text[: len(text) // 2], *args, **kwargs))
    return original(path, text, *args, **kwargs)


def rename(original: Callable[..., Any], path: Path, target: Path) -> Path:
    if sys._getframe(2).f_globals["__name__"] != storage.__name__:
        return original(path, target)
    reach(f"{kind(path)}: before the rename")
    renamed = original(path, target)
    reach(f"{kind(path)}: after the rename")
    return renamed


def replace(original: Callable[..., Any], path: Path, target: Path) -> Path:
    replaced = original(path, target)
    if sys._getframe(2).f_globals["__name__"] == blocks.__name__:
        reach("block: after the rename")
    return replaced


def savez(original: Callable[..., Any], file: Path, *values: Any) -> None:
    reach("checkpoint: between two files")
    original(file, *values)
    reach("checkpoint: half of a file", lambda: cut(file))


def write(original: Callable[..., Any], dataset: Any, data: Any, path: Path) -> None:
    original(dataset, data, path)
    reach("dataset: half of a file", lambda: cut(path))


def remove(original: Callable[..., Any], folder: Path, *args: Any, **kwargs: Any) -> None:
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    if files and kind(Path(folder)) == "checkpoint":
        at_the_end = any(file.name == "holder" for file in files)
        reach(f"checkpoint: half removed{' at the end' if at_the_end else ''}", files[-1].unlink)
    original(folder, *args, **kwargs)


def main() -> None:
    wrap(storage, "_sync", sync)
    wrap(Path, "write_text", write_text)
    wrap(Path, "rename", rename)
    wrap(Path, "replace", replace)
    wrap(np, "savez", savez)
    wrap(shutil, "rmtree", remove)
    for dataset in (
        arrays.ArraysDataset,
        arrays.ExamplesDataset,
        models.KerasModelDataset,
        models.ClassifierDataset,
        sources.SourceDataset,
    ):
        wrap(dataset, "_write", write)
    from kedro.framework.cli import main as kedro

    sys.argv = ["kedro", *sys.argv[3:]]
    try:
        kedro()
    finally:
        if NUMBER == 0:
            Path(POINT).write_text(json.dumps(reached))


if __name__ == "__main__":
    main()
