"""The head of a frozen backbone, fitted on features that were computed once."""

import logging
import time
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from threadpoolctl import ThreadpoolController

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import HeadParameters

logger = logging.getLogger(__name__)

# Strengths in a row that are no better before weaker ones are not tried any more.
_PATIENCE = 2
# Smallest decrease of the objective in a step, in nats an image. A tenth of it costs a third more time and moves no
# accuracy.
_TOLERANCE = 3e-6


def fit_head(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    validation_features: np.ndarray,
    validation_labels: np.ndarray,
    parameters: HeadParameters,
) -> tuple[np.ndarray, np.ndarray, list[dict[str, float]]]:
    """Fit multinomial logistic regression at each strength of L2 and keep the best on the validation split.

    The path goes from strong to weak regularization, each fit starting where the two before point, and ends after two
    strengths that are no better: the weaker, the dearer. Of equal accuracies the lower loss decides.

    Args:
        train_features: float32 ``(N, channels)``.
        train_labels: one-hot ``(N, num_classes)``.
        validation_features, validation_labels: likewise.
        parameters: the path.

    Returns:
        Kernel ``(channels, num_classes)`` and bias ``(num_classes,)`` in float32, and the path: one row a strength
        with top-1 accuracies in 0–1, validation loss and seconds.

    Raises:
        InputError: a feature is not finite.
    """
    if not (np.isfinite(train_features).all() and np.isfinite(validation_features).all()):
        raise InputError(
            "The backbone's features are not finite: its weights are damaged or belong to another network, or half "
            "precision overflows. Check backbone.weights and device.mixed_precision."
        )
    started = time.perf_counter()
    regression = _Regression(train_features, train_labels, parameters.class_weight)
    best, best_score, worse = regression.kernel_and_bias(), (-np.inf, -np.inf), 0
    path: list[dict[str, float]] = []
    for strength in sorted(set(parameters.inverse_regularizations)):
        regression.fit(strength, parameters.max_iterations)
        kernel, bias = regression.kernel_and_bias()
        row = {"inverse_regularization": strength}
        row["accuracy"], row["loss"] = _accuracy_and_loss(train_features @ kernel + bias, train_labels)
        row["val_accuracy"], row["val_loss"] = _accuracy_and_loss(
            validation_features @ kernel + bias, validation_labels
        )
        row["seconds"], started = time.perf_counter() - started, time.perf_counter()
        path.append(row)
        _tell(row, len(path))
        score = (row["val_accuracy"], -row["val_loss"])
        worse = 0 if score > best_score else worse + 1
        if score > best_score:
            best, best_score, kept = (kernel, bias), score, row
        if worse == _PATIENCE:
            break
    # The last record is what a tracker shows first.
    logger.info("head: C=%g is kept", kept["inverse_regularization"], extra={"metrics": kept, "step": len(path) + 1})
    return *best, path


