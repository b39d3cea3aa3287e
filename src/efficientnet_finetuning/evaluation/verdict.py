"""Decide which regime wins, and whether the difference may be chance."""

import math
from collections.abc import Collection, Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from efficientnet_finetuning.errors import InputError, percent
from efficientnet_finetuning.evaluation.comparison import NAMES, QUANTILE, wilson_interval

# Differences with a p-value of at least this may be chance.
SIGNIFICANT = 0.05
# If all of five images favour one side, the p-value is still 0.06.
_FEWEST_DIFFERING = 6


def judge(
    predictions: Mapping[str, pd.DataFrame], seconds: Mapping[str, float], unchanged: Collection[str] = ()
) -> dict[str, Any]:
    """Compare each regime with the best one before it, and keep the better one.

    A regime wins if it is better and McNemar's test is significant (p < 0.05). If the test is not significant, the
    faster one to train wins. Choosing among two or three models on the test images biases the champion's accuracy much
    less than its interval is wide.

    Args:
        predictions: by regime in the order of comparison, with ``id`` and ``correct``.
        seconds: of training.
        unchanged: regimes whose training found nothing better than its start. They are not compared.

    Returns:
        ``champion`` (a regime), ``words`` (with 95 % intervals in brackets), ``num_images``, and ``steps`` between
        neighbours: :func:`paired_difference` with ``lower`` and ``upper`` (regimes).

    Raises:
        InputError: the regimes have different test images.
    """
    hits = _hits(predictions)
    judged = [regime for regime in hits if regime not in unchanged]

    def step(lower: str, upper: str) -> dict[str, Any]:
        return {"lower": lower, "upper": upper, **paired_difference(hits[lower], hits[upper])}

    champion, *others = judged
    steps = []
    for upper in others:
        steps.append(found := step(champion, upper))
        if found["p_value"] >= SIGNIFICANT:
            champion = min(champion, upper, key=seconds.__getitem__)
        elif found["difference"] > 0:
            champion = upper
    return {
        "champion": champion,
        "words": _words(champion, hits[champion], steps, unchanged),
        "num_images": len(hits[champion]),
        "steps": [step(lower, upper) for lower, upper in pairwise(judged)],
    }


def paired_difference(lower: np.ndarray, upper: np.ndarray) -> dict[str, Any]:
    """How much better the second of two classifiers is on the same images.

    The interval is that of Tango (1998, Statistics in Medicine 17:891): all differences that a score test does not
    reject, with McNemar's continuity correction. With few exceptions it contains zero if the exact test is not
    significant. In simulations with 2 to 200 images it contained the true difference in 96 to 100 % of the cases.

    Args:
        lower, upper: whether the first and the second one were right, boolean ``(N,)``.

    Returns:
        ``difference`` of top-1 (−1 to 1) with its 95 % interval ``low`` and ``high``; ``only_lower`` and
        ``only_upper``: images that only one got right; ``p_value`` of McNemar's exact test (1947); and ``detectable``:
        the smallest significant difference if they differed on as many images as they do, but at least six. ``None`` if
        there are fewer images.
    """
    count = len(lower)
    only_upper, only_lower = int((upper & ~lower).sum()), int((lower & ~upper).sum())
    differing = only_upper + only_lower
    enough = max(differing, _FEWEST_DIFFERING)
    minority = max(fewer for fewer in range(enough) if _mcnemar(fewer, enough) < SIGNIFICANT)
    return {
        "difference": (only_upper - only_lower) / count,
        "low": _lower_end(only_upper, only_lower, count),
        "high": -_lower_end(only_lower, only_upper, count),
        "p_value": _mcnemar(min(only_upper, only_lower), differing),
        "only_lower": only_lower,
        "only_upper": only_upper,
        "detectable": (enough - 2 * minority) / count if enough <= count else None,
    }


def difference_in_words(found: Mapping[str, Any], than: str, sign: int = 1) -> str:
    """Such as "8.3 points more than transfer (5.9 to 10.8)"; a ``sign`` of −1 swaps the two. Less is negative."""
    points = 100 * sign * found["difference"]
    low, high = sorted(100 * sign * found[end] for end in ("low", "high"))
    amount = f"{abs(points):.1f} points {'less' if points < 0 else 'more'} than" if points else "as many right as"
    luck = ", which may be chance" if points and found["p_value"] >= SIGNIFICANT else ""
    return f"{amount} {than} ({low:z.1f} to {high:z.1f}){luck}"


def _lower_end(only_upper: int, only_lower: int, count: int) -> float:
    """The smallest difference that the score test does not reject."""
    from scipy.optimize import brentq

    lead = only_upper - only_lower

    def excess(difference: float) -> float:
        # Most likely share of images that only the lower one gets right, for this difference.
        linear = (2 * count - lead) * difference - only_upper - only_lower
        root = math.sqrt(max(linear**2 + 8 * count * only_lower * difference * (1 - difference), 0))
        variance = (root - linear) / (2 * count) + difference * (1 - difference)
        return lead - 1 - count * difference - QUANTILE * math.sqrt(max(count * variance, 0))

    return float(brentq(excess, -1, lead / count)) if excess(-1) > 0 else -1.0


def _mcnemar(fewer: int, differing: int) -> float:
    # Here, because Kedro imports this module at its start. SciPy's test takes most of a second more to import.
    from scipy.special import bdtr

    return min(2 * float(bdtr(fewer, differing, 0.5)), 1.0) if differing else 1.0


def _hits(predictions: Mapping[str, pd.DataFrame]) -> dict[str, np.ndarray]:
    first, *others = predictions.values()
    if any(list(table["id"]) != list(first["id"]) for table in others):
        raise InputError(
            f"The predictions of {', '.join(predictions)} are for different test images, so they cannot be compared. "
            "Run `kedro run` without --load-versions to evaluate all on the same images."
        )
    return {regime: table["correct"].to_numpy(bool) for regime, table in predictions.items()}


def _words(champion: str, hits: np.ndarray, steps: Iterable[Mapping[str, Any]], unchanged: Iterable[str]) -> str:
    """A summary: the accuracy of the champion, and its comparison with the other regimes."""
    num_images, name = f"{len(hits):,} test images", NAMES[champion]
    low, high = wilson_interval(int(hits.sum()), len(hits))
    told = f"{percent(hits.mean())} right ({100 * low:.1f} to {100 * high:.1f}) of {num_images}"
    beaten, undecided = "", ""
    for step in steps:
        if champion not in (step["lower"], step["upper"]):
            continue
        other, sign = (step["lower"], 1) if champion == step["upper"] else (step["upper"], -1)
        if step["p_value"] < SIGNIFICANT:
            beaten = f", {difference_in_words(step, NAMES[other], sign)}"
            continue
        limit = step["detectable"]
        shown = f"a difference below {100 * limit:.1f} points" if limit else "any difference"
        difference = difference_in_words(step, name, -sign)
        undecided = f" {_capitalized(NAMES[other])} gets {difference}: {num_images} cannot show {shown}."
    nothing_found = "".join(
        f" {_capitalized(NAMES[other])} found nothing better than its start." for other in unchanged
    )
    if undecided:
        return f"Take {name}, the faster one to train: {told}{beaten}.{undecided}{nothing_found}"
    if beaten:
        return f"{_capitalized(name)} wins: {told}{beaten}.{nothing_found}"
    return f"{_capitalized(name)} gets {told}.{nothing_found or ' There is nothing to compare it with.'}"


def _capitalized(name: str) -> str:
    return name[0].upper() + name[1:]
