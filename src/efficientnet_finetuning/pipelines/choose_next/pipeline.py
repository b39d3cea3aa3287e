"""champion_model, photographs → to_label, to_label_sheet."""

from kedro.pipeline import Node, Pipeline

from efficientnet_finetuning.pipelines.choose_next.nodes import rank_photographs


def create_pipeline() -> Pipeline:
    """Rank the photographs at ``predict.path`` by the benefit of labelling them."""
    node = Node(
        rank_photographs,
        ["champion_model", "params:predict", "params:seed"],
        ["to_label", "to_label_sheet"],
        name="rank_photographs",
        tags="gpu",
    )
    return Pipeline([node], namespace="choose_next", prefix_datasets_with_namespace=False)
