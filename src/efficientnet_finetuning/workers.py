"""The processes that share the work of a step: this one alone, or workers on other devices and machines.

A step whose work can be distributed takes a :class:`Workers`, and is the same code for one process and for many.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

# Workers.map_blocks, or the builtin map.
MapBlocks = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
Block = TypeVar("Block")
Result = TypeVar("Result")


def num_cores() -> int:
    """Cores that this process may use: in a container, and as one of several workers, fewer than the machine has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, max(1, int(allowed))) if allowed.isdecimal() else cores


class Workers:
    """This process alone; :class:`~efficientnet_finetuning.cluster.workers.RayWorkers` has more.

    Attributes:
        count: how many there are.
        device: what a training computes on, in words; ``None``: this process' own.
    """

    count = 1
    device: str | None = None

    def map_blocks(self, function: Callable[[Block], Result], blocks: Iterable[Block]) -> Iterator[Result]:
        """Results in the order of the blocks, each computed when it is asked for.

        Args:
            function: of a module, or a ``functools.partial`` of one, so that another process can be given it. Memory
                maps go there by the name of their file.
            blocks: what it is called with; any may be computed more than once, if a worker dies.
        """
        return map(function, blocks)

    def train(self, function: Callable[..., Result], *arguments: Any, signals: Any) -> Result:
        """The result of a training, which several ranks may share.

        Args:
            function: takes the arguments, ``signals``, and ``ranks`` where there are several.
            arguments: the same for all ranks.
            signals: that ask for an end, as in :class:`~efficientnet_finetuning.training.checkpoint.Deferred`.
        """
        return function(*arguments, signals=signals)
