"""What models that have not seen an image say of it: the ground on which its label is doubted.

Ranking 5,000 images of CIFAR-10 of which 5 % bear a wrong label (Lite0, 96 px; average precision, and the share of the
wrong ones among the first tenth; two draws of images that nothing is reported on):

================================================  ============  ==============================
out-of-fold head, ranked by the given class       flips at      flips between the classes that
                                                  random        are confused most
================================================  ============  ==============================
five folds, strength 0.0003                       0.81, 88 %    0.67, 77 %
strength 0.003                                    0.78, 86 %    0.64, 74 %
strength 0.1                                      0.70, 80 %    0.57, 69 %
ten folds, strength 0.0003                        0.82, 89 %    0.66, 78 %
five folds, three ways to fold                    0.82, 89 %    0.66, 79 %
without the labels that a first round doubts      0.80, 87 %    0.66, 78 %
ranked by the margin to the next class            0.61, 80 %    0.57, 74 %
vote of the 50 nearest neighbours alone           0.63, 78 %    0.44, 64 %
that vote added to a head of strength 0.003       0.77, 85 %    0.59, 75 %
ridge on 2,048 random Fourier features, added     0.80, 88 %    0.68, 78 %
================================================  ============  ==============================

A larger image and a larger backbone help more: on one draw Lite0 at 96 px (6 s for the features) gave 0.83, 92 % and
0.71, 83 %; at 128 px (11 s) 0.84, 92 % and 0.74, 84 %; Lite2 at 128 px (15 s) 0.88, 95 % and 0.78, 88 %. Networks that
are fine-tuned out of fold take minutes: on 1,000 images (one draw, five folds, 180 s) they gave 0.76, 80 % and 0.68,
74 %, where the head gave 0.73, 82 % and 0.60, 70 %.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from efficientnet_finetuning.data.prepare import one_hot
from efficientnet_finetuning.errors import shorten
from efficientnet_finetuning.evaluation.calibration import log_softmax
from efficientnet_finetuning.parameters import HeadParameters
from efficientnet_finetuning.parameters.group import ClassWeight

_FOLDS = 10
# The expected share of wrong labels among those that are doubted. Half of them is the promise; the rest is for luck.
_WRONG_AMONG_DOUBTED = 0.55
# Where the likelihood of a share of wrong labels is looked up.
_TEMPERATURES = np.geomspace(0.25, 2.5, 24)
_SHARES = np.concatenate([[0.0], np.geomspace(5e-4, 0.7, 90)])
# An upper bound that says something.
_FEW = 0.1
# Half of the 95 % quantile of chi-squared with one degree of freedom.
_LIKELIHOOD_DROP = 1.92


class WrongLabels(NamedTuple):
    """How many labels are wrong, and how likely each of them is.

    Attributes:
        share: of the images whose labels are wrong, in 0–1.
        low, high: its 95 % interval.
        temperature: by which logits are divided.
    """

    share: float
    low: float
    high: float
    temperature: float

    def probability_of(self, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Of each label to be wrong, in 0–1: ``(N,)``, from calibrated ``(N, num_classes)``."""
        num_classes = probabilities.shape[1]
        given = probabilities[np.arange(len(labels)), labels]
        drawn = self.share / (num_classes - 1)  # as any one class, at random
        return drawn * (1 - given) / _mixed(given, drawn * num_classes, num_classes)


def out_of_sample_logits(
    features: np.ndarray,
    labels: np.ndarray,
    is_test: np.ndarray,
    num_classes: int,
    groups: np.ndarray | None = None,
    class_weight: ClassWeight = "none",
) -> np.ndarray:
    """What heads that have not seen an image say of it.

    Training and validation images are judged by ten folds, test images by a head on all the others, so that no test
    image takes part in any judgement of another.

    Args:
        features: of a frozen backbone, ``(N, channels)``.
        labels: ``(N,)``, in 0 to ``num_classes`` − 1.
        is_test: boolean ``(N,)``.
        num_classes: width of the logits.
        groups: a number for the group of each image, ``(N,)``; a group is in one fold. ``None``: each by itself.
        class_weight: of the head.

    Returns:
        float32 ``(N, num_classes)``.
    """
    # Here, since Kedro imports this module before it starts, and SciPy takes a third of a second.
    from efficientnet_finetuning.training.head import fit_head

    learnt = ~is_test
    known, targets = features[learnt].astype(np.float32), one_hot(labels[learnt], num_classes)
    of_group = None if groups is None else groups[learnt]
    # The strength of the mean loss. A weaker one trusts wrong labels more.
    parameters = HeadParameters(inverse_regularizations=(1 / len(known),), folds=_FOLDS, class_weight=class_weight)
    fitted = fit_head(known, targets, known[:0], targets[:0], parameters, groups=of_group, quiet=True)
    logits = np.empty((len(features), num_classes), np.float32)
    logits[learnt] = fitted.held_out_logits
    logits[is_test] = features[is_test].astype(np.float32) @ fitted.kernel + fitted.bias
    return logits


