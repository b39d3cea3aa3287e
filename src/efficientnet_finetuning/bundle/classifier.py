"""A classifier that is ready for use: photographs of any kind in, classes with probabilities out."""

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
    """A trained classifier that knows when not to answer.

    ``Classifier.champion("photos").predict("new/")`` classifies a folder by the best classifier of the job ``photos``.

    Attributes:
        threshold: the least confidence at which it answers, 0–1; ``None`` where no confidence was high enough. Of a
            model whose threshold was not looked for it is 0.
        references: what it has learnt from, of :func:`~efficientnet_finetuning.bundle.novelty.directions`: float16
            ``(M, channels)``. ``None``: it does not know what is unlike everything that it has learnt.
        reference_labels: the class indices of these, ``(M,)``.
        max_distance: the largest distance from these at which it answers, 0–1.
    """

    _ARRAYS: ClassVar[tuple[str, ...]] = ("references", "reference_labels")

    threshold: float | None = 0.0
    references: np.ndarray | None = None
    reference_labels: np.ndarray | None = None
    max_distance: float = 1.0

    @classmethod
    def champion(cls, job: str, data: Path | str = "data") -> Self:
        """The newest champion of a job that was stored as a whole.

        Args:
            job: as in the environment's ``globals.yml``: ``cifar10_sample``, ``folder``.
            data: the project's folder of that name.

        Raises:
            InputError: no champion of that job is stored.
        """
        return cls.load(find_champion(job, Path(data)))

    def predict(
        self,
        photographs: Path | str | Photograph | Sequence[Path | str | Photograph],
        top: int = 5,
        batch_size: int = 64,
    ) -> pd.DataFrame:
        """Classify photographs; see :meth:`answer` for the table.

        Args:
            photographs: a path as :func:`~efficientnet_finetuning.bundle.photographs.find_photographs` takes it, a
                Pillow image, an array, or several of these. One that is no path has its number for an id.
            top: how many classes are named for each.
            batch_size: photographs in a forward pass.

        Raises:
            InputError: there is no photograph at a path, or an array is no image.
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
            A row a photograph: ``id``; ``class_1``, ``probability_1`` and so on for the likeliest classes;
            ``distance`` from everything that was learnt, 0–1, where the classifier has references; ``answered``:
            whether the confidence, ``probability_1``, and the distance keep to its limits; and ``reason``, empty or why
            it could not be read, as ``<kind>: <why>``. The classes of such a one are empty, its numbers missing.
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
