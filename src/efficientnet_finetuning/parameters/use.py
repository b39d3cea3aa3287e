"""How a classifier is evaluated, used, extended and exported."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from efficientnet_finetuning.parameters.group import Count, Group


class EvaluationParameters(Group):
    """How the test split is evaluated.

    Attributes:
        batch_size: images in a forward pass.
        flip: average the logits of each image and its mirror image: 1.3 points on CIFAR-10, for twice the time.
        precision: wanted share of right answers; a confidence threshold is chosen for it.
        folds: number of folds of the pipeline ``cross_validation``.
    """

    batch_size: Count = 64
    flip: bool = False
    precision: Annotated[float, Field(gt=0, le=1)] = 0.95
    folds: Annotated[int, Field(ge=2)] = 5


class PredictParameters(Group):
    """The photographs that the pipeline ``predict`` classifies and ``choose_next`` ranks.

    Attributes:
        path: photographs without labels: a file, a folder, a glob, or a CSV with a column ``path``.
        model: the file of a classifier, or the folder of a bundle, to use instead of the job's champion.
        top: number of classes in each answer.
        batch_size: photographs in a forward pass.
    """

    path: str | None = None
    model: Path | None = None
    top: Count = 5
    batch_size: Count = 64

    @property
    def model_file(self) -> Path | None:
        """The file of the classifier that ``model`` names."""
        return self.model / "classifier.keras" if self.model and self.model.is_dir() else self.model


class AddClassParameters(Group):
    """The class that the pipeline ``add_class`` adds to the champion.

    Attributes:
        path: photographs of the new class: a folder, or as in :class:`PredictParameters`.
        name: of the class; ``null``: the folder's name.
        max_loss: largest share of the other classes' images that may be taken for the new class. A larger share
            recognizes more images of the new class.
    """

    path: Path | None = None
    name: Annotated[str, Field(min_length=1)] | None = None
    max_loss: Annotated[float, Field(gt=0, lt=1)] = 0.003


class ExportParameters(Group):
    """The formats that the pipeline ``export`` writes.

    Attributes:
        formats: in addition to the Keras file: ``saved_model`` (TensorFlow), ``litert``, ``litert_float16``,
            ``litert_int8`` (LiteRT, formerly TensorFlow Lite) and ``onnx``, which needs the extra ``export``.
    """

    formats: tuple[Literal["saved_model", "litert", "litert_float16", "litert_int8", "onnx"], ...]
