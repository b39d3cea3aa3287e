"""Keras models, loaded in safe mode. Keras is imported when a model moves, so that listing a catalog stays quick."""

from pathlib import Path

from efficientnet_finetuning.io.local import LocalVersionedDataset
from efficientnet_finetuning.models.classifier import Classifier
from efficientnet_finetuning.models.inference import KerasModel


class KerasModelDataset(LocalVersionedDataset[KerasModel]):
    """A Keras model in a ``.keras`` file: a backbone or a head."""

    def _write(self, data: KerasModel, path: Path) -> None:
        data.save(path)

    def _read(self, path: Path) -> KerasModel:
        import keras

        return keras.models.load_model(path, safe_mode=True)


class ClassifierDataset(LocalVersionedDataset[Classifier]):
    """A classifier in a ``.keras`` file that also holds its class names and input size."""

    def _write(self, data: Classifier, path: Path) -> None:
        data.save(path)

    def _read(self, path: Path) -> Classifier:
        return Classifier.load(path)