def estimate_wrong_labels(logits: np.ndarray, labels: np.ndarray) -> WrongLabels:
    """How many of the labels are wrong, by maximum likelihood of a mixture.

    A label is right with the probability that the calibrated classifier gives it or, in some share of the images, drawn
    at random from all classes: ``(1 − share) · softmax(logits / temperature) + share / num_classes``. Share and
    temperature maximize the likelihood of the labels (contamination by outliers as Copas 1988 has it for logistic
    regression). Wrong labels that look right to the classifier, since the classes are alike, are not counted: of 5 %
    between the classes most confused it finds about half.

    Args:
        logits: out of sample, ``(N, num_classes)``.
        labels: ``(N,)``.

    Returns:
        The share with its interval, which a likelihood ratio gives (Wilks 1938).
    """
    num_classes = logits.shape[1]
    rows = np.arange(len(labels))
    best = np.full(len(_SHARES), -np.inf)
    kept = np.empty(len(_SHARES))
    for temperature in _TEMPERATURES:
        given = np.exp(log_softmax(logits, temperature)[rows, labels])
        # One share at a time: all at once would be a matrix of images by shares.
        found = np.array([np.log(_mixed(given, share, num_classes)).sum() for share in _SHARES])
        better = found > best
        best[better], kept[better] = found[better], temperature
    peak = int(best.argmax())
    inside = np.flatnonzero(best >= best[peak] - _LIKELIHOOD_DROP)
    low, high = _SHARES[inside[0]], _SHARES[min(inside[-1] + 1, len(_SHARES) - 1)]
    wrong = (num_classes - 1) / num_classes  # of those drawn at random, some are right by chance
    share, low, high = (float(wrong * value) for value in (_SHARES[peak], low, high))
    return WrongLabels(share, low, high, temperature=float(kept[peak]))


def _mixed(given: np.ndarray, share: float, num_classes: int) -> np.ndarray:
    return np.maximum((1 - share) * given + share / num_classes, 1e-300)


def worth_looking_at(probability: np.ndarray) -> int:
    """How many images to look at, the likeliest first, if half of them at least are to have a wrong label."""
    sure = np.sort(probability)[::-1]
    return int((np.cumsum(sure) >= _WRONG_AMONG_DOUBTED * np.arange(1, len(sure) + 1)).sum())


def can_be_judged(labels: np.ndarray, learnt: np.ndarray) -> np.ndarray:
    """Which images a model can judge that has not seen them: those of a class with another image to learn from.

    Args:
        labels: ``(N,)``.
        learnt: boolean ``(N,)``, training and validation images.
    """
    counts = np.bincount(labels[learnt], minlength=labels.max() + 1)
    return counts[labels] >= 1 + learnt


def say_wrong_labels(wrong: WrongLabels, num_doubted: int, left_out: np.ndarray, class_names: Sequence[str]) -> str:
    """What was found, in words.

    Args:
        wrong: of the labels.
        num_doubted: of :func:`worth_looking_at`.
        left_out: labels of the images that cannot be judged.
        class_names: by label.
    """
    if wrong.low > 0:
        words = f"About {wrong.share:.1%} of the labels are wrong (95 % interval {wrong.low:.1%} to {wrong.high:.1%}), "
    elif wrong.high < _FEW:
        words = f"There is no sign of labels that are wrong at random (at most {wrong.high:.2%}), "
    else:
        words = "There are too few images to tell how many labels are wrong, "
    words += "not counting mix-ups of classes that look alike."
    if num_doubted:
        words += f" Look at {num_doubted:,} images, of which about half have a wrong label."
    if len(left_out):
        names = shorten([class_names[label] for label in np.unique(left_out)])
        words += f" Too few images to judge the labels of: {names}."
    return words
