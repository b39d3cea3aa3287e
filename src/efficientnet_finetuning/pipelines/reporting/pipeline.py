"""Metrics, predictions, histories and pictures of the regimes → comparison, verdict, champion → report."""

from kedro.pipeline import Node, Pipeline

from efficientnet_finetuning.pipelines.reporting.nodes import (
    compare,
    compare_with_before,
    keep_champion,
    measure_cost,
    plot_comparison,
    plot_confidence,
    plot_confusion,
    plot_learning_curves,
    reach_verdict,
    show_disagreements,
    write_report,
)

_FIGURES = (
    "audit_summary",
    "sample_grid",
    "augmentation_grid",
    "comparison_bars",
    "learning_curves",
    "confusion_matrix",
    "confidence_curves",
    "disagreements",
)

_OF_THE_REVIEW = (
    "label_review",
    "weak_spots",
    "shortcuts",
    "more_images",
    "label_sheet",
    "weak_spot_sheet",
    "data_curve",
)


def create_pipeline(*regimes: str) -> Pipeline:
    """Compare the given regimes, name the champion, and explain it.

    Where transfer is among them, its features are there to review the data by.
    """

    def of_all(*kinds: str) -> dict[str, str]:
        return {name: name for kind in kinds for name in (f"{regime}_{kind}" for regime in regimes)}

    def same(*names: str) -> dict[str, str]:
        return {name: name for name in names}

    seed = {"seed": "params:seed"}
    everything = of_all("metrics", "predictions", "history", "gallery")
    if "transfer" in regimes:
        everything |= same(*_OF_THE_REVIEW)
    nodes = [
        Node(compare, of_all("metrics", "history"), "comparison", name="compare"),
        Node(
            reach_verdict,
            same("comparison") | of_all("predictions", "history"),
            ["verdict", "champion"],
            name="reach_verdict",
        ),
        Node(
            compare_with_before,
            same("champion", "before") | of_all("predictions"),
            "change",
            name="compare_with_before",
        ),
        Node(plot_comparison, "comparison", "comparison_bars", name="plot_comparison"),
        Node(plot_learning_curves, of_all("history"), "learning_curves", name="plot_learning_curves"),
        Node(
            plot_confusion,
            same("champion", "class_names") | of_all("predictions"),
            "confusion_matrix",
            name="plot_confusion",
        ),
        Node(
            plot_confidence,
            same("class_names") | of_all("predictions"),
            "confidence_curves",
            name="plot_confidence",
        ),
        Node(
            show_disagreements,
            same("test_images") | seed | of_all("predictions"),
            "disagreements",
            name="show_disagreements",
        ),
        Node(
            write_report,
            same("comparison", "verdict", "change", "audit", "cost", "node_costs", *_FIGURES) | seed | everything,
            "report",
            name="write_report",
        ),
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
    # Of one regime, since they differ in weights alone.
    cost = Node(measure_cost, f"{regimes[-1]}_model", "cost", name="measure_cost", tags="gpu")
    return Pipeline(
        [Pipeline(nodes, tags="cpu"), ready, cost], namespace="reporting", prefix_datasets_with_namespace=False
    )
