"""Work on blocks of images: each is done once, whoever does it and however often it is interrupted."""

import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from efficientnet_finetuning.storage import digest, make_folder, naming_full_disk
from efficientnet_finetuning.workers import MapBlocks

Item = TypeVar("Item")

# Seconds of work, so that little is lost with a worker and few wait for the last one.
BLOCK_SIZE = 1024


def cut(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Blocks of so many items; the last one may be smaller."""
    remaining = iter(items)
    while block := list(islice(remaining, size)):
        yield block


def map_resumably(
    function: Callable[[Any], Any],
    blocks: Iterable[Any],
    folder: Path,
    map_blocks: MapBlocks,
    is_sound: Callable[[Any, Any], bool] | None = None,
) -> Iterable[Any]:
    """Results of a function for each block, in order; those that the folder has are not computed again.

    Args:
        function: of a module, or a partial of one; returns what JSON can hold.
        blocks: the same ones each time.
        folder: keeps the results, and is seen by whoever computes.
        map_blocks: the builtin ``map``, or that of other workers.
        is_sound: takes a block and the result that the folder has, and says whether that still holds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return map_blocks(partial(_recall_or_compute, function, folder, is_sound), enumerate(blocks))


def _recall_or_compute(
    function: Callable[[Any], Any],
    folder: Path,
    is_sound: Callable[[Any, Any], bool] | None,
    numbered: tuple[int, Any],
) -> Any:
    number, block = numbered
    file = folder / f"{number:06d}.json"
    with suppress(OSError, ValueError, LookupError, RecursionError, TypeError):  # not there, torn or damaged
        kept = json.loads(file.read_text(encoding="utf-8"))
        result = kept["result"]
        if kept["digest"] == digest(result) and (is_sound is None or is_sound(block, result)):
            return result
    result = function(block)
    # Two workers may do one block, where the first was only believed to be dead.
    staged = folder / f"{file.name}.{socket.gethostname()}.{os.getpid()}"
    make_folder(folder)  # which somebody may have removed as old
    with naming_full_disk(file):
        staged.write_text(json.dumps({"result": result, "digest": digest(result)}), encoding="utf-8")
        staged.replace(file)
    return result
