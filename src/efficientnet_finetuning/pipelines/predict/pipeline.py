"""champion_model, photographs → answers."""

from kedro.pipeline import Node, Pipeline

from efficientnet_finetuning.pipelines.predict.nodes import answer_photographs


def create_pipeline() -> Pipeline:
    """Classify the photographs at ``predict.path``."""
    node = Node(answer_photographs, ["champion_model", "params:predict"], "answers", name="answer_photographs")
    return Pipeline([node], tags="gpu", namespace="predict", prefix_datasets_with_namespace=False)
