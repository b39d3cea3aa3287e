"""What a node is told of the run itself, handed to it as one of its inputs."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

from kedro.io import AbstractDataset, DatasetError

from efficientnet_finetuning.workers import Workers

Told = Mapping[str, Any]
Value = TypeVar("Value")


class ToldDataset(AbstractDataset[NoReturn, Value]):
    """An input that is stored nowhere, and no reason to run anything anew.

    Attributes:
        value: whoever runs the nodes sets it.
    """

    value: Value

    def __init__(self, *, metadata: dict[str, Any] | None = None) -> None:
        self.metadata = metadata

    def load(self) -> Value:
        """What was told."""
        return self.value

    def save(self, data: NoReturn) -> None:
        """Refused: there is no place for it."""
        raise DatasetError(f"{self} is an input only")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {}


class WorkersDataset(ToldDataset[Workers]):
    """The workers of a run: this process alone, unless whoever starts the run has others."""

    value = Workers()


class RecordsDataset(ToldDataset[Told]):
    """An input that is read from the records of stored versions."""

    value: Told = MappingProxyType({})


class CostsDataset(RecordsDataset):
    """Cost of the stored versions by the name of the node that made them; of the newest ones, whoever ran them.

    ``seconds``, ``peak_memory_gb`` and ``device`` by node.
    """


class BeforeDataset(RecordsDataset):
    """The run before, by the name of the dataset among the node's inputs, where it stored another table.

    Its ``table``, and ``differences``: what has changed since then in parameters, images, code and libraries.
    """


class RunDataset(RecordsDataset):
    """The run that makes a node's outputs: its ``command``, its ``version`` (when it began) and the git ``commit``."""


class LineageDataset(RecordsDataset):
    """What a node's inputs descend from: ``version``, ``content`` and ``parameters`` by the name of the dataset."""
