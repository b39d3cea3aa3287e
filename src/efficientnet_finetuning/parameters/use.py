"""How a classifier is evaluated, used, extended and exported."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from efficientnet_finetuning.parameters.group import Count, Group


class EvaluationParameters(Group):
    """How the test split is evaluated.

    Attributes:
        batch_size: images in a forward pass.
        flip: average the logits of each image and of its mirror image; twice the time.
        precision: share of right answers for which a threshold of confidence is looked for.
        folds: into which the pipeline ``cross_validation`` cuts all images.
    """

    batch_size: Count = 64
    flip: bool = False
    precision: Annotated[float, Field(gt=0, le=1)] = 0.95
    folds: Annotated[int, Field(ge=2)] = 5


class PredictParameters(Group):
    """What the pipeline ``predict`` classifies, and ``choose_next`` ranks.

    Attributes:
        path: photographs without labels: a file, a folder, a glob, or a CSV with a column ``path``.
        model: a classifier's file, or a bundle's folder, in the place of the job's champion.
        top: how many classes are named for each photograph.
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
    """What the pipeline ``add_class`` adds to the champion.

    Attributes:
        path: photographs of the new class: a folder, or as in :class:`PredictParameters`.
        name: of the class; the folder's where ``null``.
        max_loss: share of the known classes' images that may be lost to it. The more may be, the more of its own are
            recognized.
    """

    path: Path | None = None
    name: Annotated[str, Field(min_length=1)] | None = None
    max_loss: Annotated[float, Field(gt=0, lt=1)] = 0.003


class ExportParameters(Group):
    """What the pipeline ``export`` writes.

    Attributes:
        formats: beside the Keras file: ``saved_model`` (TensorFlow), ``litert``, ``litert_float16``, ``litert_int8``
            (LiteRT, once TensorFlow Lite) and ``onnx``, which needs the extra ``export``.
    """

    formats: tuple[Literal["saved_model", "litert", "litert_float16", "litert_int8", "onnx"], ...]
