"""The ranks of a training: the processes that share each batch."""


class Ranks:
    """This process alone; :class:`~efficientnet_finetuning.cluster.rank.JaxRanks` is one of several.

    Attributes:
        rank: number of this rank, from 0. Only rank 0 writes checkpoints.
        count: number of ranks.
    """

    rank, count = 0, 1

    def agree(self, number: float) -> float:
        """The first rank's number, so that its clock and signals count for all. All ranks must call this together."""
        return number

    def part_of(self, rows: int) -> slice:
        """This rank's rows of a batch, equally many on each rank. The rest comes after them."""
        own = rows // self.count
        return slice(self.rank * own, (self.rank + 1) * own)
