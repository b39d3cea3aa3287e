"""How well a score ranks the images of a class before the others, for all thresholds.

Not from scikit-learn, which takes a second to import.
"""

import numpy as np
import pandas as pd


def roc_curve(scores: np.ndarray, positive: np.ndarray) -> pd.DataFrame:
    """``true_positives`` and ``false_positives`` at or above each ``threshold``, from infinity down.

    ``scores`` ``(N,)`` are higher for images that look more like the class; ``positive`` tells which ones are of it.
    """
    order = np.argsort(-scores, kind="stable")
    curve = pd.DataFrame(
        {
            "threshold": scores[order],
            "true_positives": np.cumsum(positive[order]),
            "false_positives": np.cumsum(~positive[order]),
        }
    ).drop_duplicates("threshold", keep="last")  # equal scores share a threshold
    nothing = pd.DataFrame({"threshold": [np.inf], "true_positives": [0], "false_positives": [0]})
    return pd.concat([nothing, curve], ignore_index=True)


def area_under_roc(scores: np.ndarray, positive: np.ndarray) -> float | None:
    """The probability that an image of the class has a higher score than another one; equal scores count half."""
    curve = roc_curve(scores, positive)
    hits, alarms = curve["true_positives"].to_numpy(float), curve["false_positives"].to_numpy(float)
    if not hits[-1] or not alarms[-1]:
        return None
    return float(np.trapezoid(hits / hits[-1], alarms / alarms[-1]))


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float | None:
    """Mean precision over the images of the class, each at its own score; ``None`` if there are none."""
    curve = roc_curve(scores, positive).iloc[1:]
    hits = curve["true_positives"].to_numpy(float)
    if not hits[-1]:
        return None
    precision = hits / (hits + curve["false_positives"].to_numpy(float))
    return float((np.diff(hits, prepend=0.0) * precision).sum() / hits[-1])
