"""Every parameter of every run: typed, frozen, closed, and checked before anything heavy is imported."""

from typing import Annotated

from pydantic import Field, model_validator

from efficientnet_finetuning.errors import near_matches
from efficientnet_finetuning.models.architectures import ARCHITECTURES
from efficientnet_finetuning.parameters.backbone import BackboneParameters, ChoiceParameters, image_size
from efficientnet_finetuning.parameters.data import AuditParameters, DatasetParameters, PreprocessingParameters
from efficientnet_finetuning.parameters.group import Count, Group
from efficientnet_finetuning.parameters.running import ClusterParameters, DeviceParameters, TrackingParameters
from efficientnet_finetuning.parameters.training import (
    AugmentationParameters,
    HeadParameters,
    RegimeParameters,
    SettledTrainingParameters,
    TrainingParameters,
    TransferParameters,
)
from efficientnet_finetuning.parameters.use import (
    AddClassParameters,
    EvaluationParameters,
    ExportParameters,
    PredictParameters,
)

__all__ = [
    "REGIMES",
    "AddClassParameters",
    "AuditParameters",
    "AugmentationParameters",
    "BackboneParameters",
    "ChoiceParameters",
    "ClusterParameters",
    "DatasetParameters",
    "DeviceParameters",
    "EvaluationParameters",
    "ExportParameters",
    "HeadParameters",
    "Parameters",
    "PredictParameters",
    "PreprocessingParameters",
    "RegimeParameters",
    "SettledTrainingParameters",
    "TrackingParameters",
    "TrainingParameters",
    "TransferParameters",
    "image_size",
]

# The groups that are regimes: namespaces of the pipelines, and what MLflow compares.
REGIMES = ("baseline", "transfer", "finetune", "seed_frozen", "seed_finetune")


class Parameters(Group):
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
