"""Which images there are, which of them are left out, and how they become squares."""

import re
import warnings
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from efficientnet_finetuning.parameters.group import Auto, Count, Fraction, Group, ImageSize


class DatasetParameters(Group):
    """Which images: a TensorFlow Datasets set by ``name``, or by ``path`` what lies on disk.

    Attributes:
        name: TFDS name, with config and version where wanted: ``cifar100``, ``oxford_iiit_pet:4.0.0``.
        data_dir: folder that holds or receives prepared TFDS sets; TFDS' own default where ``null``.
        download: whether a set that is not prepared may be downloaded.
        image_key, label_key: features of the set; its own supervised keys where ``null``.
        path: folder with ``<class>/*``, or ``train/<class>/*`` and, where there are any, ``validation``, ``test``;
            or a CSV with the columns ``path``, ``label`` and, if wanted, ``split`` and ``group``; or one version of
            a prepared TFDS set.
        follow_symlinks: whether links may lead out of ``path``.
        train_split, validation_split, test_split: splits of the set, TFDS sub-splits included (``train[:10%]``).
            Where the last two are ``null`` the set's own are taken, and where it has none they are cut out of train.
        validation_fraction, test_fraction: the share of each class that is cut where the set has no such split.
        fraction: the share of each class of each split that is used at all, for a smoke run; ``null``: everything.
        max_per_class: likewise, the most images of each class of each split.
        group_pattern: a regular expression that is searched in each id (the path below ``path``); its one group is the
            name of the image's group, as in a CSV's column ``group``. Images of one group stay on one side of every cut
            and in one fold. An image without a name is a group of its own.
        group_near_duplicates: whether images that look the same are one group, too.
        corrections: a CSV of labels to change and images to leave out: see
            :mod:`~efficientnet_finetuning.data.corrections`.
    """

    name: str | None = None
    data_dir: Path | None = None
    download: bool = True
    image_key: str | None = None
    label_key: str | None = None
    path: Path | None = None
    follow_symlinks: bool = False
    train_split: str = "train"
    validation_split: str | None = None
    test_split: str | None = None
    validation_fraction: Fraction = 0.1
    test_fraction: Fraction = 0.2
    fraction: Fraction | None = None
    max_per_class: Count | None = None
    group_pattern: str | None = None
    group_near_duplicates: bool = True
    # What depends on it takes its content as an input; the look at every image does not.
    corrections: Path | None = Field(default=None, exclude=True)

    @model_validator(mode="after")
    def _one_source(self) -> "DatasetParameters":
        if (self.name is None) == (self.path is None):
            given = "neither" if self.name is None else "both"
            raise ValueError(
                f"give either `name` (a TensorFlow Datasets set) or `path` (a folder or a CSV), not {given}. "
                "For a folder, add --env folder to the command; else set the other one to null."
            )
        if self.fraction is not None and self.max_per_class is not None:
            raise ValueError("give either `fraction` or `max_per_class`, not both.")
        return self

    @field_validator("group_pattern")
    @classmethod
    def _one_group(cls, pattern: str | None) -> str | None:
        try:
            groups = re.compile(pattern).groups if pattern is not None else 1
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}.") from error
        if groups != 1:
            raise ValueError(
                f"{pattern!r} has {groups} groups in parentheses. It needs one, which holds the name, such as "
                "'(patient[0-9]+)'; write the others as (?:…)."
            )
        return pattern


class AuditParameters(Group):
    """What happens to images that cannot or should not be learnt from.

    Attributes:
        on_bad_image: ``exclude`` leaves an undecodable, truncated, empty, too large, too small or single-coloured
            image out; ``fail`` stops the run. Copies of another image are always left out.
        max_excluded_fraction: the run stops where a larger share of the images would be left out.
        max_megapixels: larger images are refused from their header. Pillow itself refuses more than 178.
    """

    on_bad_image: Literal["exclude", "fail"] = "exclude"
    max_excluded_fraction: Annotated[float, Field(ge=0, le=1)] = 0.05
    max_megapixels: Annotated[float, Field(gt=0, le=178)] = 100


class PreprocessingParameters(Group):
    """How an image becomes a square.

    Attributes:
        image_size: side in pixels; the backbone's native resolution where ``null``; what the pipeline
            ``choose_backbone`` recommended where ``auto``. In the same time 128 px gave 2.7 points more than 96.
        resize: ``stretch`` to a square, scale the shorter side and ``center_crop``, or scale the longer side and
            ``pad`` with the background colour. By folds over 223 photographs of many shapes (224 px, a head on frozen
            features, four draws): 86.8, 84.6 and 86.5 % right.
        interpolation: ``bicubic`` or ``bilinear``, both with anti-aliasing.
        background: ``#rrggbb``, seen where an image is transparent or padded.
    """

    image_size: ImageSize | Auto | None = None
    resize: Literal["stretch", "center_crop", "pad"] = "stretch"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    background: Annotated[str, Field(pattern="^#[0-9a-fA-F]{6}$")] = "#ffffff"

    @model_validator(mode="after")
    def _multiple_of_8(self) -> "PreprocessingParameters":
        if isinstance(self.image_size, int) and self.image_size % 8:
            warnings.warn(
                f"preprocessing.image_size is {self.image_size}, not a multiple of 8: zero padding near the image "
                "boundary then wastes computation and costs a little accuracy.",
                stacklevel=2,
            )
        return self
