"""All parameters: typed, immutable, without unknown names, and checked before heavy libraries are imported."""

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

# The groups of training regimes. They are also the namespaces of the pipelines.
REGIMES = ("baseline", "transfer", "finetune", "seed_frozen", "seed_finetune")


class Parameters(Group):
    """All groups together, so that a misspelt group is an error too.

    Attributes:
        seed: seed of all random numbers.
        keep_versions: how many versions of each dataset `make prune` keeps.
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
                f"cluster.address is {self.cluster.address}, but device.workers is 1, so nothing would run there. Set "
                "device.workers to all or to a number above 1."
            )
        return self

    @model_validator(mode="after")
    def _chosen_together(self) -> "Parameters":
        if (self.backbone.name == "auto") != (self.preprocessing.image_size == "auto"):
            raise ValueError(
                "backbone.name and preprocessing.image_size must both be auto, or neither. To compare only one, list "
                "a single value for the other in choose_backbone.backbones or choose_backbone.image_sizes."
            )
        return self

    @model_validator(mode="after")
    def _regimes_can_be_trained(self) -> "Parameters":
        regimes = {name: getattr(self, name) for name in REGIMES if name != "transfer"}
        trainings = {name: regime.training for name, regime in regimes.items() if regime}
        # No training runs before the backbone is known.
        blocks = ARCHITECTURES[self.backbone.name].blocks if self.backbone.name != "auto" else ()
        parts = ("all", *blocks, "head")
        faults = [
            f"{name}.training.unfreeze_from: {self.backbone.name} has no block {training.unfreeze_from!r}. Only whole "
            "blocks can be trained, because a block's shortcut and its branch must change together."
            f"{near_matches(training.unfreeze_from, parts)} Known: {', '.join(parts)}."
            for name, training in trainings.items()
            if blocks and training.unfreeze_from not in parts
        ]
        faults += [
            f"{name}.training.{rule}: auto works for fine-tuning only, because its rules were measured from a fitted "
            "head. Give a number."
            for name, training in trainings.items()
            for rule in ("epochs", "batch_size", "learning_rate", "start_loss", "start_decay", "stop_at_loss")
            if name != "finetune" and getattr(training, rule) == "auto"
        ]
        if faults:
            raise ValueError("\n  - ".join(faults))
        return self

    @model_validator(mode="after")
    def _mirror_images_mean_the_same(self) -> "Parameters":
        if self.evaluation.flip and self.finetune.training.augmentation.flip == "none":
            raise ValueError(
                "evaluation.flip averages over mirror images, but finetune.training.augmentation.flip is none, so "
                "mirror images may be of another class. Set evaluation.flip to false, or the other one to horizontal."
            )
        return self
