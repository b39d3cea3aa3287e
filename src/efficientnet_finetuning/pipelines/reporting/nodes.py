"""Reporting: the regimes of a run side by side."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from efficientnet_finetuning.evaluation.comparison import compare_regimes
from efficientnet_finetuning.evaluation.figures import comparison_bars, learning_curves


def compare(**results: Any) -> pd.DataFrame:
    """Tabulate the regimes: ``{regime}_metrics`` and ``{regime}_history`` of each, in order."""
    return compare_regimes(_by_regime(results, "metrics"), _by_regime(results, "history"))


def plot_comparison(comparison: pd.DataFrame) -> Figure:
    """Accuracies of the regimes as bars."""
    return comparison_bars(comparison)


def plot_learning_curves(**histories: pd.DataFrame) -> Figure:
    """Accuracy and loss of the regimes, from ``{regime}_history`` of each."""
    return learning_curves(_by_regime(histories, "history"))


def _by_regime(results: dict[str, Any], kind: str) -> dict[str, Any]:
    suffix = f"_{kind}"
    return {name.removesuffix(suffix): value for name, value in results.items() if name.endswith(suffix)}
