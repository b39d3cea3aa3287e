"""Every parameter of every run: typed, frozen, closed, and checked before anything heavy is imported."""

import re
import warnings
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from efficientnet_finetuning.errors import near_matches
from efficientnet_finetuning.models.architectures import ARCHITECTURES

Fraction = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
ClassWeight = Literal["none", "balanced"]
Auto = Literal["auto"]
ImageSize = Annotated[int, Field(ge=32)]


class _Group(BaseModel):
    """A group of parameters: no unknown names, no change after validation, defaults checked too."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class DatasetParameters(_Group):
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
                "Set the other one to null."
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


class AuditParameters(_Group):
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


class PreprocessingParameters(_Group):
    """How an image becomes a square.

    Attributes:
        image_size: side in pixels; the backbone's native resolution where ``null``; what the pipeline
            ``choose_backbone`` recommended where ``auto``.
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


class BackboneParameters(_Group):
    """The network below the head.

    Attributes:
        name: a key of the table in ``models/architectures.py``; ``auto``: the one that the pipeline
            ``choose_backbone`` recommended for this job.
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
                f"weights {self.weights!r} is neither `imagenet` nor `none` nor an existing file."
                f"{near_matches(self.weights, ('imagenet', 'none'))}"
            )
        return self


def _check_backbone(name: str) -> None:
    if name not in ARCHITECTURES:
        raise ValueError(
            f"unknown backbone {name!r}.{near_matches(name, ARCHITECTURES)} Known: {', '.join(ARCHITECTURES)}."
        )


class ChoiceParameters(_Group):
    """What the pipeline ``choose_backbone`` tries.

    Attributes:
        backbones: keys of the table in ``models/architectures.py``, with ImageNet's weights. One whose weights cannot
            be had is left out, with the reason.
        image_sizes: sides in pixels; each backbone is tried at each of them.
        max_images: training images that are looked at, at most, of each class the same share.
        time_budget_minutes: that fine-tuning may take. What would take longer is not recommended.
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


class DeviceParameters(_Group):
    """Where the heavy nodes run.

    Attributes:
        accelerator: ``auto`` (a GPU where there is one), ``gpu`` (an error where there is none) or ``cpu``.
        mixed_precision: the compute type of backbones that are built: ``none`` is float32. Weights and logits
            stay in float32. Worth it on a GPU only.
        deterministic: the same run gives the same weights to the bit; slower where TensorFlow has faster ways.
        workers: how many processes share the work: each has a GPU or, where there is none, a part of the cores; ``all``
            is one for each GPU, or each core. More than one needs the extra ``cluster``, and trains with JAX.
        verbose: let the libraries below Keras say what they do, too.
    """

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    mixed_precision: Literal["none", "bfloat16", "float16"] = "none"
    deterministic: bool = False
    workers: Count | Literal["all"] = Field(default=1, exclude=True)
    verbose: bool = Field(default=False, exclude=True)

    @property
    def dtype_policy(self) -> str:
        """Keras' name for the precision."""
        return "float32" if self.mixed_precision == "none" else f"mixed_{self.mixed_precision}"


class ClusterParameters(_Group):
    """Where the workers are, if there are several.

    Attributes:
        address: of a Ray cluster: ``auto`` on one of its machines, else ``ray://<host>:10001``; ``null``: a cluster of
            this machine alone, which the run starts and stops.
        max_restarts: how often the ranks of a training start again from the last checkpoint after one of them died.
    """

    address: str | None = None
    max_restarts: Annotated[int, Field(ge=0)] = 3

    @field_validator("address")
    @classmethod
    def _known_kind(cls, address: str | None) -> str | None:
        if address not in (None, "auto") and not address.startswith("ray://"):
            raise ValueError(f"{address!r} is no address. Give auto, ray://<host>:10001, or null for this machine.")
        return address


