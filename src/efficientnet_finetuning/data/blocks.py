"""Process blocks of images resumably: each block is computed once, even after interruptions."""

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

# A block takes seconds, so little is lost with a worker and few wait for the last block.
BLOCK_SIZE = 1024


def cut(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Cut items into blocks of a size; the last block may be smaller."""
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
    """Apply a function to each block, in order; results that the folder has are not computed again.

    Args:
        function: a module's function or a partial of one; it returns JSON.
        blocks: the same ones in each call.
        folder: stores the results; all workers must see it.
        map_blocks: the builtin ``map``, or the method of workers.
        is_sound: takes a block and its stored result, and says whether the result is still valid.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return map_blocks(partial(_recall_or_compute, function, folder, is_sound), enumerate(blocks))


def _recall_or_compute(
    function: Callable[[Any], Any], folder: Path, is_sound: Callable[[Any, Any], bool] | None, numbered: tuple[int, Any]
) -> Any:
    number, block = numbered
    file = folder / f"{number:06d}.json"
    with suppress(OSError, ValueError, LookupError, RecursionError, TypeError):  # not there, torn or damaged
        kept = json.loads(file.read_text(encoding="utf-8"))
        result = kept["result"]
        if kept["digest"] == digest(result) and (is_sound is None or is_sound(block, result)):
            return result
    result = function(block)
    # Two workers may compute one block if the first only seemed dead.
    staged = folder / f"{file.name}.{socket.gethostname()}.{os.getpid()}"
    make_folder(folder)  # another process may have removed it as old
    with naming_full_disk(file):
        staged.write_text(json.dumps({"result": result, "digest": digest(result)}), encoding="utf-8")
        staged.replace(file)
    return result
