"""The head of a frozen backbone, fitted on features that were computed once.

Views brought, on 2,000 images of CIFAR-10 (Lite0, 96 px), validation top-1: 1 view 70.9, 2 (a mirror image) 71.7,
4 and 8 72.1; the time of extraction grows with them.

Accuracy by what the head sees and by images a class (CIFAR-10, Lite0, 96 px, top-1 on 2,000 images that no draw
contains, with ``evaluation.flip``; means of three, three, two and one draws, with (*) of six, five, three and one):

============================================  ====  ====  ====  ====
features                                        10    25   100   500
============================================  ====  ====  ====  ====
the last map's averages                       52.3  60.8  68.6  73.3
averages of all stages beside them: chosen    55.4  63.0  71.2  75.6
the same (*)                                  55.6  63.0  71.3  75.6
the same, standardized (*)                    55.2  63.3  70.8  76.5
each stage scaled as a whole (*)              55.1  63.0  70.3  76.0
stages 4 and up, standardized                 54.6  62.5  70.3  76.1
two views of each image, standardized         54.2  62.6  71.0  76.5
with the stages' standard deviations          55.9  63.1  71.6  77.3
with the stages' maxima                       55.8  62.8  71.0  76.7
============================================  ====  ====  ====  ====

Standard deviations take twice the time to fit, and are not linear in the map, so that no activation map could be
drawn of them: not kept.

Mixup of the features, four mixed rows for each image, made the head worse: from 10 images a class 55.4 and 54.1 became
50.5 and 53.0 with Beta(0.2, 0.2), 49.1 and 48.9 with Beta(1, 1); from 25, 63.1 and 62.7 became 63.0 and 62.7, 61.1 and
61.9 (two draws each, the strength of the head without it).

As the start of fine-tuning all stages are no better than the last map alone, and worse where images are few. From
10 images a class, standardized: 64.1 instead of 65.4 and 63.7 instead of 67.5 % (two draws). From 25: 70.0 instead
of 70.1 and 74.2 instead of 74.7 (two draws). From 500: 84.7 instead of 85.5 (one draw).

Where folds choose the strength, the validation images teach too: +1.0 ± 0.9, +0.5 ± 0.3, +0.3 ± 0.7 and +0.7 ± 0.7
points from 10, 25, 50 and 100 images a class (CIFAR-10, ten to four draws, a tenth held out, two standard errors).

On 223 photographs of 8 classes (160 px, one cut into five folds) the head on all stages got 88.0 % right, on the last
map 84.8 %.
"""

import copy
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize
from threadpoolctl import ThreadpoolController

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import HeadParameters
from efficientnet_finetuning.training.rules import ENOUGH_TO_CHOOSE_BY

logger = logging.getLogger(__name__)

# Strengths in a row that are no better before weaker ones are not tried any more.
_PATIENCE = 2
# Smallest decrease of the objective in a step, in nats an image. A tenth of it costs a third more time and moves no
# accuracy.
_TOLERANCE = 3e-6
_FOLDS = 5


