"""All that may be wrong with the images and their labels, as one table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

COLUMNS = ("id", "split", "kind", "score", "given", "suggested", "probability", "neighbour")


def image_issues(
    found: Mapping[str, pd.DataFrame],
    ids: np.ndarray,
    splits: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
) -> pd.DataFrame:
    """One row an issue of an image, by kind in the order given and the likeliest first.

    Args:
        found: by kind, tables with ``row`` (in 0 to N − 1) and ``score`` and, where a kind has them, ``suggested`` (a
            label), its ``probability``, and ``neighbour`` (a row).
        ids: ``(N,)``.
        splits: ``(N,)``.
        labels: ``(N,)``.
        class_names: by label.

    Returns:
        ``id``, ``split``, ``kind``, ``score`` (0–1, the worse the higher), ``given`` and ``suggested`` (class names),
        ``probability`` (of the suggested one, 0–1) and ``neighbour`` (an id). What a kind does not have is empty.
    """
    names = np.array(class_names, dtype=object)
    tables = []
    for kind, table in found.items():
        rows = table["row"].to_numpy(int)
        tables.append(
            pd.DataFrame(
                {
                    "id": ids[rows],
                    "split": splits[rows],
                    "kind": kind,
                    "score": table["score"].round(4),
                    "given": names[labels[rows]],
                    "suggested": names[table["suggested"].to_numpy(int)] if "suggested" in table else "",
                    "probability": table["probability"].round(4) if "probability" in table else np.nan,
                    "neighbour": ids[table["neighbour"].to_numpy(int)] if "neighbour" in table else "",
                },
                columns=list(COLUMNS),
            )
        )
    return pd.concat(tables, ignore_index=True)


def summarize(issues: pd.DataFrame, num_doubted: int) -> dict[str, Any]:
    """Counts for people: by kind and split, and of the doubted labels by pair of classes.

    Args:
        issues: of :func:`image_issues`.
        num_doubted: how many labels, from the first on, are doubted; the rows after them are a ranking only.

    Returns:
        ``kinds``: images by kind and split; ``pairs``: ``given``, ``suggested`` and ``images``, the most first.
    """
    doubted = issues[issues["kind"] == "label"].head(num_doubted)
    others = issues[issues["kind"] != "label"]
    counted = pd.concat([doubted, others])
    kinds = counted.groupby(["kind", "split"], sort=False).size()
    pairs = doubted.groupby(["given", "suggested"], sort=False).size().sort_values(ascending=False, kind="stable")
    return {
        "kinds": _records(kinds, ("kind", "split")),
        "pairs": _records(pairs, ("given", "suggested")),
    }


def _records(counts: Any, names: tuple[str, str]) -> list[dict[str, Any]]:
    """Counts by two names, as JSON."""
    return [dict(zip(names, key, strict=True)) | {"images": int(count)} for key, count in counts.items()]
