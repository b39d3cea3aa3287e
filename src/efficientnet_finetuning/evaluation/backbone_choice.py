"""Which backbone and size to take, of those that were measured, for the time there is."""

import math
from typing import Any

import pandas as pd


def pareto_front(candidates: pd.DataFrame) -> pd.DataFrame:
    """The measured candidates of which no other is both quicker and at least as accurate, from quick to slow."""
    measured = candidates[candidates["note"].fillna("") == ""]
    by_time = measured.sort_values(["milliseconds", "accuracy"], ascending=[True, False])
    best_before = by_time["accuracy"].cummax().shift(fill_value=-1.0)
    return by_time[by_time["accuracy"] > best_before]


def recommend(candidates: pd.DataFrame, minutes: float) -> dict[str, Any]:
    """The candidate to fine-tune in the time there is.

    Of those that fit into the time and whose heads are within a standard error of the best one's, it is the one that
    uses the time: the head tells them apart no further, and fine-tuning brings more to larger networks and images.
    Where nothing fits it is the quickest.

    Args:
        candidates: of :func:`~efficientnet_finetuning.training.candidates.measure_candidates`, as a table.
        minutes: that fine-tuning may take.

    Returns:
        ``backbone``, ``image_size``, ``accuracy``, ``training_minutes``, and ``words`` for people.
    """
    measured = candidates[candidates["note"].fillna("") == ""]
    fitting = measured[measured["training_minutes"] <= minutes]
    if len(fitting):
        best = fitting["accuracy"].max()
        error = math.sqrt(best * (1 - best) / fitting["images"].iloc[0])
        row = fitting[fitting["accuracy"] >= best - error].sort_values("training_minutes").iloc[-1].to_dict()
    else:
        row = measured.sort_values("training_minutes").iloc[0].to_dict()
    words = (
        f"For {minutes:.3g} minutes: {row['backbone']} at {row['image_size']} px. Its head alone is right for "
        f"{100 * row['accuracy']:.1f} % of the images; fine-tuning takes some {row['training_minutes']:.1f} minutes."
    )
    if not len(fitting):
        words += " That is more than there is, and nothing is quicker: set finetune.training.time_budget_minutes."
    elif row["accuracy"] < best:
        words += f" The best head ({100 * best:.1f} %) is within a standard error, of a candidate that is quicker."
    chosen = {name: row[name] for name in ("backbone", "image_size", "accuracy", "training_minutes")}
    return chosen | {"words": words}


def format_candidates(candidates: pd.DataFrame) -> str:
    """The candidates as a table for the terminal; those on the front have a star."""
    front = set(pareto_front(candidates).index)
    lines = [f"  {'backbone':<18} {'px':>4} {'head':>7} {'ms/image':>9} {'training':>10} {'memory':>8}"]
    for row in candidates.itertuples():
        name = f"{'*' if row.Index in front else ' '} {row.backbone:<18} {row.image_size:>4}"
        if isinstance(row.note, str) and row.note:
            lines.append(f"{name} {row.note}")
        else:
            lines.append(
                f"{name} {row.accuracy:>7.1%} {row.milliseconds:>9.1f} {row.training_minutes:>6.1f} min "
                f"{row.memory_gb:>5.1f} GB"
            )
    return "\n".join(lines)
