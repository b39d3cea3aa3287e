"""Would more images help? Extrapolate the error of heads on parts of the images by a power law.

Heads are fitted on growing parts of the images and tested on held-out images. Their error follows ``a + b · (n +
d)^(−c)``, a power law (Rosenfeld et al. 2020, arXiv:1909.12673; Mahmood et al. 2022, arXiv:2207.01725) whose shift
avoids too flat curves for few images (Mohr et al. 2022, LCDB). A few points do not determine these numbers, so all
curves of a grid count, weighted by likelihood (as Domhan et al. 2015 extrapolate learning curves), and the interval
includes the uncertainty of the shape. ``tests/benchmarks/more_images.py`` measures how often the intervals are right.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from efficientnet_finetuning.data.prepare import one_hot
from efficientnet_finetuning.errors import shorten
from efficientnet_finetuning.parameters import HeadParameters

_FOLDS = 5
_NUM_SIZES = 4
# Exponents c, the share of the error that more images do not remove, and d as a share of the images.
_EXPONENTS = np.geomspace(0.05, 2.0, 20)
_FLOORS = np.linspace(0.0, 0.95, 20)
_SHIFTS = np.append(0.0, np.geomspace(0.01, 1.0, 8))
# Heads of two sets of n images differ in accuracy, with the variance p (1 − p) times this over n.
_OF_SETS = 0.3
_SAMPLES = 4000
_INTERVAL = (0.1, 0.5, 0.9)
# Images that choose the strength of L2, which depends little on their number.
_CHOOSE_BY = 2000
# Additional images of a class whose gain is reported.
_NEXT = 50


Cut = tuple[np.ndarray, np.ndarray]


class Judged(NamedTuple):
    """Errors of heads on parts of the images.

    Attributes:
        sizes: mean number of images in the parts, ascending: ``(S,)``.
        rows: of the tested images ``(M,)``.
        errors: the share (0–1) of each size's heads that is wrong about each tested image: ``(S, M)``.
        repeats: parts of each size.
    """

    sizes: np.ndarray
    rows: np.ndarray
    errors: np.ndarray
    repeats: int


class Curves(NamedTuple):
    """Samples: ``error · (floor + (1 − floor) · ((n / num_images + shift) / (1 + shift))^(−exponent))``.

    Attributes:
        error: with the current images, 0–1 ``(samples,)``.
        floor: the share of it that remains.
        exponent: of the rest.
        shift: as a share of the images.
        num_images: current number.
    """

    error: np.ndarray
    floor: np.ndarray
    exponent: np.ndarray
    shift: np.ndarray
    num_images: int

    def at(self, num_images: np.ndarray | float) -> np.ndarray:
        """Errors ``(samples, …)`` for numbers of images ``(…)``."""
        relative = np.asarray(num_images, float) / self.num_images
        error, floor, exponent, shift = (part.reshape(-1, *[1] * relative.ndim) for part in self[:4])
        return error * (floor + (1 - floor) * ((relative + shift) / (1 + shift)) ** -exponent)


def value_of_more_images(
    features: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    groups: np.ndarray,
    parameters: HeadParameters,
    seed: int,
) -> dict[str, Any]:
    """Predict the gain of a head on the frozen backbone from twice the images, and of each class from 50 more.

    Args:
        features: of all images except test images, float32 ``(N, channels)``.
        labels: class indices ``(N,)``.
        class_names: by index.
        groups: name of each image's group ``(N,)``; a group stays on one side.
        parameters: of the head.
        seed: of the parts and of the samples.

    Returns:
        ``num_images``; ``points`` of the curve and the fitted ``curve`` up to twice the images, each with ``images``,
        ``accuracy``, ``low`` and ``high`` (0–1, 80 % interval); ``fit`` (medians of :class:`Curves`); ``doubled``
        (``images``, ``accuracy``, ``low``, ``high``, ``gain``, ``gain_low``, ``gain_high``); ``classes`` by gain
        (``class``, ``images``, ``recall``, and for 50 more images ``gain``, ``low``, ``high``); ``told``: whether the
        interval is narrow enough; and ``words``, sentences. With too few images, ``points``, ``curve`` and ``classes``
        are empty, ``fit`` and ``doubled`` are ``None``.
    """
    found: dict[str, Any] = {"num_images": len(labels), "points": [], "curve": [], "fit": None, "doubled": None}
    if len(labels) < max(5 * len(class_names), 40):
        few = f"{len(labels)} images of {len(class_names)} classes are too few to predict the gain from more images. "
        return found | {"classes": [], "told": False, "words": [few + "It takes five of each class and 40 in all."]}
    generator = np.random.default_rng(seed)
    codes = np.unique(groups, return_inverse=True)[1]
    judged = judge_parts(features, labels, len(class_names), codes, parameters, generator)
    covariance = _covariance(judged, codes, len(labels))
    curves = sample_curves(judged, covariance, len(labels), generator)
    found |= _curve(judged, covariance, curves) | {"doubled": _doubled(curves, generator)}
    found["classes"] = _classes(judged, curves, labels, codes, class_names, generator)
    num_groups = pd.Series(codes).groupby(labels).nunique()
    return found | _told(found, [class_names[label] for label in num_groups.index[num_groups == 1]])


def judge_parts(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    groups: np.ndarray,
    parameters: HeadParameters,
    generator: np.random.Generator,
) -> Judged:
    """Fit heads on growing parts of the images, with a fifth held out; repeats more often for few images.

    Takes float32 features ``(N, channels)``, class indices ``(N,)``, and groups as numbers from 0 on ``(N,)``.
    """
    total = len(labels)
    repeats = max(min(10_000 // total, 50), _FOLDS if total <= 5000 else 2)
    # With fewer than two images per class, the error does not follow the power law.
    shares = np.geomspace(max(0.1, 2 * num_classes / total), 1 - 1 / _FOLDS, _NUM_SIZES) / (1 - 1 / _FOLDS)
    cuts = list(_cuts(labels, groups, repeats, generator))
    strength = _strength(features, labels, num_classes, cuts, parameters)
    parts = [(rest[: round(share * len(rest))], strength) for rest, _ in cuts for share in shares]
    wrong, times = np.zeros((_NUM_SIZES, total)), np.zeros(total)
    for size, held_out, is_wrong in _mistakes(features, labels, num_classes, cuts, parts, parameters):
        wrong[size, held_out] += is_wrong
        times[held_out] += 1 / _NUM_SIZES
    rows = np.flatnonzero(times)
    sizes = np.reshape([len(rows) for rows, _ in parts], (repeats, _NUM_SIZES)).mean(0)
    return Judged(sizes, rows, wrong[:, rows] / times[rows], repeats)


def _cuts(labels: np.ndarray, groups: np.ndarray, repeats: int, generator: np.random.Generator) -> Iterator[Cut]:
    """Rows to train on, in an order that keeps the class shares in every prefix, and held-out rows."""
    of_group = labels[np.unique(groups, return_index=True)[1]]  # the class of its first image
    for repeat in range(repeats):
        if repeat % _FOLDS == 0:
            folds = (_places(of_group, generator) + of_group) % _FOLDS
        is_held_out = folds[groups] == repeat % _FOLDS
        shares = (_places(of_group, generator) + generator.random(len(of_group))) / np.bincount(of_group)[of_group]
        order = np.lexsort((groups, shares[groups]))
        yield order[~is_held_out[order]], np.flatnonzero(is_held_out)


def _places(classes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The place of each item in its class, in random order."""
    order = np.lexsort((generator.random(len(classes)), classes))
    return pd.Series(order).groupby(classes[order]).cumcount().to_numpy()[np.argsort(order)]