class AugmentationParameters(_Group):
    """Random changes of a training image, each drawn anew for every image of every epoch.

    Attributes:
        flip: ``none``, ``horizontal`` or ``horizontal_and_vertical``.
        translation: largest shift, as a fraction of height and width.
        rotation: largest turn either way, as a fraction of a full circle.
        contrast: largest relative change of contrast.
        color_jitter: largest relative change of brightness, of contrast and of saturation, one after the other; for
            long trainings, together with ``erasing``.
        erasing: share of the images into which a square of one colour is painted: for long trainings (random erasing,
            Zhong et al. 2017, arXiv:1708.04896).
    """

    flip: Literal["none", "horizontal", "horizontal_and_vertical"] = "horizontal"
    translation: Rate = 0.0
    rotation: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    contrast: Rate = 0.0
    color_jitter: Rate = 0.0
    erasing: Rate = 0.0


class TrainingParameters(_Group):
    """One training run, from whichever start.

    What each lever of fine-tuning brought stands in :mod:`~efficientnet_finetuning.training.rules`.

    Attributes:
        epochs: passes over the training images. ``auto``, here and below, follows the rules in ``training/rules.py``.
        time_budget_minutes: takes the place of ``epochs``: the schedule follows the clock and ends with the budget, in
            the middle of an epoch where need be. A training that goes on counts only the time that it ran.
        batch_size: images in a step, or ``auto``.
        optimizer: ``adamw``, ``sgd`` (momentum 0.9) or ``rmsprop``.
        learning_rate: peak of the schedule, or ``auto``; ``find`` asks the learning-rate finder first.
        schedule: ``cosine`` (linear warm-up, then down to zero) or ``constant``.
        warmup_fraction: share of all steps that warm up.
        stage_decay: a stage's learning rate as a share of that of the stage above it; 1: the same for all.
        start_loss: scale the start's logits down until the training loss is this share of guessing's. A fitted head is
            sure of the few images that it was fitted on, which then teach the backbone nothing. ``null``: as it is.
            ``auto``: 0.8 where there are few images.
        weight_decay: AdamW's decoupled decay, of kernels only.
        start_decay: likewise towards the weights that training starts from, of all but the head. ``auto``: 50 where
            there are few images, else 0.
        label_smoothing: share of a label that is spread over all classes.
        class_weight: ``balanced`` weighs an image by the inverse of its class' frequency, one on average.
        drop_connect_rate: stochastic depth: the rate of the last block, growing linearly from zero.
        head_dropout: dropout before the logits.
        unfreeze_from: ``all``, the lowest block that is trained (``block6a``), or ``head``; below, all stays frozen.
        cached_views: where something stays frozen, how many augmented views of each image are taken through it once
            and kept (as float16 on the disk) for the epochs to take in turn; ``null``: every epoch computes its own.
        freeze_batch_norm: keep BatchNorm at its statistics, also in trained blocks.
        keep: the weights of the ``best`` epoch by validation accuracy, the start's included, or of the ``last`` one;
            ``auto``: the best where validation has 200 images or more, since choosing by fewer is choosing by luck,
            or where ``early_stopping_patience`` is given.
        refit_head: after the last epoch, fit the head anew, on all stages as transfer does and on the validation images
            too; else the head stays that was trained.
        stop_at_loss: training ends after an epoch whose mean training loss is lower, since little is left to learn;
            ``null``: never. ``auto``: 0.01 where there are few images and the number of epochs is ``auto`` too.
        early_stopping_patience: epochs without better validation accuracy before training ends; ``null``: never.
        checkpoint_minutes: longest time between two checkpoints; there is one after each epoch, too.
    """

    epochs: Count | Auto
    time_budget_minutes: Annotated[float, Field(gt=0)] | None = None
    batch_size: Count | Auto
    optimizer: Literal["adamw", "sgd", "rmsprop"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto", "find"]
    schedule: Literal["cosine", "constant"] = "cosine"
    stage_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    warmup_fraction: Annotated[float, Field(ge=0, le=1)] = 0.1
    start_loss: Fraction | Auto | None = None
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    start_decay: Annotated[float, Field(ge=0)] | Auto = 0.0
    label_smoothing: Rate = 0.0
    class_weight: ClassWeight = "none"
    drop_connect_rate: Rate = 0.2
    head_dropout: Rate = 0.2
    unfreeze_from: str = "all"
    cached_views: Count | None = None
    freeze_batch_norm: bool = True
    keep: Literal["auto", "best", "last"] = "auto"
    refit_head: bool = False
    stop_at_loss: Annotated[float, Field(gt=0)] | Auto | None = None
    early_stopping_patience: Count | None = None
    checkpoint_minutes: Annotated[float, Field(gt=0)] = Field(default=15.0, exclude=True)
    augmentation: AugmentationParameters = AugmentationParameters()

    @model_validator(mode="after")
    def _sound(self) -> "TrainingParameters":
        if self.optimizer == "rmsprop":
            warnings.warn(
                "training.optimizer is rmsprop: momentum and moving averages suit pretrained weights badly, and "
                "accuracy falls when they are unfrozen. adamw is the measured choice.",
                stacklevel=2,
            )
        return self


class SettledTrainingParameters(TrainingParameters):
    """A training whose ``auto`` parameters have become numbers; only the learning-rate finder may still be asked."""

    epochs: Count
    batch_size: Count
    learning_rate: Annotated[float, Field(gt=0)] | Literal["find"]
    start_loss: Fraction | None = None
    keep: Literal["best", "last"]
    start_decay: Annotated[float, Field(ge=0)] = 0.0
    stop_at_loss: Annotated[float, Field(gt=0)] | None = None


class RegimeParameters(_Group):
    """A regime that trains the whole network or its upper blocks."""

    training: TrainingParameters


class HeadParameters(_Group):
    """The head that is fitted on the frozen backbone's features.

    What it brought by its features stands in :mod:`~efficientnet_finetuning.training.head`.

    Attributes:
        batch_size: images in a forward pass of the backbone.
        views: features of so many views of each training image: itself, then augmented ones.
        inverse_regularizations: inverse L2 strengths (scikit-learn's ``C``) to try, from strong to weak;
            the best on held-out images is kept.
        folds: how many folds of the training images choose the strength, 2 or more; each image is held out once.
            0: the validation split chooses. ``auto``: 5 where it has fewer than 200 images.
        max_iterations: of the solver, for each strength.
        class_weight: as in training.
        head_dropout: dropout before the logits of the assembled model; without effect until it is fine-tuned.
        augmentation: of the views after the first.
    """

    batch_size: Count = 64
    views: Count = 1
    augmentation: AugmentationParameters = AugmentationParameters(translation=0.1)
    inverse_regularizations: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
    folds: Annotated[int, Field(ge=0)] | Auto = "auto"
    max_iterations: Count = 500
    class_weight: ClassWeight = "none"
    head_dropout: Rate = 0.2

    @model_validator(mode="after")
    def _folds_leave_images(self) -> "HeadParameters":
        if self.folds == 1:
            raise ValueError("folds is 1, which leaves no image to fit on. Give 0, auto, or 2 and more.")
        return self


class TransferParameters(_Group):
    """The regime that keeps the backbone frozen."""

    head: HeadParameters


class EvaluationParameters(_Group):
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


class PredictParameters(_Group):
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


class AddClassParameters(_Group):
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


class ExportParameters(_Group):
    """What the pipeline ``export`` writes.

    Attributes:
        formats: beside the Keras file: ``saved_model`` (TensorFlow), ``litert``, ``litert_float16``, ``litert_int8``
            (LiteRT, once TensorFlow Lite) and ``onnx``, which needs the extra ``export``.
    """

    formats: tuple[Literal["saved_model", "litert", "litert_float16", "litert_int8", "onnx"], ...]


class TrackingParameters(_Group):
    """Where MLflow records the runs.

    Attributes:
        uri: MLflow's tracking URI; ``MLFLOW_TRACKING_URI``, else a SQLite file in the project, where ``null``.
        experiment: MLflow's experiment.
    """

    uri: str | None = None
    experiment: str


# The groups that are regimes: namespaces of the pipelines, and what MLflow compares.
REGIMES = ("baseline", "transfer", "finetune", "seed_frozen", "seed_finetune")


class Parameters(_Group):
    """All groups together, so that a misspelt group is refused too.

    Attributes:
        seed: of everything that is drawn.
        keep_versions: how many versions of each dataset `make prune` leaves.
        seed_frozen, seed_finetune: the two steps of the pipeline ``seed_parity``, in ``conf/seed_recipe``.
    """

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    keep_versions: Count = 3
    dataset: DatasetParameters
    audit: AuditParameters
    preprocessing: PreprocessingParameters
    backbone: BackboneParameters
    device: DeviceParameters
    cluster: ClusterParameters = ClusterParameters()
    baseline: RegimeParameters
    transfer: TransferParameters
    finetune: RegimeParameters
    seed_frozen: RegimeParameters | None = None
    seed_finetune: RegimeParameters | None = None
    evaluation: EvaluationParameters
    predict: PredictParameters = PredictParameters()
    add_class: AddClassParameters = AddClassParameters()
    export: ExportParameters
    tracking: TrackingParameters
    choose_backbone: ChoiceParameters

    @model_validator(mode="after")
    def _cluster_has_workers(self) -> "Parameters":
        if self.cluster.address is not None and self.device.workers == 1:
            raise ValueError(
                f"cluster.address is {self.cluster.address}, but device.workers is 1, so nothing would run there. Give "
                "device.workers=all, or how many workers you want."
            )
        return self

    @model_validator(mode="after")
    def _chosen_together(self) -> "Parameters":
        if (self.backbone.name == "auto") != (self.preprocessing.image_size == "auto"):
            raise ValueError(
                "backbone.name and preprocessing.image_size are chosen together: give auto for both or for neither. To "
                "let only one vary, give the other one as the only one in choose_backbone.backbones or image_sizes."
            )
        return self

    @model_validator(mode="after")
    def _known_blocks(self) -> "Parameters":
        if self.backbone.name == "auto":
            return self  # nothing is trained before it has a name
        blocks = ARCHITECTURES[self.backbone.name].blocks
        faults = []
        for regime in (name for name in REGIMES if name != "transfer"):
            parameters = getattr(self, regime)
            block = parameters.training.unfreeze_from if parameters else "all"
            if block not in ("all", "head", *blocks):
                faults.append(
                    f"{regime}.training.unfreeze_from: {self.backbone.name} has no block {block!r}; only whole blocks "
                    "are trained, since a block's shortcut and its branch must move together."
                    f"{near_matches(block, ('all', 'head', *blocks))} Known: all, {', '.join(blocks)}, head."
                )
        if faults:
            raise ValueError("\n  - ".join(faults))
        return self

    @model_validator(mode="after")
    def _rules_are_for_fine_tuning(self) -> "Parameters":
        faults = [
            f"{regime}.training.{name}: auto is a rule for fine-tuning, measured from a fitted head; a training from "
            "random weights or with another head needs a number. Give one."
            for regime in ("baseline", "seed_frozen", "seed_finetune")
            if (parameters := getattr(self, regime))
            for name in ("epochs", "batch_size", "learning_rate", "start_loss", "start_decay", "stop_at_loss")
            if getattr(parameters.training, name) == "auto"
        ]
        if faults:
            raise ValueError("\n  - ".join(faults))
        return self

    @model_validator(mode="after")
    def _mirror_images_mean_the_same(self) -> "Parameters":
        if self.evaluation.flip and self.finetune.training.augmentation.flip == "none":
            raise ValueError(
                "evaluation.flip averages over mirror images, which finetune.training.augmentation.flip (none) says "
                "are not of the same class. Set evaluation.flip to false, or the other one to horizontal."
            )
        return self


def image_size(preprocessing: PreprocessingParameters, backbone: BackboneParameters) -> int:
    """Side of the square images in pixels: the given one, else the backbone's native resolution."""
    assert preprocessing.image_size != "auto"
    return preprocessing.image_size or ARCHITECTURES[backbone.name].resolution
