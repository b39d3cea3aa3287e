"""A classifier that is ready for use: photographs of any kind in, classes with probabilities out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from PIL import Image

from efficientnet_finetuning.bundle.photographs import Photograph, Reader, find_photographs
from efficientnet_finetuning.data.encoded import EncodedImage
from efficientnet_finetuning.errors import InputError, near_matches
from efficientnet_finetuning.evaluation.calibration import log_softmax
from efficientnet_finetuning.models.classifier import TrainedClassifier
from efficientnet_finetuning.models.inference import predict_batches

_CHAMPION = "champion_model.keras"


@dataclass(frozen=True)
class Classifier(TrainedClassifier):
    """A trained classifier with the confidence from which on it answers.

    ``Classifier.champion("photos").predict("new/")`` classifies a folder by the best classifier of the job ``photos``.

    Attributes:
        threshold: the least confidence at which it answers, 0–1; ``None`` where no confidence was high enough. Of a
            model whose threshold was not looked for it is 0.
    """

    threshold: float | None = 0.0

    @classmethod
    def champion(cls, job: str, data: Path | str = "data") -> Self:
        """The newest champion of a job that was stored as a whole.

        Args:
            job: as in the environment's ``globals.yml``: ``cifar10_sample``, ``folder``.
            data: the project's folder of that name.

        Raises:
            InputError: no champion of that job is stored.
        """
        models = Path(data) / "06_models"
        versions = sorted(models.glob(f"{job}/{_CHAMPION}/*/{_CHAMPION}"))
        if not versions:
            jobs = sorted(path.parent.name for path in models.glob(f"*/{_CHAMPION}"))
            raise InputError(
                f"No champion of the job {job!r} is stored in {models}.{near_matches(job, jobs)} "
                f"Jobs with a champion: {', '.join(jobs) or 'none'}. `kedro run` makes one."
            )
        return cls.load(versions[-1])

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
            ``answered``: whether the confidence, ``probability_1``, reaches the threshold; and ``reason``, empty or why
            it could not be read, as ``<kind>: <why>``. The classes of such a one are empty, its probabilities missing.
        """
        reader = Reader(photographs, self)
        start = 0
        for logits in predict_batches(self.model, reader, batch_size, "photographs", flip=self.flip):
            rows = slice(start, start + len(logits))
            start = rows.stop
            ids = [_id(item, rows.start + row) for row, item in enumerate(photographs[rows])]
            yield self._table(ids, logits, reader.reasons[rows], min(top, len(self.class_names)))

    def _table(self, ids: list[str], logits: np.ndarray, reasons: np.ndarray, top: int) -> pd.DataFrame:
        probabilities = np.exp(log_softmax(logits, self.temperature))
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
        named = np.asarray(self.class_names, dtype=object)[order]
        shares = np.take_along_axis(probabilities, order, axis=1)
        unreadable = reasons != ""
        named[unreadable], shares[unreadable] = "", np.nan
        columns: dict[str, object] = {"id": ids}
        for place in range(top):
            columns |= {f"class_{place + 1}": named[:, place], f"probability_{place + 1}": shares[:, place]}
        confident = shares[:, 0] >= (np.inf if self.threshold is None else self.threshold)
        return pd.DataFrame(columns | {"answered": confident, "reason": reasons})


def _id(photograph: Photograph, number: int) -> str:
    return photograph.id if isinstance(photograph, EncodedImage) else str(number)
