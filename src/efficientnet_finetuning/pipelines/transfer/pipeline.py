"""backbone, images → features (one pass) → head → transfer_model; features → finetune_start."""

from kedro.pipeline import Node, Pipeline

from efficientnet_finetuning.pipelines.transfer.nodes import (
    assemble_classifier,
    build_pretrained_backbone,
    extract_features,
    fit_head,
    fit_start,
)

_LEARNT = ["train_images", "validation_images"]
_BUILT = ["class_names", "params:backbone", "params:preprocessing", "params:head"]
_FLIP = "params:evaluation.flip"


def create_pipeline() -> Pipeline:
    """Fit a head on the features of a frozen backbone, in the namespace ``transfer``."""
    fitted = [
        Node(
            build_pretrained_backbone,
            ["params:backbone", "params:preprocessing", "params:device", "params:seed"],
            "backbone",
            name="build_backbone",
        ),
        Node(
            fit_head,
            ["features", *_LEARNT, "manifest", "params:head"],
            ["head", "transfer_held_out", "transfer_history"],
            name="fit_head",
        ),
        Node(
            assemble_classifier,
            ["backbone", "head", "transfer_held_out", *_BUILT, _FLIP],
            "transfer_model",
            name="assemble_classifier",
        ),
    ]
    extract = Node(
        extract_features,
        ["backbone", *_LEARNT, "params:head", _FLIP, "params:seed", "workers"],
        "features",
        name="extract_features",
        tags="gpu",
    )
    return Pipeline(
        [Pipeline(fitted, tags="cpu"), extract],
        namespace="transfer",
        inputs={*_LEARNT, "manifest", "class_names", "workers"},
        outputs={"transfer_model", "transfer_held_out", "transfer_history"},
        parameters={"backbone", "preprocessing", "device", "evaluation.flip", "seed"},
    )


def create_start_pipeline() -> Pipeline:
    """Fit the classifier that fine-tuning starts from, on the features of the frozen backbone."""
    inputs = ["backbone", "features", *_LEARNT, "manifest", *_BUILT]
    return Pipeline(
        [Node(fit_start, inputs, "finetune_start", name="fit_start", tags="cpu")],
        namespace="transfer",
        inputs={*_LEARNT, "manifest", "class_names"},
        outputs={"finetune_start"},
        parameters={"backbone", "preprocessing"},
    )
