"""champion_model, photographs → answers."""

from kedro.pipeline import Node, Pipeline

from efficientnet_finetuning.pipelines.predict.nodes import answer_photographs


def create_pipeline() -> Pipeline:
    """Classify the photographs that ``predict.path`` names."""
    node = Node(
        answer_photographs,
        ["champion_model", "params:predict"],
        "answers",
        name="answer_photographs",
        tags="gpu",
    )
    return Pipeline([node], namespace="predict", prefix_datasets_with_namespace=False)
