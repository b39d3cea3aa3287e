"""{regime}_metrics, {regime}_history → comparison, comparison_bars, learning_curves."""

from kedro.pipeline import Node, Pipeline

from efficientnet_finetuning.pipelines.reporting.nodes import compare, plot_comparison, plot_learning_curves


def create_pipeline(*regimes: str) -> Pipeline:
    """Compare the given regimes."""
    histories = {f"{regime}_history": f"{regime}_history" for regime in regimes}
    metrics = {f"{regime}_metrics": f"{regime}_metrics" for regime in regimes}
    return Pipeline(
        [
            Node(compare, metrics | histories, "comparison", name="compare", tags="cpu"),
            Node(plot_comparison, "comparison", "comparison_bars", name="plot_comparison", tags="cpu"),
            Node(plot_learning_curves, histories, "learning_curves", name="plot_learning_curves", tags="cpu"),
        ]
    )
