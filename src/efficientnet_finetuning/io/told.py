"""What the runner tells a node of the run itself, handed to it as one of its inputs."""

from collections.abc import Mapping
from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

Told = Mapping[str, Any]


class ToldDataset(AbstractDataset[NoReturn, Told]):
    """An input that is read from the records of stored versions, and no reason to run anything anew.

    Attributes:
        value: whoever runs the nodes sets it.
    """

    def __init__(self, *, metadata: dict[str, Any] | None = None) -> None:
        self.value: Told = {}
        self.metadata = metadata

    def load(self) -> Told:
        """What was told."""
        return self.value

    def save(self, data: NoReturn) -> None:
        """Refused: it stands in the records of what is stored."""
        raise DatasetError(f"{self} is an input only")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {}


class CostsDataset(ToldDataset):
    """Cost of the stored versions by the name of the node that made them; of the newest ones, whoever ran them.

    ``seconds``, ``peak_memory_gb`` and ``device`` by node.
    """


class BeforeDataset(ToldDataset):
    """What the run before has stored: tables by the name of the dataset among the node's inputs, where there is one."""


class LineageDataset(ToldDataset):
    """What a node's inputs descend from: ``version``, ``content`` and ``parameters`` by the name of the dataset."""
