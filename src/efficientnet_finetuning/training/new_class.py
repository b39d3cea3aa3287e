"""Add a class to a fitted head by fitting only its column, on stored features.

The other columns do not change. An image of a known class goes wrong only if the new class wins.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from efficientnet_finetuning.training.head import stratified_folds

_FOLDS = 5
_MOST_STEPS = 100
# Number of held-out images nearest to the new class from which its wins are estimated.
_TAIL = 10


class NewColumn(NamedTuple):
    """The result of :func:`fit_new_class`.

    Attributes:
        kernel: float32 ``(channels,)``.
        bias: of the new class.
        is_recognized: whether the new class wins for each new image when it is held out, boolean ``(M,)``.
    """

    kernel: np.ndarray
    bias: float
    is_recognized: np.ndarray


def fit_new_class(
    known: tuple[np.ndarray, np.ndarray],
    new: tuple[np.ndarray, np.ndarray],
    labels: np.ndarray,
    held_out_logits: np.ndarray,
    max_loss: float,
) -> NewColumn:
    """Fit the new column by logistic regression, and limit the loss of the known classes by its bias.

    Every image is judged by a column that was fitted without its fold. If more than ``max_loss`` of the held-out known
    images would be taken for the new class, the bias is lowered.

    Args:
        known: features ``(N, channels)`` and logits ``(N, num_classes)`` of images of the known classes.
        new: features and logits of images of the new class, at least two.
        labels: class indices of the known images ``(N,)``.
        held_out_logits: of the known images by a head that was fitted without them, ``(N, num_classes)``; NaN for
            others.
        max_loss: share, 0–1.
    """
    features = np.concatenate([known[0], new[0]])
    logits = np.concatenate([known[1], new[1]])
    is_new = np.repeat([False, True], [len(known[0]), len(new[0])])
    folds = min(_FOLDS, len(new[0]))
    assigned = stratified_folds(np.stack([~is_new, is_new], 1), folds)
    judged = np.empty(len(features))
    for fold in range(folds):
        rows = assigned != fold
        kernel, bias = _fit(features[rows], logits[rows], is_new[rows])
        judged[~rows] = features[~rows] @ kernel + bias
    lowered = _too_much(judged[~is_new], labels, held_out_logits, max_loss)
    kernel, bias = _fit(features, logits, is_new)
    return NewColumn(kernel, bias - lowered, judged[is_new] - lowered > logits[is_new].max(1))


def _too_much(new_logits: np.ndarray, labels: np.ndarray, held_out_logits: np.ndarray, max_loss: float) -> float:
    """By how much the new class' logits must be lowered so that at most ``max_loss`` of the known images are lost."""
    rows = np.isfinite(held_out_logits).all(axis=1)
    logits = held_out_logits[rows]
    is_right = logits.argmax(1) == labels[rows]
    margins = np.sort((new_logits[rows] - logits.max(1))[is_right])[::-1]
    tail = max(min(_TAIL, len(logits) // 10), int(max_loss * len(logits)), 1)
    if tail >= len(margins):
        return 0.0
    # 0.003 of two hundred images is less than one image, so an exponential tail is assumed.
    excess = (margins[:tail] - margins[tail]).mean()
    return max(0.0, float(margins[tail] + excess * np.log(tail / len(logits) / max_loss)))


def _fit(features: np.ndarray, logits: np.ndarray, is_new: np.ndarray) -> tuple[np.ndarray, float]:
    """The column that minimizes the mean cross-entropy, with the known logits fixed and an L2 penalty.

    The new class has the weight of an average known class, so that ten photographs count beside a thousand. The
    strength is that of :func:`~efficientnet_finetuning.training.refit.refit_head`.
    """
    mean = features.mean(axis=0)
    centered = features - mean
    known = np.logaddexp.reduce(logits, axis=1)
    target = is_new.astype(np.float32)
    weights = np.where(is_new, (~is_new).sum() / logits.shape[1] / is_new.sum(), 1.0)
    strength = 1 / len(features)

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        margins = centered @ point[:-1].astype(np.float32) + point[-1] - known
        losses = np.logaddexp(0.0, margins) - target * margins
        residuals = strength * weights * (1 / (1 + np.exp(-margins)) - target)
        gradient = np.append(residuals.astype(np.float32) @ centered + point[:-1], residuals.sum())
        return strength * (weights * losses).sum() + 0.5 * (point[:-1] ** 2).sum(), gradient

    start = np.zeros(features.shape[1] + 1)
    point = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": _MOST_STEPS}).x
    kernel = point[:-1].astype(np.float32)
    return kernel, float(point[-1] - mean @ kernel)
