"""Base class of our own versioned local datasets."""

from abc import abstractmethod
from pathlib import Path, PurePosixPath
from typing import Any, Generic, TypeVar

from kedro.io import AbstractVersionedDataset, DatasetError, Version

Data = TypeVar("Data")


class LocalVersionedDataset(AbstractVersionedDataset[Data, Data], Generic[Data]):
    """One file or folder per version; subclasses write and read a path."""

    def __init__(
        self, *, filepath: str, version: Version | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        self.metadata = metadata
        super().__init__(PurePosixPath(filepath), version)

    @abstractmethod
    def _write(self, data: Data, path: Path) -> None: ...

    @abstractmethod
    def _read(self, path: Path) -> Data: ...

    def save(self, data: Data) -> None:
        self._write(data, Path(self._get_save_path()))

    def load(self) -> Data:
        return self._read(Path(self._get_load_path()))

    def _exists(self) -> bool:
        try:
            return Path(self._get_load_path()).exists()
        except DatasetError:
            return False

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "version": self._version}
