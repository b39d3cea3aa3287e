"""Keras models, loaded in safe mode. Keras is imported when a model moves, so that listing a catalog stays quick."""

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
    """A ``.keras`` archive, whose content is its members but for the time at which it was saved."""

    def _record(self, staged: Path) -> dict[str, Any]:
        with zipfile.ZipFile(next(staged.iterdir())) as archive:
            members = {
                name: hashlib.sha256(archive.read(name)).hexdigest()
                for name in archive.namelist()
                if name != "metadata.json"
            }
        return super()._record(staged) | {"content": digest(members)}


class KerasModelDataset(_KerasFile, LocalVersionedDataset[KerasModel]):
    """A Keras model in a ``.keras`` file: a backbone or a head.

    Always read from its file: a classifier put together from models in memory was stored with other content.
    """

    def _write(self, data: KerasModel, path: Path) -> None:
        data.save(path)

    def _read(self, path: Path) -> KerasModel:
        from efficientnet_finetuning.models.untrusted import check_keras_file

        check_keras_file(path)
        import keras

        return keras.models.load_model(path, safe_mode=True)


class ClassifierDataset(_KerasFile, LocalVersionedDataset[TrainedClassifier]):
    """A classifier in a ``.keras`` file that also holds its class names and input size.

    One that this process has saved is handed out as it is, not read again, which takes a second: nodes copy a network
    before they change it.
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
    """A classifier that is ready for use."""

    _kind = Classifier
