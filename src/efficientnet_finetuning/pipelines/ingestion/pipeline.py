"""params:dataset → source, class_names → manifest."""

from kedro.pipeline import Node, Pipeline

from efficientnet_finetuning.pipelines.ingestion.nodes import find_images, list_images


def create_pipeline() -> Pipeline:
    """Find the raw images and list them in a manifest."""
    return Pipeline(
        [
            Node(find_images, "params:dataset", ["source", "class_names"], name="find_images", tags="cpu"),
            Node(list_images, ["source", "params:dataset", "params:seed"], "manifest", name="list_images", tags="cpu"),
        ]
    )
