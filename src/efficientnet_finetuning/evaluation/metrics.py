"""Metrics of a classifier on a split."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.evaluation.calibration import expected_calibration_error, log_softmax
from efficientnet_finetuning.evaluation.ranking import area_under_roc, average_precision

# With so few classes, the true one is almost always among the first five.
_TOO_FEW_FOR_TOP5 = 6


def classification_metrics(
    logits: np.ndarray, labels: np.ndarray, class_names: Sequence[str], temperature: float = 1.0
) -> dict[str, Any]:
    """Loss, accuracy and calibration over all images, and metrics of each class.

    Args:
        logits: ``(N, num_classes)``.
        labels: one-hot ``(N, num_classes)``.
        class_names: by column.
        temperature: of :func:`~efficientnet_finetuning.evaluation.calibration.fit_temperature`.

    Returns:
        ``num_images``, ``loss`` (mean cross-entropy in nats), ``top1`` and ``top5`` (0–1; ``None`` for up to six
        classes), ``balanced_accuracy`` (mean recall of the classes), ``macro`` and ``weighted`` ``_precision``,
        ``_recall`` and ``_f1``, ``macro_roc_auc``, ``macro_average_precision``, ``temperature``, ``calibration_error``
        with it and ``calibration_error_raw`` without; and ``per_class`` by name: ``precision``, ``recall``, ``f1``,
        one-against-all ``roc_auc`` and ``average_precision``, and ``support``. Undefined values are ``None`` and are
        left out of the means, such as the recall of a class without images.

    Raises:
        InputError: a logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise InputError(
            "The model's logits are not finite. Its training diverged, or its file is damaged. Train it again, with a "
            "lower learning rate if its loss was not finite either."
        )
    targets, predicted = labels.argmax(1), logits.argmax(1)
    hits = predicted == targets
    rows = np.arange(len(targets))
    probabilities, raw = (np.exp(log_softmax(logits, t)) for t in (temperature, 1.0))
    per_class = _per_class(targets, predicted, probabilities)
    seen = per_class[per_class["support"] > 0]
    means: dict[str, float | None] = {
        f"macro_{name}": float(seen[name].mean()) for name in ("precision", "recall", "f1", "average_precision")
    }
    means["macro_roc_auc"] = None if seen["roc_auc"].isna().all() else float(seen["roc_auc"].mean())
    means |= {
        f"weighted_{name}": float(np.average(seen[name], weights=seen["support"]))
        for name in ("precision", "recall", "f1")
    }
    return {
        "num_images": len(targets),
        "loss": float(-log_softmax(logits)[rows, targets].mean()),
        "top1": float(hits.mean()),
        "top5": float((_ranks(logits, targets) < 5).mean()) if len(class_names) > _TOO_FEW_FOR_TOP5 else None,
        "balanced_accuracy": means["macro_recall"],
        **means,
        "calibration_error": expected_calibration_error(probabilities[rows, predicted], hits),
        "calibration_error_raw": expected_calibration_error(raw[rows, predicted], hits),
        "temperature": temperature,
        "per_class": dict(zip(class_names, _without_nan(per_class), strict=True)),
    }


def predictions_table(
    logits: np.ndarray, labels: np.ndarray, ids: np.ndarray, class_names: Sequence[str], temperature: float = 1.0
) -> pd.DataFrame:
    """One row per image, in the order of ``ids``.

    Returns ``id``, ``true`` and ``predicted`` (class names), ``correct``, and, with the temperature, ``confidence``
    (probability of the predicted class) and ``true_probability`` (0–1).
    """
    names = np.asarray(class_names, dtype=object)
    targets, predicted = labels.argmax(1), logits.argmax(1)
    probabilities = np.exp(log_softmax(logits, temperature))
    rows = np.arange(len(targets))
    return pd.DataFrame(
        {
            "id": ids,
            "true": names[targets],
            "predicted": names[predicted],
            "correct": targets == predicted,
            "confidence": probabilities[rows, predicted],
            "true_probability": probabilities[rows, targets],
        }
    )


def confusion(predictions: pd.DataFrame, class_names: Sequence[str]) -> np.ndarray:
    """Counts ``(num_classes, num_classes)``, by true class (rows) and predicted class (columns)."""
    codes = [pd.Categorical(predictions[side], list(class_names)).codes for side in ("true", "predicted")]
    counts = np.zeros((len(class_names),) * 2, np.int64)
    np.add.at(counts, tuple(codes), 1)
    return counts


def confused_pairs(predictions: pd.DataFrame, limit: int) -> pd.DataFrame:
    """The most frequent mistakes: ``true``, ``predicted``, ``num_images``, ``share`` of the true class (0–1)."""
    wrong = predictions[~predictions["correct"]]
    pairs = wrong.groupby(["true", "predicted"]).size().rename("num_images").reset_index()
    totals = predictions["true"].value_counts()
    pairs["share"] = pairs["num_images"] / pairs["true"].map(totals).to_numpy()
    return pairs.sort_values(["num_images", "share", "true"], ascending=[False, False, True]).head(limit)


def _per_class(targets: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """One row per class. Undefined values are NaN; precision without predictions is 0, as in scikit-learn."""
    num_classes = probabilities.shape[1]
    support, answers, hits = (
        np.bincount(labels, minlength=num_classes) for labels in (targets, predicted, targets[targets == predicted])
    )

    def share(hits: np.ndarray, of: np.ndarray, otherwise: float) -> np.ndarray:
        return np.divide(hits, of, out=np.full(num_classes, otherwise), where=of > 0)

    ranked = [(probabilities[:, label], targets == label) for label in range(num_classes)]
    return pd.DataFrame(
        {
            "precision": share(hits, answers, 0.0),
            "recall": share(hits, support, np.nan),
            "f1": np.where(support > 0, share(2 * hits, support + answers, 0.0), np.nan),
            "roc_auc": [area_under_roc(*scores) for scores in ranked],
            "average_precision": [average_precision(*scores) for scores in ranked],
            "support": support,
        }
    )


def _without_nan(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(name): None if pd.isna(value) else value for name, value in row.items()}
        for row in table.to_dict("records")
    ]


def _ranks(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """How many classes rank before the true one; equal logits rank in class order, as in ``argmax``."""
    true = np.take_along_axis(logits, targets[:, None], 1)
    earlier = np.arange(logits.shape[1]) < targets[:, None]
    return ((logits > true) | ((logits == true) & earlier)).sum(1)