class FittedHead(NamedTuple):
    """What :func:`fit_head` returns.

    Attributes:
        kernel: float32 ``(channels, num_classes)``.
        bias: float32 ``(num_classes,)``.
        path: one row a strength with top-1 accuracies in 0–1 on the training and the held-out images, losses, seconds
            and whether it is ``kept``.
        held_out_logits: float32 ``(M, num_classes)`` of images that the head which judged them had not seen: where
            folds chose the strength, of each training image as it is, then of all validation images; else of these
            alone.
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
    """Fit multinomial logistic regression at each strength of L2 and keep the best on images that were held out.

    These are the validation split or, where ``parameters.folds`` says so, the training images themselves, fold by
    fold. The path goes from strong to weak regularization, each fit starting where the two before point, and ends
    after two strengths that are no better: the weaker, the dearer. Of equal accuracies the lower loss decides.

    Args:
        train_features: float32 ``(N, channels)``.
        train_labels: one-hot ``(N, num_classes)``.
        validation_features, validation_labels: likewise.
        parameters: the path.
        mirrored: where answers average over each image and its mirror image: features of the mirror images of those
            that are held out, in the order of ``held_out_logits``, which are those of the answers then.
        groups: ``(N,)``, of the training images, then of the validation images: one group is in one fold. ``None``:
            every image is its own.
        use_all: where folds choose and the validation images do not, learn from them too (of images with one view).
        quiet: log nothing.

    Raises:
        InputError: a feature is not finite, or folds are to choose and all training images are of one group.
    """
    if not all(np.isfinite(part).all() for part in (train_features, validation_features, mirrored) if part is not None):
        raise InputError(
            "The backbone's features are not finite: its weights are damaged or belong to another network, or half "
            "precision overflows. Check backbone.weights and device.mixed_precision."
        )
    started = time.perf_counter()
    say = _say_nothing if quiet else logger.debug
    folds = number_of_folds(parameters, len(train_labels), len(validation_labels))
    judged, judged_labels = validation_features, validation_labels
    if folds:
        say("head: its strength is chosen by %d folds of the training images", folds)
        images = slice(len(train_labels) // parameters.views)  # as they are; their other views come after them
        judged = np.concatenate([train_features[images], validation_features])
        judged_labels = np.concatenate([train_labels[images], validation_labels])
        if use_all and parameters.views == 1:
            train_features, train_labels = judged, judged_labels
    if mirrored is not None:
        judged = (judged + mirrored) / 2  # whose logits are the averages of the logits
    regression = _Regression(train_features, train_labels, parameters.class_weight)
    assigned = stratified_folds(train_labels, folds, parameters.views, groups) if folds else np.empty(0, np.int64)
    if folds and len(np.unique(assigned)) == 1:
        raise InputError(
            "All training images are of one group, so no fold can be held out to choose the head's strength by. Give "
            "smaller groups, or let the validation split choose: transfer.head.folds=0."
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
    # The last record is what a tracker shows first.
    say("head: C=%g is kept", kept["inverse_regularization"], extra={"metrics": kept, "step": len(path) + 1})
    kernel, bias, logits = best
    return FittedHead(kernel, bias, [row | {"kept": row is kept} for row in path], logits)


def fit_parts(
    features: np.ndarray,
    labels: np.ndarray,
    parts: Iterable[tuple[np.ndarray, float]],
    parameters: HeadParameters,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Fit heads on parts of the images.

    Args:
        features: float32 ``(N, channels)``.
        labels: one-hot ``(N, num_classes)``.
        parts: rows of each part and the inverse L2 strength.
        parameters: of the head.

    Yields:
        Of each part, float32 kernel ``(channels, num_classes)`` and bias ``(num_classes,)``.
    """
    regression = _Regression(features, labels, parameters.class_weight)
    for rows, strength in parts:
        part = regression.restricted_to(rows)
        part.fit(strength, parameters.max_iterations)
        yield part.kernel_and_bias()


def stratified_folds(labels: np.ndarray, folds: int, views: int = 1, groups: np.ndarray | None = None) -> np.ndarray:
    """The fold of each row, as even as the classes and the groups allow.

    A fold takes neighbours in the stored order, since photographs of one moment often lie next to each other and must
    not be on both sides. All views of an image are in one fold, and so are all images of a group, which counts as its
    rarest class.

    Args:
        labels: one-hot ``(views × N, num_classes)``, view by view.
        folds: how many.
        views: of each image.
        groups: of each image, ``(N,)`` or more, whose rest is ignored; ``None``: every image is its own.

    Returns:
        ``(views × N,)``, 0 to ``folds`` − 1. A fold may be empty where there are few groups.
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
        # A class starts one fold after the class before it, or the first folds would get all of the small ones.
        assigned[own] = (middles * folds // max(sizes.sum(), folds) + label) % folds
    return np.tile(assigned[codes], views)


def _rarest_class(targets: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Of each group, the class that has the fewest images of all those in it."""
    counts = np.bincount(targets)[targets]
    order = np.lexsort((targets, -counts))  # the rarest class comes last, and what is written last stays
    rarest = np.empty(codes.max() + 1, np.int64)
    rarest[codes[order]] = targets[order]
    return rarest


def number_of_folds(parameters: HeadParameters, num_rows: int, num_validation: int) -> int:
    """How many folds of the training images choose the strength of the head; 0: the validation split does.

    Args:
        parameters: of the head.
        num_rows: training images, each counted once for each of its views.
        num_validation: validation images.
    """
    num_images, folds = num_rows // parameters.views, parameters.folds
    if folds == "auto":
        folds = _FOLDS if num_validation < ENOUGH_TO_CHOOSE_BY else 0
    # With one image there is nothing left to fit.
    return min(int(folds), num_images) if num_images > 1 else 0


