"""Metrics, predictions, histories and pictures of the regimes → comparison, verdict, champion → report."""

from kedro.pipeline import Node, Pipeline

from efficientnet_finetuning.evaluation.figures import comparison_bars
from efficientnet_finetuning.pipelines.reporting.nodes import (
    compare,
    compare_with_before,
    keep_champion,
    measure_cost,
    plot_confidence,
    plot_confusion,
    plot_learning_curves,
    reach_verdict,
    write_report,
)

_TABLES = ("comparison", "verdict", "change", "audit", "cost", "test_images", "node_costs", "lineage", "run")
_FIGURES = (
    *("audit_summary", "sample_grid", "augmentation_grid"),
    *("comparison_bars", "learning_curves", "confusion_matrix", "confidence_curves"),
)
_REVIEW = ("label_review", "weak_spots", "shortcuts", "more_images", "label_sheet", "weak_spot_sheet", "data_curve")


def create_pipeline(*regimes: str) -> Pipeline:
    """Compare the given regimes, choose the champion, and write the report.

    With transfer among them, the report includes the review of the data, which needs transfer's features.
    """

    def of_all(*kinds: str) -> dict[str, str]:
        return {name: name for kind in kinds for name in (f"{regime}_{kind}" for regime in regimes)}

    def same(*names: str) -> dict[str, str]:
        return {name: name for name in names}

    reported = same(*_TABLES, *_FIGURES) | of_all("metrics", "predictions", "history", "gallery")
    reported |= {"seed": "params:seed"} | (same(*_REVIEW) if "transfer" in regimes else {})
    predictions, histories = of_all("predictions"), of_all("history")
    judged = same("champion", "class_names") | predictions
    nodes = [
        Node(compare, of_all("metrics") | histories, "comparison", name="compare"),
        Node(
            reach_verdict, same("comparison") | predictions | histories, ["verdict", "champion"], name="reach_verdict"
        ),
        Node(compare_with_before, same("champion", "before") | predictions, "change", name="compare_with_before"),
        Node(comparison_bars, "comparison", "comparison_bars", name="plot_comparison"),
        Node(plot_learning_curves, histories, "learning_curves", name="plot_learning_curves"),
        Node(plot_confusion, judged, "confusion_matrix", name="plot_confusion"),
        Node(plot_confidence, same("class_names") | predictions, "confidence_curves", name="plot_confidence"),
        Node(write_report, reported, "report", name="write_report"),
    ]
    ready = Node(
        keep_champion,
        same("champion", "train_images", "validation_images", "test_images")
        | {"evaluation": "params:evaluation"}
        | of_all("model", "held_out", "metrics"),
        ["champion_model", "champion_metrics", "champion_features"],
        name="keep_champion",
        tags="gpu",
    )
    # The cost of one regime is enough, because regimes differ only in weights.
    cost = Node(measure_cost, f"{regimes[-1]}_model", "cost", name="measure_cost", tags="gpu")
    return Pipeline(
        [Pipeline(nodes, tags="cpu"), ready, cost], namespace="reporting", prefix_datasets_with_namespace=False
    )
