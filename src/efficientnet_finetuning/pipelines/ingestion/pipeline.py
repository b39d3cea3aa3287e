"""params:dataset → source → image_findings; with corrections, class_names → manifest → audit."""

from kedro.pipeline import Node, Pipeline

from efficientnet_finetuning.data.sources import open_source
from efficientnet_finetuning.pipelines.ingestion.nodes import (
    audit_images,
    list_images,
    look_at_images,
    read_corrections,
)


def create_pipeline() -> Pipeline:
    """Find the raw images, check each, assign usable ones to splits, and summarize the set.

    The findings are stored before a check can stop the run, so the next run does not open the images again.
    """
    checked = ["params:dataset", "params:audit.max_megapixels", "params:seed", "ingestion_checkpoints", "workers"]
    listed = ["image_findings", "corrections", "class_names", "params:dataset", "params:audit", "params:seed"]
    summarized = ["source", "manifest", "class_names", "params:dataset", "corrections"]
    nodes = [
        Node(open_source, "params:dataset", "source", name="find_images"),
        Node(
            read_corrections,
            ["source", "params:dataset.corrections"],
            ["corrections", "class_names"],
            name="read_corrections",
        ),
        Node(look_at_images, ["source", *checked], "image_findings", name="look_at_images"),
        Node(list_images, listed, "manifest", name="list_images"),
        Node(audit_images, summarized, ["audit", "audit_summary"], name="audit_images"),
    ]
    return Pipeline(nodes, tags="cpu", namespace="ingestion", prefix_datasets_with_namespace=False)