class _Regression:
    """Multinomial logistic regression ``C · Σ cross-entropy + ½ ‖kernel‖²`` by L-BFGS, as scikit-learn poses it.

    In the eigenbasis of the features' covariance the penalty stays what it is, and dividing each direction by the
    root of its curvature makes them all alike, so that L-BFGS needs tens of steps where it needed hundreds: a path for
    10 classes takes a tenth of scikit-learn's time.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray, class_weight: str) -> None:
        self._mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
        centered = features - self._mean
        self._curvature, self._basis = _eigenbasis(centered)
        self._features = centered @ self._basis
        self._labels = labels.astype(np.float32)
        counts = np.maximum(self._labels.sum(axis=0), 1.0)
        weights = len(labels) / (np.count_nonzero(labels.any(axis=0)) * counts)
        self._weights = np.ones(len(labels), np.float32)
        if class_weight == "balanced":
            self._weights = (self._labels @ weights).astype(np.float32)
        # Strengths and their solutions, whose last row is the bias.
        self._path = [(0.0, np.zeros((len(self._curvature) + 1, labels.shape[1])))]

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

    def restricted_to(self, rows: np.ndarray) -> "_Regression":
        """The same regression on some of the images, not fitted yet; the basis, which is dear, stays that of all."""
        part = copy.copy(self)
        part._features, part._labels, part._weights = self._features[rows], self._labels[rows], self._weights[rows]
        part._curvature = self._curvature * (len(part._features) / len(self._features))
        part._path = [(0.0, np.zeros_like(self._solution))]
        return part

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


def _eigenbasis(centered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues ``(rank,)`` and eigenvectors ``(channels, rank)`` of the features' scatter matrix.

    Where there are fewer images than channels they span all that a head can use, and their products are the smaller
    matrix: a path for 250 images of 2,064 channels takes 0.6 s instead of 2.
    """
    if len(centered) >= centered.shape[1]:
        eigenvalues, basis = np.linalg.eigh(centered.T @ centered)
        return np.maximum(eigenvalues.astype(np.float64), 0.0), basis
    eigenvalues, vectors = np.linalg.eigh((centered @ centered.T).astype(np.float64))
    spanned = eigenvalues > 1e-6 * max(eigenvalues[-1], 1e-12)
    eigenvalues, vectors = eigenvalues[spanned], vectors[:, spanned]
    return eigenvalues, (centered.T @ (vectors / np.sqrt(eigenvalues))).astype(np.float32)


class _HeldOut:
    """What heads say of images that they have not seen: training images by folds, and all validation images."""

    def __init__(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        folds: np.ndarray,
        regression: _Regression,
        parameters: HeadParameters,
    ) -> None:
        """Set the regressions up that each leave one fold out.

        Args:
            features: of the images that folds leave out, if any, then of those that the regression has not seen.
            labels: one-hot, likewise.
            folds: of each row of the regression, view by view; empty where the validation images choose.
            regression: that is fitted on all of its rows.
            parameters: of the head.
        """
        self._features, self._labels, self._whole, self._parameters = features, labels, regression, parameters
        self._folds = folds[: len(folds) // parameters.views]
        self._parts = {fold: regression.restricted_to(folds != fold) for fold in np.unique(folds)}

    def logits(self, strength: float) -> np.ndarray:
        """Of all held-out images, after the parts have moved on to a strength that the whole is fitted at."""
        kernel, bias = self._whole.kernel_and_bias()
        logits = self._features @ kernel + bias
        for fold, part in self._parts.items():
            part.fit(strength, self._parameters.max_iterations)
            kernel, bias = part.kernel_and_bias()
            rows = np.flatnonzero(self._folds == fold)
            logits[rows] = self._features[rows] @ kernel + bias
        return logits

    def score(self, logits: np.ndarray) -> tuple[float, float]:
        """Accuracy and loss of the images that choose the strength: those in folds, if there are any."""
        rows = slice(len(self._folds) or None)
        return _accuracy_and_loss(logits[rows], self._labels[rows])


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


def _say_nothing(*_: Any, **__: Any) -> None:
    """Log nothing: what a quiet fit calls in the place of ``logger.debug``."""


def _tell(row: dict[str, float], step: int, say: Callable[..., None]) -> None:
    say(
        "head C=%g: top-1 train %.1f %%, held out %.1f %%, %.1f s",
        row["inverse_regularization"],
        100 * row["accuracy"],
        100 * row["val_accuracy"],
        row["seconds"],
        extra={"metrics": row, "step": step},
    )
