"""The head of a frozen backbone, fitted on features that were computed once."""

import logging
import time
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import HeadParameters

logger = logging.getLogger(__name__)


def fit_head(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    validation_features: np.ndarray,
    validation_labels: np.ndarray,
    parameters: HeadParameters,
) -> tuple[np.ndarray, np.ndarray, list[dict[str, float]]]:
    """Fit multinomial logistic regression at each strength of L2 and keep the best on the validation split.

    The path goes from strong to weak regularization, each fit starting from the one before.

    Args:
        train_features: float32 ``(N, channels)``.
        train_labels: one-hot ``(N, num_classes)``.
        validation_features, validation_labels: likewise.
        parameters: the path.

    Returns:
        Kernel ``(channels, num_classes)`` and bias ``(num_classes,)`` in float32, and the path: one row a strength
        with top-1 accuracies in 0–1 and seconds.
    """
    if not (np.isfinite(train_features).all() and np.isfinite(validation_features).all()):
        raise InputError(
            "The backbone's features are not finite: its weights are damaged or belong to another network, or half "
            "precision overflows. Check backbone.weights and device.mixed_precision."
        )
    train_targets, validation_targets = train_labels.argmax(1), validation_labels.argmax(1)
    weights = None if parameters.class_weight == "none" else parameters.class_weight
    regression = LogisticRegression(max_iter=parameters.max_iterations, class_weight=weights, warm_start=True)
    best: tuple[np.ndarray, np.ndarray] | None = None
    path: list[dict[str, float]] = []
    for strength in sorted(parameters.inverse_regularizations):
        started = time.perf_counter()
        regression.set_params(C=strength)
        with warnings.catch_warnings():
            # A weakly regularized fit that stops early is a regularized one; validation judges it like any other.
            warnings.simplefilter("ignore", ConvergenceWarning)
            regression.fit(train_features, train_targets)
        row = {
            "inverse_regularization": strength,
            "accuracy": float(regression.score(train_features, train_targets)),
            "val_accuracy": float(regression.score(validation_features, validation_targets)),
            "seconds": time.perf_counter() - started,
        }
        if all(row["val_accuracy"] > earlier["val_accuracy"] for earlier in path):
            best = _kernel_and_bias(regression)
        path.append(row)
        logger.info(
            "head C=%g: top-1 train %.1f %%, validation %.1f %%, %.1f s",
            strength,
            100 * row["accuracy"],
            100 * row["val_accuracy"],
            row["seconds"],
            extra={"metrics": row, "step": len(path)},
        )
    # The last record is what a tracker shows first.
    kept = max(path, key=lambda row: row["val_accuracy"])
    logger.info("head: C=%g is kept", kept["inverse_regularization"], extra={"metrics": kept, "step": len(path) + 1})
    assert best is not None  # the first strength is better than none
    return *best, path


def _kernel_and_bias(regression: LogisticRegression) -> tuple[np.ndarray, np.ndarray]:
    kernel, bias = regression.coef_.T, regression.intercept_
    if kernel.shape[1] == 1:
        # Two classes: scikit-learn fits one logit, the difference of the two.
        kernel, bias = np.concatenate([-kernel / 2, kernel / 2], 1), np.concatenate([-bias / 2, bias / 2])
    return kernel.astype(np.float32), bias.astype(np.float32)
