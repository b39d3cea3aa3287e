"""How far a classifier's confidence can be believed."""

import numpy as np
import pandas as pd

_NUM_BINS = 15
# A handful of validation images, all right, would make any classifier certain.
_TEMPERATURES = (0.25, 10.0)


def log_softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Log-probabilities in float64 of logits ``(N, num_classes)`` that are divided by the temperature first."""
    scaled = logits.astype(np.float64) / temperature
    shifted = scaled - scaled.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature at which the logits of held-out images are most probable (Guo et al. 2017, arXiv:1706.04599).

    Dividing logits by it changes confidences and no prediction. Above 1 the classifier was too sure.

    Args:
        logits: ``(N, num_classes)``.
        labels: one-hot ``(N, num_classes)``.

    Returns:
        0.25 to 10.
    """
    from scipy.optimize import minimize_scalar

    rows, targets = np.arange(len(labels)), labels.argmax(1)

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(logits, np.exp(log_temperature))[rows, targets].mean())

    found = minimize_scalar(loss, bounds=tuple(np.log(_TEMPERATURES)), method="bounded")
    return float(np.exp(found.x))


def reliability(confidence: np.ndarray, correct: np.ndarray) -> pd.DataFrame:
    """Confidence beside accuracy in 15 bins of equally many images, from unsure to sure.

    Args:
        confidence: probability of the predicted class ``(N,)``.
        correct: boolean ``(N,)``.

    Returns:
        ``confidence`` and ``accuracy`` (means, 0–1) and ``num_images``; fewer rows for fewer than 15 images.
    """
    order = np.argsort(confidence, kind="stable")
    bins = [rows for rows in np.array_split(order, _NUM_BINS) if len(rows)]
    return pd.DataFrame(
        {"confidence": confidence[rows].mean(), "accuracy": correct[rows].mean(), "num_images": len(rows)}
        for rows in bins
    )


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Mean distance of confidence from accuracy over the bins of :func:`reliability`, 0–1."""
    bins = reliability(confidence, correct)
    distances = (bins["confidence"] - bins["accuracy"]).abs()
    return float((distances * bins["num_images"]).sum() / bins["num_images"].sum())


def coverage_curve(confidence: np.ndarray, correct: np.ndarray) -> pd.DataFrame:
    """Accuracy if only the surest images were answered.

    Returns:
        ``coverage`` (share of images answered, 0–1), ``accuracy`` on those, and ``threshold``, the least confidence
        among them: one row for each confidence that occurs, the surest first.
    """
    order = np.argsort(-confidence, kind="stable")
    counts = np.arange(1, len(order) + 1)
    curve = pd.DataFrame(
        {
            "coverage": counts / len(order),
            "accuracy": np.cumsum(correct[order]) / counts,
            "threshold": confidence[order],
        }
    )
    # Images of equal confidence are answered together.
    return curve.drop_duplicates("threshold", keep="last", ignore_index=True)


def choose_threshold(held_out: pd.DataFrame, precision: float) -> float | None:
    """The least confidence from which on so many answers on held-out images are right; ``None`` where none is enough.

    Args:
        held_out: predictions, with ``confidence`` (0–1) and ``correct``.
        precision: share of right answers that is wanted, 0–1.
    """
    curve = coverage_curve(held_out["confidence"].to_numpy(), held_out["correct"].to_numpy(bool))
    enough = curve["threshold"][curve["accuracy"] >= precision]
    return float(enough.iloc[-1]) if len(enough) else None


def judge_threshold(held_out: pd.DataFrame, test: pd.DataFrame, precision: float) -> dict[str, float | None]:
    """The least confidence from which on so many answers are right: chosen on held-out images, tried on test.

    Args:
        held_out: predictions, with ``confidence`` (0–1) and ``correct``.
        test: likewise.
        precision: share of right answers that is wanted, 0–1.

    Returns:
        ``precision``, ``confidence``, ``num_images`` (that it was chosen by), and ``coverage`` and ``accuracy`` on the
        test split. ``None`` where no confidence is enough, and as accuracy where no test image reaches it.
    """
    confidence = choose_threshold(held_out, precision)
    about: dict[str, float | None] = {"precision": precision, "num_images": len(held_out)}
    if confidence is None:
        return about | {"confidence": None, "coverage": 0.0, "accuracy": None}
    answered = test["correct"][test["confidence"] >= confidence]
    return about | {
        "confidence": confidence,
        "coverage": len(answered) / len(test),
        "accuracy": float(answered.mean()) if len(answered) else None,
    }
