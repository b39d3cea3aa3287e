"""Regimes side by side on the same test images."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

# What a regime spends before its own training begins.
STARTS_FROM = {"finetune": "transfer", "seed_finetune": "seed_frozen"}


def compare_regimes(metrics: Mapping[str, dict[str, Any]], histories: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a regime, in the order given.

    Args:
        metrics: of each regime, from :func:`~efficientnet_finetuning.evaluation.metrics.classification_metrics`.
        histories: of each regime, with ``seconds`` a row.

    Returns:
        ``regime``, ``top1``, ``top5`` (0–1), ``loss``, ``num_images`` and ``training_seconds``: all that was spent on
        training until the regime was there, so fine-tuning counts the transfer that it starts from.
    """
    seconds = {regime: float(history["seconds"].sum()) for regime, history in histories.items()}
    return pd.DataFrame(
        {
            "regime": regime,
            "top1": result["top1"],
            "top5": result["top5"],
            "loss": result["loss"],
            "num_images": result["num_images"],
            "training_seconds": seconds[regime] + seconds.get(STARTS_FROM.get(regime, ""), 0.0),
        }
        for regime, result in metrics.items()
    )


def format_comparison(comparison: pd.DataFrame) -> str:
    """The comparison as a table for the terminal."""
    lines = [f"{'regime':<13} {'top-1':>7} {'top-5':>7} {'loss':>7} {'training':>9}"]
    for row in comparison.itertuples():
        lines.append(
            f"{row.regime:<13} {row.top1:>6.1%} {row.top5:>7.1%} {row.loss:>7.3f} {row.training_seconds:>7.0f} s"
        )
    return "\n".join(lines)
