"""The place where a long node keeps what it has done, handed to it as one of its inputs."""

from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.storage import check_place
from efficientnet_finetuning.training.checkpoint import Checkpoints


class CheckpointsDataset(AbstractDataset[NoReturn, Checkpoints | None]):
    """A folder of folders, one for each recipe that a node is working on.

    Attributes:
        key: of the recipe; whoever runs the node sets it. Without one there are no checkpoints.
    """

    key: str | None = None
    _held: Checkpoints | None = None

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> Checkpoints | None:
        """Take hold of the folder of this recipe."""
        self._held = Checkpoints(self._folder) if self._folder else None
        return self._held

    def save(self, data: NoReturn) -> None:
        """Refused: the node writes there itself, at its own time."""
        raise DatasetError(f"{self} is an input only")

    def remove(self) -> None:
        """Give the checkpoints of this recipe up, once what they were for is stored; there may be none."""
        if self._held is None and self._folder and self._folder.exists():
            with suppress(InputError):  # another process holds them
                self.load()
        if self._held is not None:
            self._held.remove()
            self._held = None

    def check_place(self) -> None:
        """Refuse a place where nothing could be kept; see :func:`storage.check_place`."""
        check_place(self._filepath)

    @property
    def _folder(self) -> Path | None:
        return self._filepath / self.key[:16] if self.key else None

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath}
