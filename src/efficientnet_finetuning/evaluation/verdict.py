"""Which regime wins, and whether that is more than luck: every regime was asked the same test images."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from efficientnet_finetuning.errors import InputError

_RESAMPLES = 10_000
# A difference with a p-value from here on may be luck.
SIGNIFICANT = 0.05
_PERCENTILES = (2.5, 97.5)


def judge(predictions: Mapping[str, pd.DataFrame], seconds: Mapping[str, float], seed: int) -> dict[str, Any]:
    """Climb the ladder of regimes, and step up only where a test says that the next one is better.

    A regime takes its place from the one before if McNemar's test tells them apart (p < 0.05) and it is the better
    one; where the test cannot tell, the cheaper one stays. The test images choose among two or three models here and
    nothing else, so what the champion's own accuracy gains by being chosen is small beside its interval.

    Args:
        predictions: of each regime in the order of the ladder, with ``id`` and ``correct``.
        seconds: of training, which is what "cheaper" means.
        seed: of the bootstrap.

    Returns:
        ``champion`` (a regime), ``words`` (for people), ``num_images`` and ``steps`` between neighbours, as
        :func:`paired_difference` gives them with ``lower``, ``upper`` (regimes) and ``words``.

    Raises:
        InputError: the regimes were not asked the same images.
    """
    hits = _hits(predictions)

    def step(lower: str, upper: str) -> dict[str, Any]:
        found = {"lower": lower, "upper": upper, **paired_difference(hits[lower], hits[upper], seed)}
        return found | {"words": _words(found)}

    champion, *others = hits
    reasons, told = [], "{} wins"
    for upper in others:
        found = step(champion, upper)
        reasons.append(found["words"])
        if found["p_value"] < SIGNIFICANT:
            champion, told = upper if found["difference"] > 0 else champion, "{} wins"
        else:
            champion, told = min(champion, upper, key=seconds.__getitem__), "Take {}"
            reasons[-1] += f", so the cheaper one is taken: {champion}"
    words = (
        f"{told.format(champion)}: {'; '.join(reasons)}."
        if reasons
        else f"Only {champion} ran: there is nothing to compare."
    )
    return {
        "champion": champion,
        "words": words,
        "num_images": len(hits[champion]),
        "steps": [step(lower, upper) for lower, upper in pairwise(hits)],
    }


def paired_difference(lower: np.ndarray, upper: np.ndarray, seed: int) -> dict[str, Any]:
    """How much better the second of two classifiers is on the same images.

    Args:
        lower: whether the first was right, boolean ``(N,)``.
        upper: whether the second was.
        seed: of the bootstrap.

    Returns:
        ``difference`` of top-1 (−1 to 1) with its 95 % interval ``low``, ``high`` by bootstrap over images, how many
        images ``only_lower`` and ``only_upper`` got right, and ``p_value`` of McNemar's exact test: a binomial test on
        the images on which they differ (McNemar 1947).
    """
    # Here, since Kedro imports this module before it starts. SciPy's own test takes most of a second more to import.
    from scipy.special import bdtr

    only_upper, only_lower = int((upper & ~lower).sum()), int((lower & ~upper).sum())
    count = len(lower)
    # Resampling images means resampling the three kinds that there are, which needs no resampled images in memory.
    shares = np.array([only_upper, only_lower, count - only_upper - only_lower]) / count
    draws = np.random.default_rng(seed).multinomial(count, shares, size=_RESAMPLES)
    low, high = np.percentile((draws[:, 0] - draws[:, 1]) / count, _PERCENTILES)
    differing = only_upper + only_lower
    return {
        "difference": (only_upper - only_lower) / count,
        "low": float(low),
        "high": float(high),
        "p_value": min(2 * float(bdtr(min(only_upper, only_lower), differing, 0.5)), 1.0) if differing else 1.0,
        "only_lower": only_lower,
        "only_upper": only_upper,
    }


def _hits(predictions: Mapping[str, pd.DataFrame]) -> dict[str, np.ndarray]:
    first, *others = predictions.values()
    if any(list(table["id"]) != list(first["id"]) for table in others):
        raise InputError(
            f"The predictions of {', '.join(predictions)} are about different test images, so they cannot be compared. "
            "Evaluate them on one set: `kedro run` does, without --load-versions."
        )
    return {regime: table["correct"].to_numpy(bool) for regime, table in predictions.items()}


def _words(step: Mapping[str, Any]) -> str:
    p_value = step["p_value"]
    if p_value >= SIGNIFICANT:
        return (
            f"no measurable difference between {step['lower']} and {step['upper']} ({100 * step['difference']:+.1f} "
            f"points, 95 % interval {100 * step['low']:.1f} to {100 * step['high']:.1f}, p = {p_value:.2f})"
        )
    told = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"
    return (
        f"{step['upper']} {100 * step['difference']:+.1f} points over {step['lower']}, 95 % interval "
        f"{100 * step['low']:.1f} to {100 * step['high']:.1f}, {told}"
    )
