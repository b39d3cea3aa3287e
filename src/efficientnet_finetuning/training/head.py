"""Fit the head of a frozen backbone on precomputed features."""

import copy
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from threadpoolctl import ThreadpoolController

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import HeadParameters
from efficientnet_finetuning.training.rules import ENOUGH_TO_CHOOSE_BY, class_weights

logger = logging.getLogger(__name__)

# The path ends after this number of strengths without improvement.
_PATIENCE = 2
# Smallest decrease of the objective per step, in nats per image. A tenth of it takes a third more time for the same
# accuracy.
_TOLERANCE = 3e-6
_FOLDS = 5


class FittedHead(NamedTuple):
    """The result of :func:`fit_head`.

    Attributes:
        kernel: float32 ``(channels, num_classes)``.
        bias: float32 ``(num_classes,)``.
        path: one row per strength: top-1 accuracies (0–1) and losses on training and held-out images, seconds, and
            ``kept``.
        held_out_logits: float32 ``(M, num_classes)`` of the validation images. If folds chose the strength, those of
            all training images come first, each by a head that was fitted without its fold.
    """

    kernel: np.ndarray
    bias: np.ndarray
    path: list[dict[str, float]]
    held_out_logits: np.ndarray


def fit_head(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    validation_features: np.ndarray,
    validation_labels: np.ndarray,
    parameters: HeadParameters,
    *,
    mirrored: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    use_all: bool = False,
    quiet: bool = False,
) -> FittedHead:
    """Fit multinomial logistic regression at several L2 strengths, and keep the best on held-out images.

    The validation split or, with ``parameters.folds``, cross-validation on the training images judges each strength.
    The path goes from strong to weak regularization, and ends after two strengths without improvement, because weak
    ones take longer. Of equal accuracies the lower loss wins.

    Args:
        train_features: float32 ``(N, channels)``.
        train_labels: one-hot ``(N, num_classes)``.
        validation_features, validation_labels: of the validation images.
        parameters: of the head.
        mirrored: features of the mirror images of all held-out images, in the order of ``held_out_logits``, if
            predictions average over both.
        groups: group ``(N,)`` of each training image, then of each validation image; images of a group stay in one
            fold.
        use_all: also fit on the validation images if folds choose the strength (only with one view).
        quiet: log nothing.

    Raises:
        InputError: a feature is not finite, or folds are needed but all training images are in one group.
    """
    if not all(np.isfinite(part).all() for part in (train_features, validation_features, mirrored) if part is not None):
        raise InputError(
            "The backbone's features are not finite. Its weights may be damaged or belong to another network, or half "
            "precision overflows. Check backbone.weights and device.mixed_precision."
        )
    started = time.perf_counter()
    say: Callable[..., None] = (lambda *_, **__: None) if quiet else logger.debug
    folds = number_of_folds(parameters, len(train_labels), len(validation_labels))
    judged, judged_labels = validation_features, validation_labels
    if folds:
        say("head: %d folds of the training images choose its strength", folds)
        images = slice(len(train_labels) // parameters.views)  # the first view: the original images
        judged = np.concatenate([train_features[images], validation_features])
        judged_labels = np.concatenate([train_labels[images], validation_labels])
        if use_all and parameters.views == 1:
            train_features, train_labels = judged, judged_labels
    if mirrored is not None:
        judged = (judged + mirrored) / 2  # averages the logits too, since the head is linear
    regression = _Regression(train_features, train_labels, parameters.class_weight)
    assigned = stratified_folds(train_labels, folds, parameters.views, groups) if folds else np.empty(0, np.int64)
    if folds and len(np.unique(assigned)) == 1:
        raise InputError(
            "All training images are in one group, so they cannot be split into folds. Use smaller groups, or let the "
            "validation split choose the head's strength: transfer.head.folds=0."
        )
    held_out = _HeldOut(judged, judged_labels, assigned, regression, parameters)
    best_score, worse = (-np.inf, -np.inf), 0
    path: list[dict[str, float]] = []
    for strength in sorted(set(parameters.inverse_regularizations)):
        regression.fit(strength, parameters.max_iterations)
        kernel, bias = regression.kernel_and_bias()
        row = {"inverse_regularization": strength}
        row["accuracy"], row["loss"] = _accuracy_and_loss(train_features @ kernel + bias, train_labels)
        logits = held_out.logits(strength)
        row["val_accuracy"], row["val_loss"] = held_out.score(logits)
        row["seconds"], started = time.perf_counter() - started, time.perf_counter()
        path.append(row)
        _tell(row, len(path), say)
        score = (row["val_accuracy"], -row["val_loss"])
        worse = 0 if score > best_score else worse + 1
        if score > best_score:
            best, best_score, kept = (kernel, bias, logits), score, row
        if worse == _PATIENCE:
            break
    # Logged last, because MLflow shows the last record first.
    say("head: C=%g is kept", kept["inverse_regularization"], extra={"metrics": kept, "step": len(path) + 1})
    kernel, bias, logits = best
    return FittedHead(kernel, bias, [row | {"kept": row is kept} for row in path], logits)


def fit_parts(
    features: np.ndarray, labels: np.ndarray, parts: Iterable[tuple[np.ndarray, float]], parameters: HeadParameters
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Fit a head on each part of the images, given by its rows and an inverse L2 strength.

    Features and labels are as for :func:`fit_head`. Yields float32 kernels ``(channels, num_classes)`` and biases
    ``(num_classes,)``.
    """
    regression = _Regression(features, labels, parameters.class_weight)
    for rows, strength in parts:
        part = regression.restricted_to(rows)
        part.fit(strength, parameters.max_iterations)
        yield part.kernel_and_bias()


def stratified_folds(labels: np.ndarray, folds: int, views: int = 1, groups: np.ndarray | None = None) -> np.ndarray:
    """The fold of each row, with classes and groups balanced as well as possible.

    Images that are neighbours in the stored order get the same fold, because they often show the same moment. All views
    of an image, and all images of a group, are in one fold. A group counts as its rarest class.

    Args:
        labels: one-hot ``(views × N, num_classes)``, view by view.
        folds: number of folds.
        views: of each image.
        groups: of each image, at least ``(N,)``; ``None``: each image is its own group.

    Returns:
        ``(views × N,)``, 0 to ``folds`` − 1. With few groups, a fold may be empty.
    """
    targets = labels[: len(labels) // views].argmax(axis=1)
    names = np.arange(len(targets)) if groups is None else groups[: len(targets)]
    firsts, codes = np.unique(names, return_index=True, return_inverse=True)[1:]
    rarest = _rarest_class(targets, codes)
    assigned = np.empty(len(firsts), np.int64)
    for label in np.unique(targets):
        own = np.flatnonzero(rarest == label)
        own = own[np.argsort(firsts[own])]
        sizes = np.bincount(codes[targets == label], minlength=len(firsts))[own]
        middles = np.cumsum(sizes) - 1 - sizes // 2
        # Each class starts one fold later, or the first folds would get all images of small classes.
        assigned[own] = (middles * folds // max(sizes.sum(), folds) + label) % folds
    return np.tile(assigned[codes], views)


def _rarest_class(targets: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """For each group, its class with the fewest images overall."""
    counts = np.bincount(targets)[targets]
    order = np.lexsort((targets, -counts))  # the rarest class comes last and so overwrites the others
    rarest = np.empty(codes.max() + 1, np.int64)
    rarest[codes[order]] = targets[order]
    return rarest


def number_of_folds(parameters: HeadParameters, num_rows: int, num_validation: int) -> int:
    """How many folds choose the head's strength, given rows (images times views) and validation images; 0: none."""
    num_images, folds = num_rows // parameters.views, parameters.folds
    if folds == "auto":
        folds = _FOLDS if num_validation < ENOUGH_TO_CHOOSE_BY else 0
    # With one image, none would be left for fitting.
    return min(int(folds), num_images) if num_images > 1 else 0


class _Regression:
    """Multinomial logistic regression ``C · Σ cross-entropy + ½ ‖kernel‖²``, as in scikit-learn, solved by L-BFGS.

    In the eigenbasis of the covariance the penalty is unchanged. Scaling each direction by the root of its curvature
    reduces hundreds of steps to tens: a path for 10 classes takes a tenth of scikit-learn's time.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray, class_weight: str) -> None:
        self._mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
        centered = features - self._mean
        self._curvature, self._basis = _eigenbasis(centered)
        self._features = centered @ self._basis
        self._labels = labels.astype(np.float32)
        weights = class_weights(labels, class_weight)
        self._weights = self._labels @ np.array(
            [*weights.values()] if weights else np.ones(labels.shape[1]), np.float32
        )
        # Strengths and solutions. The last row of a solution is the bias.
        self._path = [(0.0, np.zeros((len(self._curvature) + 1, labels.shape[1])))]

    @property
    def _solution(self) -> np.ndarray:
        return self._path[-1][1]

    def fit(self, strength: float, max_iterations: int) -> None:
        """Solve for this strength, starting from the earlier solutions."""
        # In the Hessian of the cross-entropy, p (1 − p) is about a tenth.
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
        """Extrapolate the last two solutions by the logarithm of the strength.

        Starting from the last solution itself takes 1.3 to 1.6 times as many steps (127 instead of 79 for 4,500 images
        of CIFAR-10, 207 instead of 132 for about 2,000 drawn ones).
        """
        if len(self._path) < 3:
            return self._solution
        (earlier, first), (later, last) = self._path[-2:]
        # Not farther than the last step.
        share = min(np.log(strength / later) / np.log(later / earlier), 1.0)
        return last + share * (last - first)

    def restricted_to(self, rows: np.ndarray) -> "_Regression":
        """The same regression on some of the images, not fitted yet. It reuses the expensive eigenbasis."""
        part = copy.copy(self)
        part._features, part._labels, part._weights = self._features[rows], self._labels[rows], self._weights[rows]
        part._curvature = self._curvature * (len(part._features) / len(self._features))
        part._path = [(0.0, np.zeros_like(self._solution))]
        return part

    def kernel_and_bias(self) -> tuple[np.ndarray, np.ndarray]:
        """The solution for the original features."""
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
        images = strength * len(residuals)  # makes the tolerance independent of the number of images
        return loss / images, (gradient * scale).ravel() / images


def _eigenbasis(centered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues ``(rank,)`` and eigenvectors ``(channels, rank)`` of the scatter matrix of the features.

    With fewer images than channels, the matrix of their products is smaller: a path for 250 images of 2,064 channels
    takes 0.6 s instead of 2.
    """
    if len(centered) >= centered.shape[1]:
        eigenvalues, basis = np.linalg.eigh(centered.T @ centered)
        return np.maximum(eigenvalues.astype(np.float64), 0.0), basis
    eigenvalues, vectors = np.linalg.eigh((centered @ centered.T).astype(np.float64))
    spanned = eigenvalues > 1e-6 * max(eigenvalues[-1], 1e-12)
    eigenvalues, vectors = eigenvalues[spanned], vectors[:, spanned]
    return eigenvalues, (centered.T @ (vectors / np.sqrt(eigenvalues))).astype(np.float32)


class _HeldOut:
    """Predictions of heads for images that they were not fitted on: training images by folds, and validation images."""

    def __init__(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        folds: np.ndarray,
        regression: _Regression,
        parameters: HeadParameters,
    ) -> None:
        """Prepare one regression per fold.

        ``features`` and ``labels`` are of the images in folds, if any, then of the validation images. ``folds`` has the
        fold of each row of ``regression``, view by view; it is empty if the validation images choose the strength.
        """
        self._features, self._labels, self._whole, self._parameters = features, labels, regression, parameters
        self._folds = folds[: len(folds) // parameters.views]
        self._parts = {fold: regression.restricted_to(folds != fold) for fold in np.unique(folds)}

    def logits(self, strength: float) -> np.ndarray:
        """Logits of all held-out images at a strength that the whole regression was fitted at."""
        kernel, bias = self._whole.kernel_and_bias()
        logits = self._features @ kernel + bias
        for fold, part in self._parts.items():
            part.fit(strength, self._parameters.max_iterations)
            kernel, bias = part.kernel_and_bias()
            rows = np.flatnonzero(self._folds == fold)
            logits[rows] = self._features[rows] @ kernel + bias
        return logits

    def score(self, logits: np.ndarray) -> tuple[float, float]:
        """Accuracy and loss on the images that choose the strength: those in folds, if any."""
        rows = slice(len(self._folds) or None)
        return _accuracy_and_loss(logits[rows], self._labels[rows])


def _one_thread_for_scipy():
    """Limit the BLAS library in SciPy to one thread. Its idle threads spin and slow down NumPy's.

    On two cores, 4,500 images of 10 classes take 1.0 s instead of 2.2 s, 11,000 of 120 classes 4.5 s instead of 8.3 s.
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


def _tell(row: dict[str, float], step: int, say: Callable[..., None]) -> None:
    say(
        "head C=%g: top-1 train %.1f %%, held out %.1f %%, %.1f s",
        row["inverse_regularization"],
        100 * row["accuracy"],
        100 * row["val_accuracy"],
        row["seconds"],
        extra={"metrics": row, "step": step},
    )
