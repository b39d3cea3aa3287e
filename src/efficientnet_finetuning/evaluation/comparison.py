"""Compare the regimes on the same test images."""

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import pandas as pd

from efficientnet_finetuning.errors import percent

QUANTILE = NormalDist().inv_cdf(0.975)
# Readable names of the regimes.
NAMES = {
    "baseline": "training from scratch",
    "transfer": "transfer",
    "finetune": "fine-tuning",
    "seed_frozen": "the Keras example's frozen network",
    "seed_finetune": "the Keras example's fine-tuning",
}
# The regime whose result a regime starts from.
STARTS_FROM = {"finetune": "transfer", "seed_finetune": "seed_frozen"}


def compare_regimes(metrics: Mapping[str, dict[str, Any]], histories: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per regime, from its metrics and training history.

    Returns:
        ``regime``, ``top1`` with its 95 % Wilson interval ``top1_low`` and ``top1_high``, ``top5`` (0–1; NaN for up to
        six classes), ``loss``, ``num_images`` and ``training_seconds``, including the regime that it starts from.
    """
    seconds = {regime: float(history["seconds"].sum()) for regime, history in histories.items()}
    rows = []
    for regime, result in metrics.items():
        low, high = wilson_interval(round(result["top1"] * result["num_images"]), result["num_images"])
        row = {"regime": regime, "top1": result["top1"], "top1_low": low, "top1_high": high}
        row |= {name: result[name] for name in ("top5", "loss", "num_images")}
        rows.append(row | {"training_seconds": seconds[regime] + seconds.get(STARTS_FROM.get(regime, ""), 0.0)})
    return pd.DataFrame(rows).astype({"top5": float})


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a proportion, also for few images and near 0 and 1 (Wilson 1927)."""
    # Not from SciPy, which takes most of a second to import.
    share, square = hits / count, QUANTILE**2 / count
    half = math.sqrt(share * (1 - share) * square + square**2 / 4)
    low, high = ((share + square / 2 + sign * half) / (1 + square) for sign in (-1, 1))
    return max(low, 0.0), min(high, 1.0)


def format_comparison(comparison: pd.DataFrame) -> str:
    """The comparison as text for the terminal."""
    top5 = comparison["top5"].notna().all()
    lines = [
        f"{'regime':<13} {'top-1':>7} {'95 % interval':>15}{'   top-5' if top5 else ''} {'loss':>7} {'training':>9}"
    ]
    for row in comparison.to_dict("records"):
        interval = f"{100 * row['top1_low']:.1f} to {100 * row['top1_high']:.1f}"
        of_five = f" {percent(row['top5']):>7}" if top5 else ""
        lines.append(
            f"{row['regime']:<13} {percent(row['top1']):>7} {interval:>15}{of_five} {row['loss']:>7.3f} "
            f"{row['training_seconds']:>7.0f} s"
        )
    return "\n".join(lines)
