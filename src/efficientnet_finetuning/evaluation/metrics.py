"""How good a classifier is on a split: every image counts once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from efficientnet_finetuning.errors import InputError


def classification_metrics(logits: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """Loss and accuracies over all rows.

    Args:
        logits: ``(N, num_classes)``.
        labels: one-hot ``(N, num_classes)``.
        class_names: by column.

    Returns:
        ``num_images``, ``loss`` (mean cross-entropy in nats), ``top1`` and ``top5`` (0–1; top-5 is 1 by definition
        with five classes or fewer), ``balanced_accuracy`` (mean of the classes' accuracies, whatever
        their sizes) and ``per_class``: top-1 accuracy by name, ``None`` for a class without images.

    Raises:
        InputError: a logit is infinite or not a number.
    """
    if not np.isfinite(logits).all():
        raise InputError(
            "The model's logits are not finite: its training diverged or its file is damaged. Train it again, with a "
            "lower learning rate if its loss was not finite either."
        )
    targets = labels.argmax(1)
    log_probabilities = _log_softmax(logits)
    ranks = _ranks(logits, targets)
    hits = ranks == 0
    per_class = {
        name: float(hits[targets == label].mean()) if (targets == label).any() else None
        for label, name in enumerate(class_names)
    }
    return {
        "num_images": len(targets),
        "loss": float(-log_probabilities[np.arange(len(targets)), targets].mean()),
        "top1": float(hits.mean()),
        "top5": float((ranks < 5).mean()),
        "balanced_accuracy": float(np.mean([accuracy for accuracy in per_class.values() if accuracy is not None])),
        "per_class": per_class,
    }


def predictions_table(
    logits: np.ndarray, labels: np.ndarray, ids: np.ndarray, class_names: Sequence[str]
) -> pd.DataFrame:
    """One row an image, in the order of ``ids``.

    Returns:
        ``id``, ``true`` and ``predicted`` (class names), ``correct``, ``confidence`` (probability of the predicted
        class) and ``true_probability``, both in 0–1.
    """
    names = np.asarray(class_names, dtype=object)
    targets, predicted = labels.argmax(1), logits.argmax(1)
    probabilities = np.exp(_log_softmax(logits))
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


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def _ranks(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """How many classes come before the true one, equal logits in the order of the classes, as ``argmax`` has it."""
    true = np.take_along_axis(logits, targets[:, None], 1)
    earlier = np.arange(logits.shape[1]) < targets[:, None]
    return ((logits > true) | ((logits == true) & earlier)).sum(1)
