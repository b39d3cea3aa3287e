"""Who computes, handed to the nodes that can be shared out as one of their inputs."""

from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

from efficientnet_finetuning.workers import Workers


class WorkersDataset(AbstractDataset[NoReturn, Workers]):
    """The workers of a run. Results do not depend on them, so they are no part of a recipe.

    Attributes:
        workers: whoever starts the run sets them.
    """

    def __init__(self, *, metadata: dict[str, Any] | None = None) -> None:
        self.workers = Workers()
        self.metadata = metadata

    def load(self) -> Workers:
        """Hand them out."""
        return self.workers

    def save(self, data: NoReturn) -> None:
        """Refused: nothing is stored here."""
        raise DatasetError(f"{self} is an input only")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {}
