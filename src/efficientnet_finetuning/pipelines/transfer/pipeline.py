"""backbone, images → features (one pass) → head → transfer_model; features → finetune_start."""

from kedro.pipeline import Node, Pipeline

from efficientnet_finetuning.pipelines.transfer.nodes import (
    assemble_classifier,
    build_pretrained_backbone,
    extract_features,
    fit_head,
    fit_start,
)


def create_pipeline() -> Pipeline:
    """Fit a head on the features of a frozen backbone, in the namespace ``transfer``."""
    nodes = [
        Node(
            build_pretrained_backbone,
            ["params:backbone", "params:preprocessing", "params:device", "params:seed"],
            "backbone",
            name="build_backbone",
            tags="cpu",
        ),
        Node(
            extract_features,
            [
                "backbone",
                "train_images",
                "validation_images",
                "params:head",
                "params:evaluation.flip",
                "params:seed",
                "workers",
            ],
            "features",
            name="extract_features",
            tags="gpu",
        ),
        Node(
            fit_head,
            ["features", "train_images", "validation_images", "manifest", "params:head"],
            ["head", "transfer_held_out", "transfer_history"],
            name="fit_head",
            tags="cpu",
        ),
        Node(
            assemble_classifier,
            [
                "backbone",
                "head",
                "transfer_held_out",
                "class_names",
                "params:backbone",
                "params:preprocessing",
                "params:head",
                "params:evaluation.flip",
            ],
            "transfer_model",
            name="assemble_classifier",
            tags="cpu",
        ),
    ]
    return Pipeline(
        nodes,
        namespace="transfer",
        inputs={"train_images", "validation_images", "manifest", "class_names", "workers"},
        outputs={"transfer_model", "transfer_held_out", "transfer_history"},
        parameters={"backbone", "preprocessing", "device", "evaluation.flip", "seed"},
    )


def create_start_pipeline() -> Pipeline:
    """Fit what fine-tuning starts from, on the features of the frozen backbone."""
    start = Node(
        fit_start,
        [
            "backbone",
            "features",
            "train_images",
            "validation_images",
            "manifest",
            "class_names",
            "params:backbone",
            "params:preprocessing",
            "params:head",
        ],
        "finetune_start",
        name="fit_start",
        tags="cpu",
    )
    return Pipeline(
        [start],
        namespace="transfer",
        inputs={"train_images", "validation_images", "manifest", "class_names"},
        outputs={"finetune_start"},
        parameters={"backbone", "preprocessing"},
    )
