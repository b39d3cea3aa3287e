"""Figures that show images."""

from collections.abc import Callable, Mapping, Sequence
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

NUM_MISTAKES, NUM_UNSURE = 8, 4
_NUM_DISAGREEMENTS = 12
_COLUMNS = 4
# Side of a picture in inches, and how much larger single pictures are.
_INCH = 1.55
_SINGLE = 1.4
_GAP = 0.06


def image_grid(images: np.ndarray, titles: Sequence[str], heading: str) -> Figure:
    """Up to nine uint8 images ``(N, size, size, 3)`` with titles, in three columns."""
    figure = Figure(figsize=(6.5, 7), layout="constrained")
    figure.suptitle(heading)
    for axes, image, title in zip(figure.subplots(3, 3).flat, images, titles, strict=False):
        axes.imshow(image)
        axes.set_title(fit_name(title, 26), fontsize=9, parse_math=False)
    for axes in figure.axes:
        axes.set_axis_off()
    return figure


def fit_name(name: str, width: int) -> str:
    """A name shortened to ``width`` characters. Its beginning and its end stay, because either may matter."""
    tail = (2 * width) // 3
    return name if len(name) <= width else f"{name[: width - tail - 1]}…{name[-tail:]}"


def worth_a_look(predictions: pd.DataFrame) -> pd.DataFrame:
    """The most confident mistakes, whose labels may be wrong, then the least confident right answers."""
    wrong = predictions[~predictions["correct"]].sort_values("confidence", ascending=False, kind="stable")
    right = predictions[predictions["correct"]].sort_values("confidence", kind="stable")
    return pd.concat([wrong.head(NUM_MISTAKES), right.head(NUM_UNSURE)])


def gallery(images: np.ndarray, rows: pd.DataFrame, maps: np.ndarray) -> Figure:
    """Images of :func:`worth_a_look` ``(N, size, size, 3)``, uint8, each with its activation map.

    ``rows`` are of predictions, ``maps`` ``(N, height, width)`` of
    :func:`~efficientnet_finetuning.models.activation_maps.class_activation_maps`.
    """
    titles = []
    for row in rows.to_dict("records"):
        sure = f"{100 * row['confidence']:.0f} %"
        true, predicted = fit_name(row["true"], 20), fit_name(row["predicted"], 20)
        titles.append(f"{true} ✓ {sure}" if row["correct"] else f"{true} → {predicted} {sure}")

    def draw(axes: Axes, index: int, left: float, top: float) -> None:
        _show(axes, images[index], left, top, 1)
        _show(axes, images[index].mean(-1), left + 1, top, 1, cmap="gray")
        spread = np.ptp(maps[index]) or 1.0
        scaled = (maps[index] - maps[index].min()) / spread
        _show(axes, scaled, left + 1, top, 1, cmap="inferno", alpha=0.5, interpolation="bilinear")

    heading = "Most confident mistakes (true → predicted), least confident right answers (✓), and activation maps"
    return _sheet(titles, (2, 1), draw, heading)


def disagreements(predictions: Mapping[str, pd.DataFrame], seed: int) -> pd.DataFrame:
    """Test images that exactly one of the two best regimes predicts right.

    Returns:
        Up to twelve random rows: ``row`` (of the test split), ``id``, ``true``, and the prediction of each regime.
    """
    first = next(iter(predictions.values()))
    right = sorted((table["correct"].to_numpy(bool) for table in predictions.values()), key=np.mean)[-2:]
    differing = np.flatnonzero(right[0] != right[-1])
    rows = np.sort(np.random.default_rng(seed).permutation(differing)[:_NUM_DISAGREEMENTS])
    chosen = {regime: table["predicted"].to_numpy()[rows] for regime, table in predictions.items()}
    ids, true = (first[column].to_numpy()[rows] for column in ("id", "true"))
    return pd.DataFrame({"row": rows, "id": ids, "true": true} | chosen)


def doubtful_labels(images: np.ndarray, issues: pd.DataFrame) -> Figure:
    """Uint8 images ``(N, size, size, 3)`` with their ``given`` and ``suggested`` labels and its ``probability``."""
    titles = [
        f"{fit_name(row['given'], 26)}?\n{fit_name(row['suggested'], 19)} {100 * row['probability']:.0f} %"
        for row in issues.to_dict("records")
    ]

    def draw(axes: Axes, index: int, left: float, top: float) -> None:
        _show(axes, images[index], left, top, _SINGLE)

    return _sheet(
        titles,
        (_SINGLE, _SINGLE),
        draw,
        "The most doubtful labels: the given label, and the class that the image looks like",
    )


def weak_spot_sheet(images: Mapping[str, np.ndarray], spots: Sequence[Mapping[str, Any]]) -> Figure:
    """Weak spots of :func:`~efficientnet_finetuning.quality.weak_spots.find_weak_spots` as rows of pictures.

    ``images`` are uint8 ``(size, size, 3)`` by id, at least those of the ``examples``.
    """

    def draw(axes: Axes, index: int, left: float, top: float) -> None:
        for place, id_ in enumerate(spots[index]["examples"]):
            _show(axes, images[id_], left + place, top, 1)

    width = max([6, *(len(spot["examples"]) for spot in spots)])
    titles = ["\n".join(wrap(spot["words"], 22 * width)) for spot in spots]
    heading = "Weak spots: similar images with many mistakes. The mistakes are shown, the most typical first"
    return _sheet(titles, (width, 1), draw, heading, columns=1)


def _show(axes: Axes, image: np.ndarray, left: float, top: float, side: float, **options: Any) -> None:
    axes.imshow(image, extent=(left, left + side, top + side, top), **options)


def _sheet(
    titles: Sequence[str],
    size: tuple[float, float],
    draw: Callable[[Axes, int, float, float], None],
    heading: str,
    columns: int = _COLUMNS,
) -> Figure:
    """Titled examples in columns, or "none".

    All are in one pair of axes, because a pair per picture takes a second more to draw. The unit is the side of a
    picture; ``size`` is width and height of an example. ``draw`` gets its index, left and top.
    """
    width, height = size
    above = 0.08 + 0.1 * max((title.count("\n") + 1 for title in titles), default=1)
    num_rows = max(-(-len(titles) // columns), 1)
    extent = columns * (width + _GAP) - _GAP, num_rows * (above + height)
    figure = Figure(figsize=((extent[0] + 2 * _GAP) * _INCH, (extent[1] + _GAP) * _INCH + 0.4), layout="constrained")
    figure.suptitle(heading, fontsize=11)
    axes = figure.subplots()
    for index, title in enumerate(titles):
        row, column = divmod(index, columns)
        left, top = column * (width + _GAP), row * (above + height) + above
        axes.text(left, top - 0.03, title, fontsize=9, va="bottom", parse_math=False)
        draw(axes, index, left, top)
    axes.set(xlim=(0, extent[0]), ylim=(extent[1], 0))
    axes.set_axis_off()
    if not titles:
        figure.text(0.5, 0.4, "none", ha="center")
    return figure
