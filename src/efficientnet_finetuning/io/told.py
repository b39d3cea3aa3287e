"""Inputs that come from the run itself instead of a file."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

from kedro.io import AbstractDataset, DatasetError

from efficientnet_finetuning.workers import Workers

Told = Mapping[str, Any]
Value = TypeVar("Value")


class ToldDataset(AbstractDataset[NoReturn, Value]):
    """An input that is not stored, and whose changes cause no new run.

    Attributes:
        value: the runner sets it.
    """

    value: Value

    def __init__(self, *, metadata: dict[str, Any] | None = None) -> None:
        self.metadata = metadata

    def load(self) -> Value:
        """Return the value."""
        return self.value

    def save(self, data: NoReturn) -> None:
        """Refuse to save."""
        raise DatasetError(f"{self} is an input only")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {}


class WorkersDataset(ToldDataset[Workers]):
    """The workers of a run; by default only this process."""

    value = Workers()


class RecordsDataset(ToldDataset[Told]):
    """An input from the records of stored versions."""

    value: Told = MappingProxyType({})


class CostsDataset(RecordsDataset):
    """``seconds``, ``peak_memory_gb`` and ``device`` of the newest stored versions, by node."""


class BeforeDataset(RecordsDataset):
    """The previous run, by the name of the input dataset, if it stored another table there.

    Its ``table``, and the ``differences`` since then in parameters, images, code and libraries.
    """


class RunDataset(RecordsDataset):
    """The current run: its ``command``, ``version`` (start time) and git ``commit``."""


class LineageDataset(RecordsDataset):
    """``version``, ``content`` and ``parameters`` of all datasets that the inputs depend on, by name."""