def _strength(
    features: np.ndarray, labels: np.ndarray, num_classes: int, cuts: Sequence[Cut], parameters: HeadParameters
) -> float:
    """The best inverse strength of L2, by a few thousand predictions."""
    cuts = [(rest[:_CHOOSE_BY], held_out) for rest, held_out in cuts[: max(_CHOOSE_BY // len(labels), 1)]]
    strengths = sorted(set(parameters.inverse_regularizations))
    hits = np.zeros(len(strengths))
    parts = [(rest, strength) for rest, _ in cuts for strength in strengths]
    for place, _, is_wrong in _mistakes(features, labels, num_classes, cuts, parts, parameters):
        hits[place] += (~is_wrong).mean()
    return strengths[int(hits.argmax())]


def _mistakes(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    cuts: Sequence[Cut],
    parts: Sequence[tuple[np.ndarray, float]],
    parameters: HeadParameters,
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """For a head on each part, cut by cut: the part's place in its cut, the held-out rows, and its errors on them."""
    from efficientnet_finetuning.training.head import fit_parts  # imports SciPy

    for index, (kernel, bias) in enumerate(fit_parts(features, one_hot(labels, num_classes), parts, parameters)):
        cut, place = divmod(index, len(parts) // len(cuts))
        held_out = cuts[cut][1]
        yield place, held_out, (features[held_out] @ kernel + bias).argmax(1) != labels[held_out]


def _covariance(judged: Judged, groups: np.ndarray, num_images: int) -> np.ndarray:
    """Covariance of the mean errors of all sizes ``(S, S)``: from the choice of tested images and of parts."""
    means = judged.errors.mean(1, keepdims=True)
    members = np.unique(groups[judged.rows], return_inverse=True)[1]
    # Sum by group, because images of a group are similar.
    sums = np.stack([np.bincount(members, off) for off in judged.errors - means])
    by_images = sums @ sums.T / len(judged.rows) ** 2
    # All parts come from the same images, which shift all sizes together; the rest is chance of each size.
    spread = np.sqrt(_OF_SETS * (means * (1 - means))[:, 0])
    chance = spread**2 * (1 / judged.sizes - 1 / num_images) / judged.repeats
    return by_images + np.outer(spread, spread) / num_images + np.diag(chance + 1e-8)


def sample_curves(judged: Judged, covariance: np.ndarray, num_images: int, generator: np.random.Generator) -> Curves:
    """Sample power laws by their likelihood, given the mean errors and their covariance.

    Floors, exponents and shifts form a grid; given these, the error is linear in the last parameter, with a normal
    likelihood.
    """
    floors, exponents, shifts = (grid.ravel() for grid in np.meshgrid(_FLOORS, _EXPONENTS, _SHIFTS))
    shapes = Curves(np.ones(len(floors)), floors, exponents, shifts, num_images).at(judged.sizes)
    weighted = shapes @ np.linalg.inv(covariance)
    precision = (weighted * shapes).sum(1)
    error = weighted @ judged.errors.mean(1) / precision
    log_likelihood = error**2 * precision / 2 - np.log(precision) / 2
    likelihood = np.exp(log_likelihood - log_likelihood.max())
    chosen = generator.choice(len(error), _SAMPLES, p=likelihood / likelihood.sum())
    sampled = error[chosen] + generator.normal(size=_SAMPLES) / np.sqrt(precision[chosen])
    return Curves(np.clip(sampled, 0, 1), floors[chosen], exponents[chosen], shifts[chosen], num_images)


def _curve(judged: Judged, covariance: np.ndarray, curves: Curves) -> dict[str, Any]:
    accuracies, spread = 1 - judged.errors.mean(1), 1.28 * np.sqrt(np.diag(covariance))  # 80 % of a normal distribution
    images = np.geomspace(judged.sizes[0], 2 * curves.num_images, 30)
    low, middle, high = np.quantile(1 - curves.at(images), _INTERVAL, axis=0)
    return {
        "points": _rows(judged.sizes, accuracies, accuracies - spread, accuracies + spread),
        "curve": _rows(images, middle, low, high),
        "fit": {name: float(np.median(getattr(curves, name))) for name in ("error", "floor", "exponent", "shift")},
    }


def _rows(images: np.ndarray, *columns: np.ndarray) -> list[dict[str, float]]:
    names = ("images", "accuracy", "low", "high")
    return [dict(zip(names, row, strict=True)) for row in np.stack([images, *columns], axis=1).tolist()]


def _doubled(curves: Curves, generator: np.random.Generator) -> dict[str, float]:
    """Accuracy and gain with twice the images, for one head each, as a user will measure them."""
    images = 2 * curves.num_images
    after = curves.at(images)
    noise = np.sqrt(_OF_SETS * after * (1 - after) / images) * generator.normal(size=_SAMPLES)
    low, middle, high = np.quantile(1 - after + noise, _INTERVAL).tolist()
    gain_low, gain, gain_high = np.quantile(curves.error - after + noise, _INTERVAL).tolist()
    found = {"images": images, "accuracy": middle, "low": low, "high": high}
    return found | {"gain": gain, "gain_low": gain_low, "gain_high": gain_high}


def _classes(
    judged: Judged,
    curves: Curves,
    labels: np.ndarray,
    groups: np.ndarray,
    class_names: Sequence[str],
    generator: np.random.Generator,
) -> list[dict[str, Any]]:
    """The gain of each class from 50 more images of it while the others grow proportionally.

    A class has too few images for its own curve. Its error follows the set's curve, times a factor that is shrunk
    towards one as far as the factors differ only by chance (empirical Bayes).
    """
    shape = curves.at(judged.sizes).mean(0)
    slopes = (shape - shape.mean()) @ judged.errors / ((shape - shape.mean()) ** 2).sum()
    counts, present = np.bincount(labels, minlength=len(class_names)), np.unique(labels[judged.rows])
    factors, variances = np.ones(len(class_names)), np.full(len(class_names), np.inf)
    for label in present:
        rows = labels[judged.rows] == label
        factors[label] = slopes[rows].mean()
        members = np.unique(groups[judged.rows][rows], return_inverse=True)[1]
        if members.max() > 0:
            sums = np.bincount(members, slopes[rows] - factors[label])
            variances[label] = (sums**2).sum() / rows.sum() ** 2 * len(sums) / (len(sums) - 1)
    known = np.isfinite(variances)
    between = max(float(np.var(factors[known]) - variances[known].mean()), 0.0) if known.any() else 0.0
    weight = between / np.maximum(between + variances, 1e-12)
    middle, spread = 1 + weight * (factors - 1), np.sqrt(np.maximum(between * (1 - weight), 0))
    found = []
    for label in present:
        steps = curves.error - curves.at(len(labels) * (1 + _NEXT / counts[label]))
        sampled = steps * np.maximum(middle[label] + spread[label] * generator.normal(size=_SAMPLES), 0)
        low, gain, high = np.quantile(sampled, _INTERVAL).tolist()
        recall = 1 - float(judged.errors[-1, labels[judged.rows] == label].mean())
        row = {"class": class_names[label], "images": int(counts[label]), "recall": recall}
        found.append(row | {"gain": gain, "low": low, "high": high})
    return sorted(found, key=lambda row: -row["gain"])


def _told(found: dict[str, Any], once: list[str]) -> dict[str, Any]:
    """``told`` and ``words``."""
    doubled, classes = found["doubled"], found["classes"]
    low, gain, high = (100 * doubled[key] for key in ("gain_low", "gain", "gain_high"))
    told = low > 0 or high - low < 3
    words = [
        f"Twice as many images ({doubled['images']:,} instead of {found['num_images']:,}): {gain:+.1f} points of "
        f"accuracy (80 % interval {low:.1f} to {high:.1f}), from the learning curve of a head on the frozen backbone."
    ]
    if not told:
        words.append("The interval is too wide to tell whether more images would help: there are too few images.")
    best, others = classes[0], classes[1:]
    if others and best["low"] > float(np.median([row["gain"] for row in others])):
        words.append(
            f"If all classes grow alike, {best['class']} gains most from its next {_NEXT} images: "
            f"{100 * best['gain']:+.1f} points of recall ({100 * best['low']:.1f} to {100 * best['high']:.1f})."
        )
    else:
        words.append(f"No class clearly gains more than the others from its next {_NEXT} images.")
    if once:
        words.append(f"These classes have only one image or group, so they have no curve: {shorten(once)}.")
    return {"told": told, "words": words}
