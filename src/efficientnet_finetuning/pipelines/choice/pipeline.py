"""source, manifest → backbone_candidates → backbone_choice, which `auto` takes, and a figure."""

from kedro.pipeline import Node, Pipeline

from efficientnet_finetuning.pipelines.choice.nodes import measure_backbones, recommend_backbone


def create_pipeline() -> Pipeline:
    """Measure every available backbone at several sizes on some training images, and recommend one."""
    return Pipeline(
        [
            Node(
                measure_backbones,
                [
                    "source",
                    "manifest",
                    "class_names",
                    "params:choose_backbone",
                    "params:preprocessing",
                    "params:transfer.head",
                    "params:finetune.training",
                    "params:device",
                    "params:seed",
                ],
                "backbone_candidates",
                name="measure_backbones",
                tags="gpu",
            ),
            Node(
                recommend_backbone,
                ["backbone_candidates", "params:choose_backbone"],
                ["backbone_choice", "backbone_front"],
                name="recommend_backbone",
                tags="cpu",
            ),
        ],
        namespace="choice",
        prefix_datasets_with_namespace=False,
    )
