"""A classifier for use: photographs in, classes with probabilities out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pandas as pd
from PIL import Image

from efficientnet_finetuning.bundle.novelty import References, distances
from efficientnet_finetuning.bundle.photographs import Photograph, Reader, find_photographs
from efficientnet_finetuning.bundle.stored import find_champion
from efficientnet_finetuning.data.encoded import EncodedImage
from efficientnet_finetuning.evaluation.calibration import log_softmax
from efficientnet_finetuning.models.classifier import TrainedClassifier
from efficientnet_finetuning.models.inference import KerasModel, predict_batches


@dataclass(frozen=True)
class Classifier(TrainedClassifier):
    """A trained classifier that does not answer if it is unsure.

    ``Classifier.champion("photos").predict("new/")`` classifies a folder with the best classifier of the job
    ``photos``.

    Attributes:
        threshold: smallest probability at which it answers, 0–1; ``None`` if no threshold is reliable; 0 if none was
            chosen.
        references: :func:`~efficientnet_finetuning.bundle.novelty.directions` of training images, float16 ``(M,
            channels)``. ``None``: the classifier computes no distance.
        reference_labels: class indices of these, ``(M,)``.
        max_distance: largest distance from these at which it answers, 0–1.
    """

    _ARRAYS: ClassVar[tuple[str, ...]] = ("references", "reference_labels")

    threshold: float | None = 0.0
    references: np.ndarray | None = None
    reference_labels: np.ndarray | None = None
    max_distance: float = 1.0

    @classmethod
    def champion(cls, job: str, data: Path | str = "data") -> Self:
        """Load the newest champion of a job; see :func:`~efficientnet_finetuning.bundle.stored.find_champion`."""
        return cls.load(find_champion(job, Path(data)))

    def predict(
        self,
        photographs: Path | str | Photograph | Sequence[Path | str | Photograph],
        top: int = 5,
        batch_size: int = 64,
    ) -> pd.DataFrame:
        """Classify photographs; see :meth:`answer` for the table.

        Args:
            photographs: a path for :func:`~efficientnet_finetuning.bundle.photographs.find_photographs`, a Pillow
                image, an array, or a list of these. The id of an image or array is its number.
            top: number of classes in the table.
            batch_size: photographs in a forward pass.

        Raises:
            InputError: a path has no photograph, or an array is not an image.
        """
        if isinstance(photographs, (str, Path, EncodedImage, Image.Image, np.ndarray)):
            photographs = [photographs]
        listed: list[Photograph] = []
        for item in photographs:
            listed += find_photographs(item) if isinstance(item, (str, Path)) else [item]
        return pd.concat(list(self.answer(listed, top, batch_size)), ignore_index=True)

    def answer(self, photographs: Sequence[Photograph], top: int, batch_size: int) -> Iterator[pd.DataFrame]:
        """Classify photographs batch by batch, in bounded memory.

        Yields:
            A row per photograph: ``id``; ``class_1``, ``probability_1`` and so on, likeliest first; ``distance`` from
            the training images, 0–1, if the classifier has references; ``answered``: whether ``probability_1`` and the
            distance are within the limits; and ``reason``: empty, or why the photograph is unreadable, as ``<kind>:
            <reason>``. Then its classes are empty and its numbers missing.
        """
        reader = Reader(photographs, self)
        num_classes, start = len(self.class_names), 0
        for outputs in predict_batches(self._network(), reader, batch_size, "photographs", flip=self.flip):
            rows = slice(start, start + len(outputs))
            start = rows.stop
            ids = [_id(item, rows.start + row) for row, item in enumerate(photographs[rows])]
            logits, far = outputs[:, :num_classes], None
            if self.references is not None and self.reference_labels is not None:
                learnt = References(self.references, self.reference_labels)
                far = distances(outputs[:, num_classes:], logits.argmax(1), learnt)
            yield self._table(ids, logits, far, reader.reasons[rows], min(top, num_classes))

    def _checked(self) -> dict[str, bool]:
        return super()._checked() | {
            "threshold": self.threshold is None or abs(self.threshold) < np.inf,
            "max_distance": abs(self.max_distance) < np.inf,
        }

    def _network(self) -> KerasModel:
        if self.references is None:
            return self.model
        from efficientnet_finetuning.models.heads import with_features  # imports Keras

        return with_features(self.model)

    def _table(
        self, ids: list[str], logits: np.ndarray, far: np.ndarray | None, reasons: np.ndarray, top: int
    ) -> pd.DataFrame:
        probabilities = np.exp(log_softmax(logits, self.temperature))
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
        named = np.asarray(self.class_names, dtype=object)[order]
        shares = np.take_along_axis(probabilities, order, axis=1)
        unreadable = reasons != ""
        named[unreadable], shares[unreadable] = "", np.nan
        columns: dict[str, object] = {"id": ids}
        for place in range(top):
            columns |= {f"class_{place + 1}": named[:, place], f"probability_{place + 1}": shares[:, place]}
        answered = shares[:, 0] >= (np.inf if self.threshold is None else self.threshold)
        if far is not None:
            columns["distance"] = np.where(unreadable, np.nan, far)
            answered &= far <= self.max_distance
        return pd.DataFrame(columns | {"answered": answered, "reason": reasons})


def _id(photograph: Photograph, number: int) -> str:
    return photograph.id if isinstance(photograph, EncodedImage) else str(number)
