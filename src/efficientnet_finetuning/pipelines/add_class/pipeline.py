"""champion_model, champion_features, photographs → extended_model, extension."""

from kedro.pipeline import Node, Pipeline

from efficientnet_finetuning.pipelines.add_class.nodes import add_class


def create_pipeline() -> Pipeline:
    """Add the class with photographs at ``add_class.path``."""
    node = Node(
        add_class,
        ["champion_model", "champion_features", "params:add_class"],
        ["extended_model", "extension"],
        name="add_class",
        tags="gpu",
    )
    return Pipeline([node], namespace="add_class", prefix_datasets_with_namespace=False)
