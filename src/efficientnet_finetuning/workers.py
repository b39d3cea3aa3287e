"""The processes that share the work of a step: only this one, or workers on other devices and machines.

Steps receive a :class:`Workers` object, so their code is the same for one process and for many.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

# Workers.map_blocks, or the builtin map.
MapBlocks = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
Block = TypeVar("Block")
Result = TypeVar("Result")


def num_cores() -> int:
    """Cores that this process may use. In a container or in a worker, these are fewer than the machine has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, max(1, int(allowed))) if allowed.isdecimal() else cores


class Workers:
    """This process alone; :class:`~efficientnet_finetuning.cluster.workers.RayWorkers` distributes the work.

    Attributes:
        count: number of workers.
        device: description of the training device; ``None``: the device of this process.
    """

    count = 1
    device: str | None = None

    def map_blocks(self, function: Callable[[Block], Result], blocks: Iterable[Block]) -> Iterator[Result]:
        """Results in the order of the blocks, computed lazily.

        Args:
            function: a module-level function or a ``functools.partial`` of one, so that it can be sent to other
                processes. Memory maps are sent by file name.
            blocks: its arguments. A block may be computed twice if a worker dies.
        """
        return map(function, blocks)

    def train(self, function: Callable[..., Result], *arguments: Any, signals: Any) -> Result:
        """Run a training function, possibly on several ranks, and return its result.

        Args:
            function: takes the arguments, ``signals`` and, with several ranks, ``ranks``.
            arguments: the same for all ranks.
            signals: requests to stop, as in :class:`~efficientnet_finetuning.training.checkpoint.Deferred`.
        """
        return function(*arguments, signals=signals)
