"""The backbone, and how one is recommended."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from efficientnet_finetuning.errors import near_matches
from efficientnet_finetuning.models.architectures import ARCHITECTURES
from efficientnet_finetuning.parameters.data import PreprocessingParameters
from efficientnet_finetuning.parameters.group import Group, ImageSize


class BackboneParameters(Group):
    """The pretrained network below the head.

    Attributes:
        name: a key of the table in ``models/architectures.py``, or ``auto``: the recommendation of the pipeline
            ``choose_backbone`` for this job.
        weights: ``imagenet``, ``none``, or a weights file. The baseline always starts from random weights.
    """

    name: str
    weights: str = "imagenet"

    @model_validator(mode="after")
    def _known(self) -> "BackboneParameters":
        if self.name != "auto":
            _check_backbone(self.name)
        if self.weights not in ("imagenet", "none") and not Path(self.weights).is_file():
            raise ValueError(
                f"weights {self.weights!r} is not `imagenet`, `none` or an existing file."
                f"{near_matches(self.weights, ('imagenet', 'none'))}"
            )
        return self


def _check_backbone(name: str) -> None:
    if name not in ARCHITECTURES:
        raise ValueError(
            f"unknown backbone {name!r}.{near_matches(name, ARCHITECTURES)} Known: {', '.join(ARCHITECTURES)}."
        )


class ChoiceParameters(Group):
    """The candidates of the pipeline ``choose_backbone``.

    Attributes:
        backbones: keys of the table in ``models/architectures.py``, with ImageNet weights. A backbone whose weights are
            not available is skipped.
        image_sizes: sides in pixels. Each backbone is measured at each size.
        max_images: largest number of training images used, with the same share of each class.
        time_budget_minutes: limit for fine-tuning. Slower candidates are not recommended.
    """

    backbones: Annotated[tuple[str, ...], Field(min_length=1)]
    image_sizes: Annotated[tuple[ImageSize, ...], Field(min_length=1)]
    max_images: Annotated[int, Field(ge=20)] = 1_000
    time_budget_minutes: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _known(self) -> "ChoiceParameters":
        for name in self.backbones:
            _check_backbone(name)
        return self


def image_size(preprocessing: PreprocessingParameters, backbone: BackboneParameters) -> int:
    """Side of the square images in pixels: the given one, or the backbone's native resolution."""
    assert preprocessing.image_size != "auto"
    return preprocessing.image_size or ARCHITECTURES[backbone.name].resolution
