"""The ranks of a training: the processes that share each batch of it."""


class Ranks:
    """This process alone; :class:`~efficientnet_finetuning.cluster.rank.JaxRanks` is one of several.

    Attributes:
        rank: which one this is, from 0, which alone writes checkpoints.
        count: how many there are.
    """

    rank, count = 0, 1

    def agree(self, number: float) -> float:
        """The number of the first rank, whose clock and signals decide for all. All ranks must call this together."""
        return number

    def part_of(self, rows: int) -> slice:
        """This rank's rows of a batch, which are as many on each; what cannot be shared evenly comes after them."""
        own = rows // self.count
        return slice(self.rank * own, (self.rank + 1) * own)
