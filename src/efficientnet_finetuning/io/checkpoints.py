"""The place where a long node keeps what it has done, handed to it as one of its inputs."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.io.told import ToldDataset
from efficientnet_finetuning.storage import check_place
from efficientnet_finetuning.training.checkpoint import Checkpoints


class CheckpointsDataset(ToldDataset[Checkpoints | None]):
    """A folder of folders, one for each recipe that a node is working on.

    Attributes:
        key: of the recipe; whoever runs the node sets it. Without one there are no checkpoints.
    """

    key: str | None = None
    value: Checkpoints | None = None

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        super().__init__(metadata=metadata)
        self._filepath = Path(filepath)

    def load(self) -> Checkpoints | None:
        """Take hold of the folder of this recipe."""
        self.value = Checkpoints(self._folder) if self._folder else None
        return self.value

    def remove(self) -> None:
        """Give the checkpoints of this recipe up, once what they were for is stored; there may be none."""
        if self.value is None and self._folder and self._folder.exists():
            with suppress(InputError):  # another process holds them
                self.load()
        if self.value is not None:
            self.value.remove()
            self.value = None

    def check_place(self) -> None:
        """Refuse a place where nothing could be kept; see :func:`storage.check_place`."""
        check_place(self._filepath)

    @property
    def _folder(self) -> Path | None:
        return self._filepath / self.key[:16] if self.key else None
