"""Folders of files of any kind."""

from collections.abc import Mapping
from pathlib import Path

from efficientnet_finetuning.bundle.formats import read_files, write_files
from efficientnet_finetuning.io.committed import Committed
from efficientnet_finetuning.io.local import LocalVersionedDataset


class FilesDataset(Committed, LocalVersionedDataset[Mapping[str, bytes]]):
    """A folder, as the content of its files by relative path."""

    def _write(self, data: Mapping[str, bytes], path: Path) -> None:
        path.mkdir()
        write_files(data, path)

    def _read(self, path: Path) -> Mapping[str, bytes]:
        return read_files(path)
