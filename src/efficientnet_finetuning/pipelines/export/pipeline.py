"""champion_model, test_images → exports → export_checks; all of it, and the lineage → bundle."""

from kedro.pipeline import Node, Pipeline

from efficientnet_finetuning.pipelines.export.nodes import convert_champion, show_failures, try_exports, write_bundle


def create_pipeline() -> Pipeline:
    """Export the champion to formats of other programs, check these, and write a bundle with card and receipt."""
    tried = ["exports", "champion_model", "test_images", "source", "manifest"]
    bundled = ["champion_model", "champion_metrics", "exports", "export_checks", "known_failures"]
    bundled += ["test_images", "manifest", "audit", "lineage"]
    exported = [
        Node(convert_champion, ["champion_model", "train_images", "params:export"], "exports", name="convert_champion"),
        Node(try_exports, tried, "export_checks", name="try_exports"),
        Node(write_bundle, bundled, "bundle", name="write_bundle"),
    ]
    failures = Node(
        show_failures, ["champion_model", "test_images", "workers"], "known_failures", name="show_failures", tags="gpu"
    )
    return Pipeline(
        [Pipeline(exported, tags="cpu"), failures], namespace="export", prefix_datasets_with_namespace=False
    )
