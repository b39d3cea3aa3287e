"""What the stages of a run cost, handed to the report as one of its inputs."""

from collections.abc import Mapping
from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

Costs = Mapping[str, Mapping[str, Any]]


class CostsDataset(AbstractDataset[NoReturn, Costs]):
    """Cost of the stored versions by the name of the node that made them; of the newest ones, whoever ran them.

    Attributes:
        costs: ``seconds``, ``peak_memory_gb`` and ``device`` by node; whoever runs the nodes sets them. They are no
            reason to run anything anew.
    """

    def __init__(self, *, metadata: dict[str, Any] | None = None) -> None:
        self.costs: Costs = {}
        self.metadata = metadata

    def load(self) -> Costs:
        """By node."""
        return self.costs

    def save(self, data: NoReturn) -> None:
        """Refused: costs are stored with what they were paid for."""
        raise DatasetError(f"{self} is an input only")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {}
