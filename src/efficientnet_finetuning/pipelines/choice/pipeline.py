"""source, manifest → backbone_candidates → backbone_choice (used by `auto`), and a figure."""

from kedro.pipeline import Node, Pipeline

from efficientnet_finetuning.pipelines.choice.nodes import measure_backbones, recommend_backbone

_PARAMETERS = ("choose_backbone", "preprocessing", "transfer.head", "finetune.training", "device", "seed")


def create_pipeline() -> Pipeline:
    """Measure every available backbone at several sizes on some training images, and recommend one."""
    measure = Node(
        measure_backbones,
        ["source", "manifest", "class_names", *(f"params:{name}" for name in _PARAMETERS)],
        "backbone_candidates",
        name="measure_backbones",
        tags="gpu",
    )
    recommend = Node(
        recommend_backbone,
        ["backbone_candidates", "params:choose_backbone"],
        ["backbone_choice", "backbone_front"],
        name="recommend_backbone",
        tags="cpu",
    )
    return Pipeline([measure, recommend], namespace="choice", prefix_datasets_with_namespace=False)
