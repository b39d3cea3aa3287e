"""Figures that show images, drawn without pyplot, so that no state survives them and no display is needed."""

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
# A picture's side; pictures that stand alone are larger.
_INCH = 1.55
_SINGLE = 1.4
_GAP = 0.06


def image_grid(images: np.ndarray, titles: Sequence[str], heading: str) -> Figure:
    """Nine images or fewer in three columns.

    Args:
        images: uint8 ``(N, size, size, 3)``.
        titles: one for each image.
        heading: above all.
    """
    figure = Figure(figsize=(6.5, 7), layout="constrained")
    figure.suptitle(heading)
    for axes, image, title in zip(figure.subplots(3, 3).flat, images, titles, strict=False):
        axes.imshow(image)
        axes.set_title(fit_name(title, 26), fontsize=9, parse_math=False)
    for axes in figure.axes:
        axes.set_axis_off()
    return figure


def fit_name(name: str, width: int) -> str:
    """A name in so many characters, its beginning and its end: sets put what matters at either."""
    tail = (2 * width) // 3
    return name if len(name) <= width else f"{name[: width - tail - 1]}…{name[-tail:]}"


def worth_a_look(predictions: pd.DataFrame) -> pd.DataFrame:
    """The surest mistakes, where labels may be wrong, then the least sure hits: rows of ``predictions``."""
    wrong = predictions[~predictions["correct"]].sort_values("confidence", ascending=False, kind="stable")
    right = predictions[predictions["correct"]].sort_values("confidence", kind="stable")
    return pd.concat([wrong.head(NUM_MISTAKES), right.head(NUM_UNSURE)])


def gallery(images: np.ndarray, rows: pd.DataFrame, maps: np.ndarray) -> Figure:
    """Images that are :func:`worth_a_look`, each beside where the network sees the class that it predicts.

    Args:
        images: uint8 ``(N, size, size, 3)``, one a row.
        rows: of predictions.
        maps: ``(N, height, width)`` of
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

    heading = "The surest mistakes (true → predicted), then the least sure hits (✓), and what speaks for the prediction"
    return _sheet(titles, (2, 1), draw, heading)


def disagreements(predictions: Mapping[str, pd.DataFrame], seed: int) -> pd.DataFrame:
    """Test images on which one of the two best regimes is right and the other wrong.

    Returns:
        At most twelve rows, drawn by the seed: ``row`` (of the test split), ``id``, ``true``, and what each regime
        predicts, under its name.
    """
    first = next(iter(predictions.values()))
    right = sorted((table["correct"].to_numpy(bool) for table in predictions.values()), key=np.mean)[-2:]
    differing = np.flatnonzero(right[0] != right[-1])
    rows = np.sort(np.random.default_rng(seed).permutation(differing)[:_NUM_DISAGREEMENTS])
    chosen = {regime: table["predicted"].to_numpy()[rows] for regime, table in predictions.items()}
    ids, true = (first[column].to_numpy()[rows] for column in ("id", "true"))
    return pd.DataFrame({"row": rows, "id": ids, "true": true} | chosen)


def doubtful_labels(images: np.ndarray, issues: pd.DataFrame) -> Figure:
    """Images whose label may be wrong.

    Args:
        images: uint8 ``(N, size, size, 3)``, one a row.
        issues: with ``given``, ``suggested`` and its ``probability``.
    """
    titles = [
        f"{fit_name(row['given'], 26)}?\n{fit_name(row['suggested'], 19)} {100 * row['probability']:.0f} %"
        for row in issues.to_dict("records")
    ]

    def draw(axes: Axes, index: int, left: float, top: float) -> None:
        _show(axes, images[index], left, top, _SINGLE)

    return _sheet(
        titles, (_SINGLE, _SINGLE), draw, "The most doubtful labels: the given one, and what the image looks like"
    )


def weak_spot_sheet(images: Mapping[str, np.ndarray], spots: Sequence[Mapping[str, Any]]) -> Figure:
    """Weak spots as rows of pictures, each below what it is.

    Args:
        images: uint8 ``(size, size, 3)`` by id, those of ``examples`` at least.
        spots: of :func:`~efficientnet_finetuning.quality.weak_spots.find_weak_spots`: ``words`` and ``examples``.
    """

    def draw(axes: Axes, index: int, left: float, top: float) -> None:
        for place, id_ in enumerate(spots[index]["examples"]):
            _show(axes, images[id_], left + place, top, 1)

    width = max([6, *(len(spot["examples"]) for spot in spots)])
    titles = ["\n".join(wrap(spot["words"], 22 * width)) for spot in spots]
    heading = "Like images that often go wrong: mistakes among them, the most typical first"
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
    """Examples in columns, with a word where there are none.

    All in one pair of axes, whose unit is a picture's side: a pair for each picture takes a second more to draw.

    Args:
        titles: above each example; lines are told apart by line feeds.
        size: width and height of an example.
        draw: the example of an index, from its left and its top on.
        heading: above all.
        columns: how many.
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
