"""Figures that show images, drawn without pyplot, so that no state survives them and no display is needed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

NUM_MISTAKES, NUM_UNSURE = 8, 4
_NUM_DISAGREEMENTS = 12
_COLUMNS = 4
_INCH = 1.55


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

    def draw(index: int, pair: Sequence[Axes]) -> None:
        row, size = rows.iloc[index], images.shape[1]
        pair[0].imshow(images[index])
        sure = f"{100 * row['confidence']:.0f} %"
        true, predicted = fit_name(row["true"], 20), fit_name(row["predicted"], 20)
        title = f"{true} ✓ {sure}" if row["correct"] else f"{true} → {predicted} {sure}"
        pair[0].set_title(title, fontsize=8, loc="left", parse_math=False)
        pair[1].imshow(images[index].mean(-1), cmap="gray")
        spread = np.ptp(maps[index]) or 1.0
        pair[1].imshow(
            (maps[index] - maps[index].min()) / spread,
            cmap="inferno",
            alpha=0.5,
            extent=(-0.5, size - 0.5, size - 0.5, -0.5),
            interpolation="bilinear",
        )

    heading = "The surest mistakes (true → predicted), then the least sure hits (✓), and what speaks for the prediction"
    return _sheet(len(rows), 2, draw, heading)


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


def disagreement_sheet(images: np.ndarray, rows: pd.DataFrame) -> Figure:
    """What :func:`disagreements` found, as pictures.

    Args:
        images: uint8 ``(N, size, size, 3)``, one a row.
        rows: of :func:`disagreements`.
    """
    regimes = [name for name in rows.columns if name not in ("row", "id", "true")]

    def draw(index: int, single: Sequence[Axes]) -> None:
        row: Any = rows.iloc[index]
        single[0].imshow(images[index])
        lines = [f"{row['true']}:"] + [
            f"{'✓' if row[regime] == row['true'] else '✗'} {regime}: {row[regime]}" for regime in regimes
        ]
        title = "\n".join(fit_name(line, 30) for line in lines)
        single[0].set_title(title, fontsize=8, loc="left", parse_math=False)

    return _sheet(len(rows), 1, draw, "Where the two best disagree", lines=1 + len(regimes))


def _sheet(count: int, width: int, draw: Callable[[int, Sequence[Axes]], None], heading: str, lines: int = 1) -> Figure:
    """Examples in four columns, each of ``width`` pictures; with a word where there are none."""
    num_rows = max(-(-count // _COLUMNS), 1)
    title = 0.22 + 0.14 * lines
    size = (
        _COLUMNS * width * _INCH * (1 if width > 1 else 1.4),
        num_rows * (_INCH * (1 if width > 1 else 1.4) + title),
    )
    figure = Figure(figsize=(size[0], size[1] + 0.45), layout="constrained")
    figure.suptitle(heading, fontsize=11)
    grid = figure.subplots(num_rows, _COLUMNS * width, squeeze=False).reshape(num_rows * _COLUMNS, width)
    for index in range(count):
        draw(index, grid[index])
    for axes in figure.axes:
        axes.set_axis_off()
    if count == 0:
        figure.text(0.5, 0.4, "none", ha="center")
    return figure
