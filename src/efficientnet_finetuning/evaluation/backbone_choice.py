"""Recommend a backbone and an image size among the measured candidates."""

import math
from typing import Any

import pandas as pd


def measured(candidates: pd.DataFrame) -> pd.DataFrame:
    """The candidates that were measured. The others have a note; an empty note is missing in a CSV."""
    return candidates[candidates["note"].fillna("") == ""]


def pareto_front(candidates: pd.DataFrame) -> pd.DataFrame:
    """The measured candidates that are more accurate than all faster ones, from fast to slow."""
    by_time = measured(candidates).sort_values(["milliseconds", "accuracy"], ascending=[True, False])
    best_before = by_time["accuracy"].cummax().shift(fill_value=-1.0)
    return by_time[by_time["accuracy"] > best_before]


def recommend(candidates: pd.DataFrame, minutes: float) -> dict[str, Any]:
    """The candidate to fine-tune in the given minutes.

    Heads within a standard error of the best one cannot be told apart. Among these, the candidate that takes longest to
    train within the time is recommended, because larger networks and images gain more from fine-tuning. If none fits,
    it is the fastest. ``words`` is a summary.
    """
    tried = measured(candidates)
    fitting = tried[tried["training_minutes"] <= minutes]
    if len(fitting):
        best = fitting["accuracy"].max()
        error = math.sqrt(best * (1 - best) / fitting["images"].iloc[0])
        row = fitting[fitting["accuracy"] >= best - error].sort_values("training_minutes").iloc[-1].to_dict()
    else:
        row = tried.sort_values("training_minutes").iloc[0].to_dict()
    words = (
        f"For {minutes:.3g} minutes: {row['backbone']} at {row['image_size']} px. Its head alone gets "
        f"{100 * row['accuracy']:.1f} % of the images right. Fine-tuning takes about "
        f"{row['training_minutes']:.1f} minutes."
    )
    if not len(fitting):
        words += " That is too long, but no candidate is faster. Set finetune.training.time_budget_minutes."
    elif row["accuracy"] < best:
        words += (
            f" The best head ({100 * best:.1f} %) is within a standard error of it and belongs to a faster candidate."
        )
    chosen = {name: row[name] for name in ("backbone", "image_size", "accuracy", "training_minutes")}
    return chosen | {"words": words}


def format_candidates(candidates: pd.DataFrame) -> str:
    """The candidates as text for the terminal; a star marks the Pareto front."""
    front, tried = pareto_front(candidates).index, measured(candidates).index
    lines = [f"  {'backbone':<18} {'px':>4} {'head':>7} {'ms/image':>9} {'training':>10} {'memory':>8}"]
    for row in candidates.itertuples():
        name = f"{'*' if row.Index in front else ' '} {row.backbone:<18} {row.image_size:>4}"
        if row.Index in tried:
            lines.append(
                f"{name} {row.accuracy:>7.1%} {row.milliseconds:>9.1f} {row.training_minutes:>6.1f} min "
                f"{row.memory_gb:>5.1f} GB"
            )
        else:
            lines.append(f"{name} {row.note}")
    return "\n".join(lines)
