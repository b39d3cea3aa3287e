"""champion_model, test_images → exports → export_checks; all of it, and the lineage → bundle."""

from kedro.pipeline import Node, Pipeline

from efficientnet_finetuning.pipelines.export.nodes import (
    convert_champion,
    show_failures,
    try_exports,
    write_bundle,
)


def create_pipeline() -> Pipeline:
    """Carry the champion away: in other programs' formats, tried there, with its card and its receipt."""
    nodes = [
        Node(
            convert_champion,
            ["champion_model", "train_images", "params:export"],
            "exports",
            name="convert_champion",
            tags="cpu",
        ),
        Node(
            try_exports,
            ["exports", "champion_model", "test_images", "source", "manifest"],
            "export_checks",
            name="try_exports",
            tags="cpu",
        ),
        Node(
            show_failures,
            ["champion_model", "test_images", "workers"],
            "known_failures",
            name="show_failures",
            tags="gpu",
        ),
        Node(
            write_bundle,
            [
                "champion_model",
                "champion_metrics",
                "exports",
                "export_checks",
                "known_failures",
                "test_images",
                "manifest",
                "audit",
                "lineage",
            ],
            "bundle",
            name="write_bundle",
            tags="cpu",
        ),
    ]
    return Pipeline(nodes, namespace="export", prefix_datasets_with_namespace=False)
