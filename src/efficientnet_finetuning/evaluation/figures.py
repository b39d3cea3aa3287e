"""Figures, drawn without pyplot, so that no state survives them and no display is needed."""

from collections.abc import Mapping, Sequence
from textwrap import shorten, wrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

_COLOURS = {
    "baseline": "#7f7f7f",
    "transfer": "#1f77b4",
    "finetune": "#d95f02",
    "seed_frozen": "#66a61e",
    "seed_finetune": "#7570b3",
}


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
        axes.set_title(title, fontsize=9)
    for axes in figure.axes:
        axes.set_axis_off()
    return figure


def audit_summary(audit: Mapping[str, Any], manifest: pd.DataFrame) -> Figure:
    """Class balance by split, sizes, and what was excluded or is worth a warning.

    Args:
        audit: of :func:`~efficientnet_finetuning.data.audit.audit`.
        manifest: one row an image, with ``width``, ``height`` and ``excluded``.
    """
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    figure.suptitle(f"{audit['source']}: {audit['used']:,} of {audit['images']:,} images are used")
    balance, sizes, faults, words = figure.subplots(2, 2).flat
    _class_balance(balance, pd.DataFrame(audit["classes"]).T)
    readable = manifest[manifest["width"] > 0]
    sizes.scatter(readable["width"], readable["height"], s=8, alpha=0.4)
    sizes.set(title="image sizes", xlabel="width, pixels", ylabel="height, pixels", xscale="log", yscale="log")
    for axis in (sizes.xaxis, sizes.yaxis):
        axis.set_major_formatter("{x:.0f}")
        axis.set_minor_formatter(NullFormatter())
    counts = {kind.replace("_", " "): found["count"] for kind, found in audit["excluded"].items()}
    faults.bar_label(faults.barh(list(counts), list(counts.values()), color="#d95f02"), padding=2)
    faults.invert_yaxis()
    faults.set(title=f"excluded images: {sum(counts.values())}", xlabel="images")
    faults.xaxis.get_major_locator().set_params(integer=True)
    if not counts:
        faults.set_axis_off()
    words.set_title("worth knowing")
    words.set_axis_off()
    lines = ["\n".join(wrap(f"• {warning}", 62, subsequent_indent="   ")) for warning in audit["warnings"]]
    words.text(0, 1, "\n".join(lines) or "nothing", va="top", fontsize=9, parse_math=False)
    return figure


def _class_balance(axes: Axes, counts: pd.DataFrame) -> None:
    """Stacked bars, one a class; without names where there are too many to read."""
    positions = np.arange(len(counts))
    bottom = np.zeros(len(counts))
    for split, colour in (("train", "#1f77b4"), ("validation", "#7fb3d5"), ("test", "#d95f02")):
        axes.bar(positions, counts[split], 0.8, bottom=bottom, color=colour, label=split)
        bottom += counts[split].to_numpy()
    if len(counts) <= 40:
        names = [shorten(name, 24, placeholder="…") for name in counts.index]
        axes.set_xticks(positions, names, rotation=90, fontsize=8, parse_math=False)
    axes.set(title=f"images in use of {len(counts)} classes", ylabel="images")
    axes.set_ylim(top=1.15 * max(bottom.max(), 1))  # room for the legend
    axes.legend(loc="upper center", ncols=3, fontsize=8, frameon=False)


def learning_curves(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Top-1 accuracy and loss by epoch; a regime without epochs is a level line.

    Args:
        histories: of each regime, with ``accuracy`` and ``val_accuracy`` (0–1) and, where it has epochs, ``epoch``,
            ``loss`` and ``val_loss``.
    """
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    accuracy, loss = figure.subplots(1, 2)
    for regime, history in histories.items():
        colour = _COLOURS[regime]
        if "epoch" in history:
            _curve(accuracy, history, "accuracy", 100.0, regime, colour)
            _curve(loss, history, "loss", 1.0, regime, colour)
        else:
            best = 100 * history["val_accuracy"].max()
            accuracy.axhline(best, color=colour, label=f"{regime}, validation")
    accuracy.set(title="top-1 accuracy", xlabel="epoch", ylabel="%", ylim=(0, 100))
    loss.set(title="loss", xlabel="epoch", ylabel="cross-entropy, nats")
    if not loss.has_data():
        loss.set_axis_off()
    # Below the axes, where it can hide no curve.
    figure.legend(*accuracy.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    for axes in (accuracy, loss):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _curve(axes: Axes, history: pd.DataFrame, column: str, factor: float, regime: str, colour: str) -> None:
    marker = "o" if len(history) == 1 else ""
    axes.plot(
        history["epoch"],
        factor * history[f"val_{column}"],
        marker=marker,
        color=colour,
        label=f"{regime}, validation",
    )
    axes.plot(
        history["epoch"],
        factor * history[column],
        marker=marker,
        color=colour,
        linestyle=":",
        label=f"{regime}, training",
    )


def learning_rate_curve(learning_rates: pd.DataFrame, suggested: float) -> Figure:
    """Loss by learning rate, on a logarithmic axis, with the suggested one marked.

    Args:
        learning_rates: ``learning_rate``, ``loss``, ``start_loss``, ``excess``.
        suggested: learning rate.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    rates = learning_rates["learning_rate"]
    excess = learning_rates["loss"] - learning_rates["start_loss"]
    axes.plot(rates, excess, color="#7f7f7f", alpha=0.5, linewidth=1, label="of a batch")
    axes.plot(rates, learning_rates["excess"], color="#d95f02", label="smoothed")
    axes.axvline(suggested, color="#1f77b4", linestyle="--", label=f"suggested: {suggested:.2g}")
    axes.set(
        xscale="log",
        title="loss above the start's, while the learning rate grows from step to step",
        xlabel="learning rate",
        ylabel="cross-entropy, nats",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def comparison_bars(comparison: pd.DataFrame) -> Figure:
    """Top-1 and top-5 accuracy on the test split, a pair of bars a regime."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    positions = np.arange(len(comparison))
    colours = [_COLOURS[regime] for regime in comparison["regime"]]
    for offset, column, alpha in ((-0.2, "top1", 1.0), (0.2, "top5", 0.45)):
        bars = axes.bar(positions + offset, 100 * comparison[column], 0.38, color=colours, alpha=alpha)
        axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=9)
    labels = [f"{row.regime}\n{row.training_seconds:.0f} s of training" for row in comparison.itertuples()]
    axes.set_xticks(positions, labels)
    axes.set(
        title=f"Accuracy on {comparison['num_images'].iloc[0]:,} test images: top-1 (solid) and top-5 (pale)",
        ylabel="%",
        ylim=(0, 109),
    )
    axes.spines[["top", "right"]].set_visible(False)
    return figure
