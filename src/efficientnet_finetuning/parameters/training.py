"""How a network is trained, and how a head is fitted."""

import warnings
from typing import Annotated, Literal

from pydantic import Field, model_validator

from efficientnet_finetuning.parameters.group import Auto, ClassWeight, Count, Fraction, Group, Rate


class AugmentationParameters(Group):
    """Random changes of the training images, drawn again for every image and epoch.

    Attributes:
        flip: ``none``, ``horizontal`` or ``horizontal_and_vertical``.
        translation: largest shift, as a fraction of height and width.
        rotation: largest rotation in either direction, as a fraction of a full circle.
        contrast: largest relative change of contrast.
        color_jitter: largest relative change of brightness, contrast and saturation, applied one after the other.
        erasing: share of the images with a square of one colour painted in (random erasing, Zhong et al. 2017,
            arXiv:1708.04896). With a ``color_jitter`` of 0.3, a share of 0.5 gained 1.6 points in twelve epochs on
            2,000 images, and lost 0.4 in three.
    """

    flip: Literal["none", "horizontal", "horizontal_and_vertical"] = "horizontal"
    translation: Rate = 0.0
    rotation: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    contrast: Rate = 0.0
    color_jitter: Rate = 0.0
    erasing: Rate = 0.0


class TrainingParameters(Group):
    """One training run.

    Measured effects are in points of validation accuracy on CIFAR-10 (Lite0, 96 px). The tables are in
    ``tests/benchmarks``: ``levers.py`` for thousands of images, ``sizes.py`` for few.

    Attributes:
        epochs: passes over the training images. ``auto``, here and below, applies the rules in ``training/rules.py``.
            Without ``color_jitter`` and ``erasing``, twelve were no better than three.
        time_budget_minutes: replaces ``epochs``. The schedule follows the clock, and training ends with the budget,
            even within an epoch. A resumed training counts only the time that it ran.
        batch_size: images per step, or ``auto``.
        optimizer: ``adamw``, ``sgd`` (momentum 0.9) or ``rmsprop``.
        learning_rate: peak of the schedule, or ``auto``; ``find`` runs the learning-rate finder first. Half and almost
            twice the default 6e-4 lost half a point.
        schedule: ``cosine`` (linear warm-up, then cosine decay to zero) or ``constant``.
        warmup_fraction: share of all steps for warm-up.
        stage_decay: learning rate of a stage divided by that of the next higher stage. 1 lost 0.7 points.
        start_loss: scale the initial logits down until the training loss is this share of the loss of random guessing.
            A fitted head is so confident on few images that the backbone learns nothing from them. ``null``: no
            scaling. ``auto``: 0.8 for few images; from 1,800 images on it gained nothing.
        weight_decay: decoupled weight decay of AdamW, for kernels only. Zero was as good.
        start_decay: decay towards the initial weights, except in the head. ``auto``: 50 for few images, which gained
            about 0.4 points, else 0.
        label_smoothing: share of a label that is spread over all classes. 0.1 changed the accuracy by -0.8 to +1.6.
        class_weight: ``balanced`` weights an image by the inverse frequency of its class, with a mean of one.
        drop_connect_rate: stochastic depth: rate of the last block; the rates grow linearly from zero. 0 lost 0.8
            points.
        head_dropout: dropout before the logits.
        unfreeze_from: ``all``, the lowest trained block (``block6a``), or ``head``. Everything below stays frozen.
        cached_views: number of augmented views per image that pass the frozen blocks once. Their activations are stored
            as float16, and the epochs use them in turn. ``null``: every epoch computes new ones. From ``block4a``, four
            views were as accurate as training all blocks, in four fifths of the time.
        freeze_batch_norm: keep the BatchNorm statistics, also in trained blocks. Training them lost 11 points.
        keep: the weights of the ``best`` epoch by validation accuracy, including the start, or of the ``last`` epoch.
            ``auto``: the best if there are at least 200 validation images or an ``early_stopping_patience``; fewer
            images make the choice random.
        refit_head: after the last epoch, fit a new head on all stages, as transfer does, including the validation
            images. It gained up to a point from 25 images per class on.
        stop_at_loss: stop after an epoch with a lower mean training loss; ``null``: never. ``auto``: 0.01 for few
            images if ``epochs`` is ``auto`` too. That halved the epochs from ten images per class on, and lost 0.2
            points.
        early_stopping_patience: stop after so many epochs without better validation accuracy; ``null``: never.
        checkpoint_minutes: longest time between two checkpoints. Each epoch ends with one too.
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
                "training.optimizer is rmsprop, which often lowers the accuracy when pretrained weights are unfrozen. "
                "adamw was better in our measurements.",
                stacklevel=2,
            )
        return self


class SettledTrainingParameters(TrainingParameters):
    """Training parameters after the ``auto`` rules. Only the learning rate may still be ``find``."""

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
    """The head on frozen features: the averages of all stages of the backbone.

    On CIFAR-10, all stages gained two to three points over the last feature map alone (``tests/benchmarks/sizes.py``).

    Attributes:
        batch_size: images in a forward pass of the backbone.
        views: views of each training image: the image itself, then augmented ones. Two gained 0.8 points, four gained
            1.2. The time grows in proportion.
        inverse_regularizations: candidates for the inverse L2 strength (``C`` in scikit-learn). The best on held-out
            images is kept.
        folds: number of folds of the training images that choose the strength, at least 2. 0: the validation split
            chooses. ``auto``: 5 if the validation split has fewer than 200 images.
        max_iterations: limit of the solver for each strength.
        class_weight: as in training.
        head_dropout: dropout before the logits; it has an effect only in later fine-tuning.
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
            raise ValueError("folds is 1, which leaves no image for fitting. Give 0, auto, or at least 2.")
        return self


class TransferParameters(Group):
    """The regime with a frozen backbone."""

    head: HeadParameters
