"""All that may be wrong with the images and their labels, as one table."""

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
    """What may be wrong with the images and their labels.

    Args:
        logits: of :func:`~efficientnet_finetuning.quality.judgement.out_of_sample_logits`, ``(N, num_classes)``.
        features: that they come from, ``(N, channels)``.
        labels: ``(N,)``.
        ids: ``(N,)``.
        splits: ``(N,)``.
        properties: of :func:`~efficientnet_finetuning.quality.image_properties.measure_properties`.
        class_names: by label.
        seed: of the projection on which images are compared.

    Returns:
        The table of :func:`image_issues`; and, as JSON, what :func:`summarize` counts, ``num_images``, ``num_doubted``
        (labels that are worth a look), ``share_wrong`` (of the labels, with its 95 % interval),
        ``overlapping_classes``, ``classes`` (their label quality), ``notes`` and ``words``, sentences. What is
        estimated of the set is estimated from training and validation images.
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
    return {"kinds": _records(kinds, ("kind", "split")), "pairs": _records(pairs, ("given", "suggested"))}


def _records(counts: Any, names: tuple[str, str]) -> list[dict[str, Any]]:
    """Counts by two names, as JSON."""
    return [dict(zip(names, key, strict=True)) | {"images": int(count)} for key, count in counts.items()]
