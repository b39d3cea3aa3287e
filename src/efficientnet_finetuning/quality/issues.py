"""All possible problems with images and labels, as one table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from efficientnet_finetuning.evaluation.calibration import log_softmax
from efficientnet_finetuning.quality.image_properties import find_property_issues
from efficientnet_finetuning.quality.judgement import (
    can_be_judged,
    estimate_wrong_labels,
    say_wrong_labels,
    worth_looking_at,
)
from efficientnet_finetuning.quality.label_issues import label_quality_of_classes, overlapping_classes, rank_labels
from efficientnet_finetuning.quality.outliers import near_duplicates, unlike_any_class

COLUMNS = ("id", "split", "kind", "score", "given", "suggested", "probability", "neighbour")


def find_issues(
    logits: np.ndarray,
    features: np.ndarray,
    labels: np.ndarray,
    ids: np.ndarray,
    splits: np.ndarray,
    properties: pd.DataFrame,
    class_names: Sequence[str],
    seed: int,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Find possible problems with images and labels.

    Args:
        logits: of :func:`~efficientnet_finetuning.quality.judgement.out_of_sample_logits`, ``(N, num_classes)``.
        features: that gave the logits, ``(N, channels)``.
        labels, ids, splits: of the images, each ``(N,)``.
        properties: of :func:`~efficientnet_finetuning.quality.image_properties.measure_properties`.
        class_names: by label.
        seed: of the projection in which images are compared.

    Returns:
        The table of :func:`image_issues`; and, as JSON, the counts of :func:`summarize`, ``num_images``,
        ``num_doubted`` (labels to check), ``share_wrong`` (share of wrong labels with its 95 % interval),
        ``overlapping_classes``, ``classes`` (their label quality), and sentences: ``notes`` and ``words``. Estimates
        use training and validation images only.
    """
    learnt = splits != "test"
    judged = can_be_judged(labels, learnt)
    wrong = estimate_wrong_labels(logits[judged & learnt], labels[judged & learnt])
    probabilities = np.exp(log_softmax(logits, wrong.temperature))
    learnt_from = probabilities[judged & learnt], labels[judged & learnt]
    num_doubted = worth_looking_at(wrong.probability_of(probabilities, labels)[judged])
    found = {
        "label": rank_labels(probabilities, labels, splits, judged, num_doubted),
        "outlier": unlike_any_class(logits, labels),
        "near_duplicate": near_duplicates(features, seed),
    }
    rows = pd.Series(np.arange(len(ids)), ids)
    standing_out, notes = find_property_issues(properties)
    for kind, table in standing_out.groupby("kind", sort=False):
        found[str(kind)] = pd.DataFrame({"row": rows[table["id"]].to_numpy(), "score": 1 - table["score"]})
    issues = image_issues(found, ids, splits, labels, class_names)
    return issues, summarize(issues, num_doubted) | {
        "num_images": len(labels),
        "num_doubted": num_doubted,
        "share_wrong": {"share": wrong.share, "low": wrong.low, "high": wrong.high},
        "overlapping_classes": overlapping_classes(*learnt_from, class_names),
        "classes": label_quality_of_classes(*learnt_from, class_names),
        "notes": notes,
        "words": say_wrong_labels(wrong, num_doubted, labels[~judged], class_names),
    }


def image_issues(
    found: Mapping[str, pd.DataFrame],
    ids: np.ndarray,
    splits: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
) -> pd.DataFrame:
    """Make one table with a row per issue, by kind in the given order, likeliest first.

    Args:
        found: by kind, tables with ``row`` (0 to N − 1), ``score`` and optionally ``suggested`` (a label), its
            ``probability``, and ``neighbour`` (a row).
        ids, splits, labels: of the images, each ``(N,)``.
        class_names: by label.

    Returns:
        ``id``, ``split``, ``kind``, ``score`` (0–1, higher is worse), ``given`` and ``suggested`` (class names),
        ``probability`` (of the suggested class, 0–1) and ``neighbour`` (an id); missing values are empty.
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
    """Count the first ``num_doubted`` label issues, which are likely errors, and all other issues.

    Returns:
        ``kinds``: images by kind and split; ``pairs``: ``given``, ``suggested`` and ``images`` of the doubted labels,
        largest first.
    """
    doubted = issues[issues["kind"] == "label"].head(num_doubted)
    others = issues[issues["kind"] != "label"]
    counted = pd.concat([doubted, others])
    kinds = counted.groupby(["kind", "split"], sort=False).size()
    pairs = doubted.groupby(["given", "suggested"], sort=False).size().sort_values(ascending=False, kind="stable")
    return {"kinds": _records(kinds, ("kind", "split")), "pairs": _records(pairs, ("given", "suggested"))}


def _records(counts: Any, names: tuple[str, str]) -> list[dict[str, Any]]:
    """Counts by two names, as JSON."""
    return [dict(zip(names, key, strict=True)) | {"images": int(count)} for key, count in counts.items()]
