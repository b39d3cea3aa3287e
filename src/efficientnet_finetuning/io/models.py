"""Keras models, loaded in safe mode. Keras is imported late, so that listing a catalog is fast."""

import hashlib
import zipfile
from pathlib import Path
from typing import Any

from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.io.committed import Committed
from efficientnet_finetuning.io.local import LocalVersionedDataset
from efficientnet_finetuning.models.classifier import TrainedClassifier
from efficientnet_finetuning.models.inference import KerasModel
from efficientnet_finetuning.storage import digest


class _KerasFile(Committed):
    """A ``.keras`` archive; its content hash ignores the time of saving."""

    def _record(self, staged: Path) -> dict[str, Any]:
        with zipfile.ZipFile(next(staged.iterdir())) as archive:
            members = {
                name: hashlib.sha256(archive.read(name)).hexdigest()
                for name in archive.namelist()
                if name != "metadata.json"
            }
        return super()._record(staged) | {"content": digest(members)}


class KerasModelDataset(_KerasFile, LocalVersionedDataset[KerasModel]):
    """A backbone or a head in a ``.keras`` file.

    Always read from its file: a classifier built from models in memory would be stored with other content.
    """

    def _write(self, data: KerasModel, path: Path) -> None:
        data.save(path)

    def _read(self, path: Path) -> KerasModel:
        from efficientnet_finetuning.models.untrusted import check_keras_file

        check_keras_file(path)
        import keras

        return keras.models.load_model(path, safe_mode=True)


class ClassifierDataset(_KerasFile, LocalVersionedDataset[TrainedClassifier]):
    """A classifier in a ``.keras`` file with its class names and input size.

    Loading returns the object that this process saved, which saves a second; nodes copy a network before they change
    it.
    """

    _kind: type[TrainedClassifier] = TrainedClassifier
    _saved: tuple[str, TrainedClassifier] | None = None

    def _write(self, data: TrainedClassifier, path: Path) -> None:
        data.save(path)
        self._saved = str(self.resolve_save_version()), data

    def _read(self, path: Path) -> TrainedClassifier:
        if self._saved is not None and self._saved[0] == path.parent.name:
            return self._saved[1]
        return self._kind.load(path)


class ChampionDataset(ClassifierDataset):
    """A classifier for use."""

    _kind = Classifier