class _Regression:
    """Multinomial logistic regression ``C · Σ cross-entropy + ½ ‖kernel‖²`` by L-BFGS, as scikit-learn poses it.

    In the eigenbasis of the features' covariance the penalty stays what it is, and dividing each direction by the
    root of its curvature makes them all alike, so that L-BFGS needs tens of steps where it needed hundreds: a path for
    10 classes takes a tenth of scikit-learn's time.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray, class_weight: str) -> None:
        self._mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
        centered = features - self._mean
        eigenvalues, self._basis = np.linalg.eigh(centered.T @ centered)
        self._curvature = np.maximum(eigenvalues.astype(np.float64), 0.0)
        self._features = centered @ self._basis
        self._labels = labels.astype(np.float32)
        counts = np.maximum(self._labels.sum(axis=0), 1.0)
        weights = len(labels) / (np.count_nonzero(labels.any(axis=0)) * counts)
        self._weights = np.ones(len(labels), np.float32)
        if class_weight == "balanced":
            self._weights = (self._labels @ weights).astype(np.float32)
        # Strengths and their solutions, which have one row more than there are features: the bias.
        self._path = [(0.0, np.zeros((features.shape[1] + 1, labels.shape[1])))]

    @property
    def _solution(self) -> np.ndarray:
        return self._path[-1][1]

    def fit(self, strength: float, max_iterations: int) -> None:
        """Move on to the solution of this strength."""
        # A tenth is what p (1 − p) is about in the cross-entropy's Hessian.
        curvature = 0.1 * strength * np.append(self._curvature, len(self._features)) + 1.0
        curvature[-1] -= 1.0  # the bias is not penalized
        scale = 1.0 / np.sqrt(curvature)[:, None]
        with _one_thread_for_scipy():
            result = minimize(
                self._objective,
                (self._start(strength) / scale).ravel(),
                args=(scale, strength),
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": max_iterations, "ftol": _TOLERANCE, "gtol": 0.0},
            )
        self._path.append((strength, result.x.reshape(self._solution.shape) * scale))

    def _start(self, strength: float) -> np.ndarray:
        """Where the two solutions before point, by the logarithm of the strength.

        From the last one itself a path takes 1.3 to 1.6 times as many steps (127 and 79 for 4,500 images of CIFAR-10,
        207 and 132 for some 2,000 drawn ones).
        """
        if len(self._path) < 3:
            return self._solution
        (earlier, first), (later, last) = self._path[-2:]
        # No farther than the way that is known.
        share = min(np.log(strength / later) / np.log(later / earlier), 1.0)
        return last + share * (last - first)

    def kernel_and_bias(self) -> tuple[np.ndarray, np.ndarray]:
        """The solution for features as they are."""
        kernel = self._basis @ self._solution[:-1].astype(np.float32)
        return kernel, self._solution[-1].astype(np.float32) - self._mean @ kernel

    def _objective(self, point: np.ndarray, scale: np.ndarray, strength: float) -> tuple[float, np.ndarray]:
        solution = point.reshape(self._solution.shape) * scale
        kernel, bias = solution[:-1].astype(np.float32), solution[-1].astype(np.float32)
        logits = self._features @ kernel + bias
        logits -= logits.max(axis=1, keepdims=True)
        exponentials = np.exp(logits)
        totals = exponentials.sum(axis=1, keepdims=True)
        losses = (np.log(totals[:, 0]) - (logits * self._labels).sum(axis=1)) * self._weights
        residuals = (exponentials / totals - self._labels) * self._weights[:, None]
        gradient = np.concatenate([self._features.T @ residuals, residuals.sum(axis=0)[None]])
        loss = strength * losses.sum(dtype=np.float64) + 0.5 * (solution[:-1] ** 2).sum()
        gradient = strength * gradient.astype(np.float64)
        gradient[:-1] += solution[:-1]
        images = strength * len(residuals)  # so that a decrease means the same for few images and for many
        return loss / images, (gradient * scale).ravel() / images


def _one_thread_for_scipy():
    """SciPy's wheel brings a BLAS of its own, whose idle threads spin and take the cores from NumPy's.

    On two cores, 4,500 images of 10 classes take 1.0 s with it and 2.2 s without, 11,000 of 120 classes 4.5 and 8.3 s.
    """
    controller = ThreadpoolController()
    paths = [library["filepath"] for library in controller.info()]
    of_scipy = [path for path in paths if any(part.startswith("scipy") for part in Path(path).parts)]
    return controller.select(filepath=of_scipy).limit(limits=1)


def _accuracy_and_loss(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    targets = labels.argmax(axis=1)
    logits = logits - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), targets]
    return float((logits.argmax(axis=1) == targets).mean()), float(losses.mean())


def _tell(row: dict[str, float], step: int) -> None:
    logger.info(
        "head C=%g: top-1 train %.1f %%, validation %.1f %%, %.1f s",
        row["inverse_regularization"],
        100 * row["accuracy"],
        100 * row["val_accuracy"],
        row["seconds"],
        extra={"metrics": row, "step": step},
    )
