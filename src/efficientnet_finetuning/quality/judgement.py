"""Predictions of models that did not see an image, and estimates of wrong labels from them.

Of the labels flipped at random among 5,000 images, 89 % were in the first tenth of the ranking; of those flipped
between similar classes, 78 %. ``tests/benchmarks/data_quality.py`` compares other methods.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from efficientnet_finetuning.data.prepare import one_hot
from efficientnet_finetuning.errors import counted, percent, shorten
from efficientnet_finetuning.evaluation.calibration import log_softmax
from efficientnet_finetuning.parameters import HeadParameters
from efficientnet_finetuning.parameters.group import ClassWeight

_FOLDS = 10
# Expected share of wrong labels among doubted ones. The message promises half; the rest is a margin for chance.
_WRONG_AMONG_DOUBTED = 0.55
# Grid of the likelihood.
_TEMPERATURES = np.geomspace(0.25, 2.5, 24)
_SHARES = np.concatenate([[0.0], np.geomspace(5e-4, 0.7, 90)])
# Largest upper bound that is informative.
_FEW = 0.1
# Half of the 95 % quantile of chi-squared with one degree of freedom.
_LIKELIHOOD_DROP = 1.92


class WrongLabels(NamedTuple):
    """Share of wrong labels, and the probability of each label to be wrong.

    Attributes:
        share: of images with wrong labels, 0–1.
        low, high: its 95 % interval.
        temperature: divides the logits.
    """

    share: float
    low: float
    high: float
    temperature: float

    def probability_of(self, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Probability of each label to be wrong, 0–1 ``(N,)``, from calibrated ``(N, num_classes)``."""
        num_classes = probabilities.shape[1]
        given = probabilities[np.arange(len(labels)), labels]
        drawn = self.share / (num_classes - 1)  # at random, as one particular class
        return drawn * (1 - given) / _mixed(given, drawn * num_classes, num_classes)


def out_of_sample_logits(
    features: np.ndarray,
    labels: np.ndarray,
    is_test: np.ndarray,
    num_classes: int,
    groups: np.ndarray | None = None,
    class_weight: ClassWeight = "none",
) -> np.ndarray:
    """Logits of heads that did not see the image.

    Ten folds predict training and validation images; a head on all of these predicts test images. So
    test images never influence each other.

    Args:
        features: of a frozen backbone, ``(N, channels)``.
        labels: ``(N,)``, in 0 to ``num_classes`` − 1.
        is_test: boolean ``(N,)``.
        num_classes: width of the logits.
        groups: the group of each image as a number ``(N,)``; a group stays in one fold. ``None``: no groups.
        class_weight: of the head.

    Returns:
        float32 ``(N, num_classes)``.
    """
    # Imported here, because Kedro imports this module at its start, and SciPy takes a third of a second.
    from efficientnet_finetuning.training.head import fit_head

    learnt = ~is_test
    known, targets = features[learnt].astype(np.float32), one_hot(labels[learnt], num_classes)
    of_group = None if groups is None else groups[learnt]
    # 1 / N makes the strength independent of N. Weaker regularization fits wrong labels.
    parameters = HeadParameters(inverse_regularizations=(1 / len(known),), folds=_FOLDS, class_weight=class_weight)
    fitted = fit_head(known, targets, known[:0], targets[:0], parameters, groups=of_group, quiet=True)
    logits = np.empty((len(features), num_classes), np.float32)
    logits[learnt] = fitted.held_out_logits
    logits[is_test] = features[is_test].astype(np.float32) @ fitted.kernel + fitted.bias
    return logits


def estimate_wrong_labels(logits: np.ndarray, labels: np.ndarray) -> WrongLabels:
    """Estimate the share of wrong labels by maximum likelihood of a mixture.

    A label has the probability that the calibrated classifier gives it or, for some share of the images, is drawn at
    random from all classes: ``(1 − share) · softmax(logits / temperature) + share / num_classes``. Share and
    temperature maximize the likelihood of the labels (outlier model of Copas 1988 for logistic regression); the
    interval is by likelihood ratio (Wilks 1938). Takes out-of-sample logits ``(N, num_classes)`` and labels ``(N,)``.

    The estimate misses errors between similar classes: of 5 % between the most confused classes it finds about half.
    """
    num_classes = logits.shape[1]
    rows = np.arange(len(labels))
    best = np.full(len(_SHARES), -np.inf)
    kept = np.empty(len(_SHARES))
    for temperature in _TEMPERATURES:
        given = np.exp(log_softmax(logits, temperature)[rows, labels])
        # One share at a time saves memory.
        found = np.array([np.log(_mixed(given, share, num_classes)).sum() for share in _SHARES])
        better = found > best
        best[better], kept[better] = found[better], temperature
    peak = int(best.argmax())
    inside = np.flatnonzero(best >= best[peak] - _LIKELIHOOD_DROP)
    low, high = _SHARES[inside[0]], _SHARES[min(inside[-1] + 1, len(_SHARES) - 1)]
    wrong = (num_classes - 1) / num_classes  # some random labels are right
    share, low, high = (float(wrong * value) for value in (_SHARES[peak], low, high))
    return WrongLabels(share, low, high, temperature=float(kept[peak]))


def _mixed(given: np.ndarray, share: float, num_classes: int) -> np.ndarray:
    return np.maximum((1 - share) * given + share / num_classes, 1e-300)


def worth_looking_at(probability: np.ndarray) -> int:
    """Number of images to check, likeliest first, so that at least half have a wrong label."""
    sure = np.sort(probability)[::-1]
    return int((np.cumsum(sure) >= _WRONG_AMONG_DOUBTED * np.arange(1, len(sure) + 1)).sum())


def can_be_judged(labels: np.ndarray, learnt: np.ndarray) -> np.ndarray:
    """Which images have another image of their class to train on; ``learnt`` marks train and validation, ``(N,)``."""
    counts = np.bincount(labels[learnt], minlength=labels.max() + 1)
    return counts[labels] >= 1 + learnt


def say_wrong_labels(wrong: WrongLabels, num_doubted: int, left_out: np.ndarray, class_names: Sequence[str]) -> str:
    """Describe the estimate in words; ``left_out`` holds labels of images that cannot be judged."""
    if wrong.low > 0:
        interval = f"95 % interval {percent(wrong.low)} to {percent(wrong.high)}"
        words = f"About {percent(wrong.share)} of the labels are wrong ({interval}), "
    elif wrong.high < _FEW:
        words = f"There is no sign of randomly wrong labels (at most {percent(wrong.high, 2)}), "
    else:
        words = "There are too few images to tell how many labels are wrong, "
    words += "not counting mix-ups of classes that look alike."
    if num_doubted:
        words += f" Look at {counted(num_doubted, 'image')}: about half of such labels are wrong."
    if len(left_out):
        names = shorten([class_names[label] for label in np.unique(left_out)])
        words += f" These classes have too few images to check their labels: {names}."
    return words
