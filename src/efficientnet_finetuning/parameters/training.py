"""How a network is trained and how a head is fitted."""

import warnings
from typing import Annotated, Literal

from pydantic import Field, model_validator

from efficientnet_finetuning.parameters.group import Auto, ClassWeight, Count, Fraction, Group, Rate


class AugmentationParameters(Group):
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


class TrainingParameters(Group):
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


class RegimeParameters(Group):
    """A regime that trains the whole network or its upper blocks."""

    training: TrainingParameters


class HeadParameters(Group):
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


class TransferParameters(Group):
    """The regime that keeps the backbone frozen."""

    head: HeadParameters
