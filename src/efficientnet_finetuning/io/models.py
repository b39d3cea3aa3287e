"""Keras models, loaded in safe mode. Keras is imported when a model moves, so that listing a catalog stays quick."""

import hashlib
import zipfile
from abc import abstractmethod
from pathlib import Path
from typing import Any

from efficientnet_finetuning.io.committed import Committed
from efficientnet_finetuning.io.local import LocalVersionedDataset
from efficientnet_finetuning.models.classifier import Classifier
from efficientnet_finetuning.models.inference import KerasModel
from efficientnet_finetuning.storage import digest


class _KerasFile(Committed, LocalVersionedDataset):
    """A ``.keras`` archive, whose content is its members but for the time at which it was saved.

    A model that this process has saved is handed out as it is, not read again, which takes a second: nodes copy a model
    before they change it.
    """

    _saved: tuple[str, Any] | None = None

    def _write(self, data: Any, path: Path) -> None:
        data.save(path)
        self._saved = str(self.resolve_save_version()), data

    def _read(self, path: Path) -> Any:
        if self._saved is not None and self._saved[0] == path.parent.name:
            return self._saved[1]
        return self._from_file(path)

    @abstractmethod
    def _from_file(self, path: Path) -> Any: ...

    def _record(self, staged: Path) -> dict[str, Any]:
        with zipfile.ZipFile(next(staged.iterdir())) as archive:
            members = {
                name: hashlib.sha256(archive.read(name)).hexdigest()
                for name in archive.namelist()
                if name != "metadata.json"
            }
        return super()._record(staged) | {"content": digest(members)}


class KerasModelDataset(_KerasFile):
    """A Keras model in a ``.keras`` file: a backbone or a head."""

    def _from_file(self, path: Path) -> KerasModel:
        import keras

        return keras.models.load_model(path, safe_mode=True)


class ClassifierDataset(_KerasFile):
    """A classifier in a ``.keras`` file that also holds its class names and input size."""

    def _from_file(self, path: Path) -> Classifier:
        return Classifier.load(path)
