"""Who computes: this process, or workers on other devices and machines.

The steps that can be shared out take a :class:`Workers`. They do not know who is behind it.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from efficientnet_finetuning.device import device_name

Block = TypeVar("Block")
Result = TypeVar("Result")


class Workers:
    """This process alone; :class:`~efficientnet_finetuning.cluster.workers.RayWorkers` has more.

    Attributes:
        count: how many there are.
    """

    count = 1

    @property
    def device(self) -> str:
        """What a training computes on."""
        return device_name()

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
