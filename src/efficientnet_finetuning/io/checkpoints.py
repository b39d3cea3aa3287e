"""A folder where a long node stores its progress, passed to it as an input."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.io.told import ToldDataset
from efficientnet_finetuning.storage import check_place
from efficientnet_finetuning.training.checkpoint import Checkpoints


class CheckpointsDataset(ToldDataset[Checkpoints | None]):
    """A folder of folders, one per recipe that a node works on.

    Attributes:
        key: of the recipe; the runner sets it. Without it there are no checkpoints.
    """

    key: str | None = None
    value: Checkpoints | None = None

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        super().__init__(metadata=metadata)
        self._filepath = Path(filepath)

    def load(self) -> Checkpoints | None:
        """Open and lock the folder of this recipe."""
        self.value = Checkpoints(self._folder) if self._folder else None
        return self.value

    def remove(self) -> None:
        """Remove the checkpoints of this recipe, if any, after their results are stored."""
        if self.value is None and self._folder and self._folder.exists():
            with suppress(InputError):  # another process holds them
                self.load()
        if self.value is not None:
            self.value.remove()
            self.value = None

    def check_place(self) -> None:
        """Refuse a place where nothing can be stored; see :func:`storage.check_place`."""
        check_place(self._filepath)

    @property
    def _folder(self) -> Path | None:
        return self._filepath / self.key[:16] if self.key else None
