"""params:dataset → source → image_findings; with corrections, class_names → manifest → audit."""

from kedro.pipeline import Node, Pipeline

from efficientnet_finetuning.pipelines.ingestion.nodes import (
    audit_images,
    find_images,
    list_images,
    look_at_images,
    read_corrections,
)


def create_pipeline() -> Pipeline:
    """Find the raw images, look at each, put the sound ones into splits, and say what is in the set.

    What was found out is stored before anything can be refused, so a run that stops at the gate has lost nothing.
    """
    return Pipeline(
        [
            Node(find_images, "params:dataset", "source", name="find_images", tags="cpu"),
            Node(
                read_corrections,
                ["source", "params:dataset.corrections"],
                ["corrections", "class_names"],
                name="read_corrections",
                tags="cpu",
            ),
            Node(
                look_at_images,
                [
                    "source",
                    "params:dataset",
                    "params:audit.max_megapixels",
                    "params:seed",
                    "ingestion_checkpoints",
                    "workers",
                ],
                "image_findings",
                name="look_at_images",
                tags="cpu",
            ),
            Node(
                list_images,
                ["image_findings", "corrections", "class_names", "params:dataset", "params:audit", "params:seed"],
                "manifest",
                name="list_images",
                tags="cpu",
            ),
            Node(
                audit_images,
                ["source", "manifest", "class_names", "params:dataset", "corrections"],
                ["audit", "audit_summary"],
                name="audit_images",
                tags="cpu",
            ),
        ],
        namespace="ingestion",
        prefix_datasets_with_namespace=False,
    )
