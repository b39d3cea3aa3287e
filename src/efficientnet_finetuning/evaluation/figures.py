"""Figures. They are drawn without pyplot, which keeps global state and may need a display."""

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from efficientnet_finetuning.evaluation.backbone_choice import measured, pareto_front
from efficientnet_finetuning.evaluation.calibration import coverage_curve, reliability
from efficientnet_finetuning.evaluation.comparison import STARTS_FROM
from efficientnet_finetuning.evaluation.pictures import fit_name
from efficientnet_finetuning.evaluation.ranking import area_under_roc, roc_curve

_COLOURS = {
    "baseline": "#7f7f7f",
    "transfer": "#1f77b4",
    "finetune": "#d95f02",
    "seed_frozen": "#66a61e",
    "seed_finetune": "#7570b3",
}
# Largest number of classes with a number in each cell of the matrix.
_FEW_CLASSES = 20


def audit_summary(audit: Mapping[str, Any], manifest: pd.DataFrame) -> Figure:
    """Class balance, image sizes, excluded images and warnings, from the ``audit`` and the ``manifest`` of a set."""
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
    words.set_title("warnings")
    words.set_axis_off()
    lines = ["\n".join(wrap(f"• {warning}", 62, subsequent_indent="   ")) for warning in audit["warnings"]]
    words.text(0, 1, "\n".join(lines) or "none", va="top", fontsize=9, parse_math=False)
    return figure


def _class_balance(axes: Axes, counts: pd.DataFrame) -> None:
    """Stacked bars, one per class, without names if there are too many."""
    positions = np.arange(len(counts))
    bottom = np.zeros(len(counts))
    for split, colour in (("train", "#1f77b4"), ("validation", "#7fb3d5"), ("test", "#d95f02")):
        axes.bar(positions, counts[split], 0.8, bottom=bottom, color=colour, label=split)
        bottom += counts[split].to_numpy()
    if len(counts) <= 40:
        names = [fit_name(name, 24) for name in counts.index]
        axes.set_xticks(positions, names, rotation=90, fontsize=8, parse_math=False)
    axes.set(title=f"images in use of {len(counts)} classes", ylabel="images")
    axes.set_ylim(top=1.15 * max(bottom.max(), 1))  # room for the legend
    axes.legend(loc="upper center", ncols=3, fontsize=8, frameon=False)


def learning_curves(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Accuracy by images and by time, loss and learning rate by images, for all regimes.

    A regime that starts from another one begins where that one ends. A star marks the kept epoch, a cross an early end.

    Args:
        histories: by regime, with ``images``, ``seconds``, ``accuracy``, ``val_accuracy`` (0–1), ``kept`` and, for
            epochs, ``epoch``, ``epochs`` (planned), ``loss``, ``val_loss`` and ``learning_rate``.
    """
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    by_images, by_seconds, loss, rate = figure.subplots(2, 2).flat
    ends: dict[str, tuple[float, float]] = {}
    for regime, history in histories.items():
        start = ends.get(STARTS_FROM.get(regime, ""), (0.0, 0.0))
        images, seconds = (start[axis] + history[column].cumsum() for axis, column in enumerate(("images", "seconds")))
        ends[regime] = float(images.iloc[-1]), float(seconds.iloc[-1])
        for axes, x in ((by_images, images), (by_seconds, seconds)):
            _accuracy_curve(axes, regime, history, x)
        if "epoch" in history:
            colour = _COLOURS[regime]
            loss.plot(images, history["val_loss"], marker=".", color=colour)
            loss.plot(images, history["loss"], marker=".", color=colour, linestyle=":")
            rate.plot(images, history["learning_rate"], marker=".", color=colour)
    by_images.set(title="top-1 accuracy by images seen", xlabel="training images", ylabel="%", ylim=(0, 100))
    by_seconds.set(title="top-1 accuracy by time", xlabel="seconds of training", ylabel="%", ylim=(0, 100))
    loss.set(title="loss", xlabel="training images", ylabel="cross-entropy, nats")
    rate.set(title="learning rate at the end of an epoch", xlabel="training images")
    rate.set_ylim(bottom=0)  # schedules end at zero, so the axis is linear
    for axes in (by_images, by_seconds, loss, rate):
        axes.grid(alpha=0.3)
        axes.set_xlim(left=0)
        if not axes.has_data():
            axes.remove()
    # Below the axes, so that it hides no curve.
    figure.legend(*by_images.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _accuracy_curve(axes: Axes, regime: str, history: pd.DataFrame, x: pd.Series) -> None:
    colour = _COLOURS[regime]
    validation = 100 * history["val_accuracy"]
    if "epoch" in history:
        axes.plot(x, validation, marker=".", color=colour, label=f"{regime}, validation")
        axes.plot(x, 100 * history["accuracy"], marker=".", color=colour, linestyle=":", label=f"{regime}, training")
        if len(history) < history["epochs"].iloc[-1]:
            axes.plot(x.iloc[-1], validation.iloc[-1], "x", color=colour, markersize=11)
    for row in np.flatnonzero(history["kept"]):
        label = "" if "epoch" in history else f"{regime}, validation"
        axes.plot(x.iloc[row], validation.iloc[row], "*", color=colour, markersize=12, label=label)


def learning_rate_curve(learning_rates: pd.DataFrame, suggested: float) -> Figure:
    """Loss by learning rate, from ``training.learning_rate.sweep``, with the suggested rate."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    rates = learning_rates["learning_rate"]
    excess = learning_rates["loss"] - learning_rates["start_loss"]
    axes.plot(rates, excess, color="#7f7f7f", alpha=0.5, linewidth=1, label="of a batch")
    axes.plot(rates, learning_rates["excess"], color="#d95f02", label="smoothed")
    axes.axvline(suggested, color="#1f77b4", linestyle="--", label=f"suggested: {suggested:.2g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="cross-entropy, nats")
    axes.set_title("increase of the loss while the learning rate grows")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def comparison_bars(comparison: pd.DataFrame) -> Figure:
    """Top-1 accuracy on the test split with its 95 % interval and, for more than six classes, top-5."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    positions = np.arange(len(comparison))
    colours = [_COLOURS[regime] for regime in comparison["regime"]]
    top1 = 100 * comparison["top1"]
    intervals = np.abs(100 * comparison[["top1_low", "top1_high"]].to_numpy().T - top1.to_numpy())
    top5 = comparison["top5"].notna().all()
    offset, width = (0.2, 0.38) if top5 else (0.0, 0.6)
    bars = axes.bar(positions - offset, top1, width, color=colours, yerr=intervals, capsize=4)
    axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=9)
    if top5:
        bars = axes.bar(positions + offset, 100 * comparison["top5"], width, color=colours, alpha=0.45)
        axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=9)
    labels = [f"{row.regime}\n{row.training_seconds:.0f} s of training" for row in comparison.itertuples()]
    axes.set_xticks(positions, labels)
    shown = "top-1 with its 95 % interval (solid) and top-5 (pale)" if top5 else "top-1 with its 95 % interval"
    axes.set(title=f"Accuracy on {comparison['num_images'].iloc[0]:,} test images: {shown}", ylabel="%", ylim=(0, 112))
    axes.title.set_fontsize(10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def confusion_matrix(counts: np.ndarray, class_names: Sequence[str], regime: str) -> Figure:
    """Shares of each true class by predicted class, from the counts of a confusion matrix.

    Up to 20 classes keep their order and show counts. More are sorted so that confused classes are neighbours.
    """
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    few = len(counts) <= _FEW_CLASSES
    order = np.arange(len(counts)) if few else _by_confusion(shares)
    side = max(4.5, min(0.45 * len(counts) + 2, 14))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    # With many classes, each mistake is a small share, which would be white on a linear scale.
    scale = PowerNorm(1.0 if few else 0.5, vmin=0, vmax=1)
    picture = axes.imshow(shares[np.ix_(order, order)], cmap="Blues", norm=scale)
    names = [fit_name(class_names[index], 22) for index in order.tolist()]
    size = 9 if few else max(3.5, 7 - len(counts) / 40)
    axes.set_xticks(range(len(order)), names, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(range(len(order)), names, fontsize=size, parse_math=False)
    axes.set(title=f"{regime}: share of each true class", xlabel="predicted", ylabel="true")
    if few:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, counts[row, column], ha="center", va="center", fontsize=8, color=colour)
    figure.colorbar(picture, ax=axes, shrink=0.7)
    return figure


def _by_confusion(shares: np.ndarray) -> np.ndarray:
    """An order of the classes with confused ones near each other, by average linkage."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    likeness = (shares + shares.T) / 2
    distances = 1 - likeness
    np.fill_diagonal(distances, 0)
    return leaves_list(linkage(squareform(distances, checks=False), "average", optimal_ordering=True))


def confidence_curves(predictions: Mapping[str, pd.DataFrame], class_names: Sequence[str]) -> Figure:
    """Calibration of each regime, and accuracy if only confident answers count; with two classes also the ROC curve."""
    two = len(class_names) == 2
    figure = Figure(figsize=(16 if two else 11, 4.5), layout="constrained")
    reliable, coverage, *others = figure.subplots(1, 3 if two else 2)
    reliable.plot([0, 100], [0, 100], color="#bbbbbb", linestyle="--", label="perfect calibration")
    for regime, table in predictions.items():
        confidence, correct = table["confidence"].to_numpy(), table["correct"].to_numpy(bool)
        bins, curve = reliability(confidence, correct), coverage_curve(confidence, correct)
        errors = 100 * bins[["low", "high"]].sub(bins["accuracy"], axis=0).abs().to_numpy().T
        points = 100 * bins["confidence"], 100 * bins["accuracy"]
        reliable.errorbar(*points, errors, marker=".", capsize=2, elinewidth=0.7, color=_COLOURS[regime], label=regime)
        coverage.plot(100 * curve["coverage"], 100 * curve["accuracy"], color=_COLOURS[regime], label=regime)
    title = f"reliability: bins of {bins['num_images'].min()} test images or more"
    reliable.set(title=title, xlabel="confidence, %", ylabel="accuracy, %")
    reliable.set(xlim=(0, 102), ylim=(0, 102))
    coverage.set(
        title="if only the most confident are answered", xlabel="answered, % of test images", ylabel="accuracy, %"
    )
    coverage.set(xlim=(0, 102), ylim=(None, 101))
    for axes in others:
        _roc_curves(axes, predictions, class_names[1])
    for axes in (reliable, coverage, *others):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure


def _roc_curves(axes: Axes, predictions: Mapping[str, pd.DataFrame], positive: str) -> None:
    axes.plot([0, 100], [0, 100], color="#bbbbbb", linestyle="--", label="chance")
    for regime, table in predictions.items():
        is_positive = (table["true"] == positive).to_numpy(bool)
        scores = np.where(table["predicted"] == positive, table["confidence"], 1 - table["confidence"])
        curve, area = roc_curve(scores, is_positive), area_under_roc(scores, is_positive)
        alarms, hits = curve["false_positives"], curve["true_positives"]
        told = "" if area is None else f" (area {area:.3f})"
        share = (100 * alarms / max(alarms.iloc[-1], 1), 100 * hits / max(hits.iloc[-1], 1))
        axes.plot(*share, color=_COLOURS[regime], label=f"{regime}{told}")
    axes.set_title(f"ROC: {fit_name(positive, 30)} at each threshold", parse_math=False)
    axes.set(xlabel="false alarms, % of the others (1 − specificity)", ylabel="sensitivity, %")
    axes.set(xlim=(-1, 102), ylim=(0, 102))


def backbone_front(candidates: pd.DataFrame, chosen: Mapping[str, Any]) -> Figure:
    """Accuracy of each candidate's head by the time of a forward pass, with the Pareto front and the recommendation."""
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    front = pareto_front(candidates)
    axes.plot(front["milliseconds"], 100 * front["accuracy"], color="#bbbbbb", zorder=0, label="Pareto front")
    tried = measured(candidates)
    for name, rows in tried.groupby("backbone", sort=False):
        axes.plot(rows["milliseconds"], 100 * rows["accuracy"], "o", label=name)
        for size, x, y in zip(rows["image_size"], rows["milliseconds"], 100 * rows["accuracy"], strict=True):
            axes.annotate(f"{size}", (x, y), (4, 4), textcoords="offset points", fontsize=8)
    is_chosen = (tried["backbone"] == chosen["backbone"]) & (tried["image_size"] == chosen["image_size"])
    point = tried["milliseconds"][is_chosen], 100 * tried["accuracy"][is_chosen]
    axes.plot(*point, "o", markersize=14, fillstyle="none", color="black", label="recommended")
    axes.set(xscale="log", xlabel="milliseconds an image, forward", ylabel="top-1 of the head alone, by folds (%)")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.legend(fontsize=8)
    axes.set_title("\n".join(wrap(chosen["words"], 80)), fontsize=10)
    return figure


def data_curve(found: Mapping[str, Any]) -> Figure:
    """Accuracy by training images, extrapolated to twice as many, of ``quality.more_images.value_of_more_images``."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.set_title("\n".join(wrap(found["words"][0], 90)), fontsize=10, parse_math=False)
    if not found["points"]:
        axes.set_axis_off()
        return figure
    curve, points = 100 * pd.DataFrame(found["curve"]), 100 * pd.DataFrame(found["points"])
    images = curve["images"] / 100
    axes.fill_between(images, curve["low"], curve["high"], color="#1f77b4", alpha=0.2, label="80 % interval")
    axes.plot(images, curve["accuracy"], color="#1f77b4", label="power law")
    errors = points["accuracy"] - points["low"], points["high"] - points["accuracy"]
    measured_at = points["images"] / 100
    axes.errorbar(measured_at, points["accuracy"], errors, fmt="o", color="#d95f02", capsize=3, label="measured")
    axes.axvline(found["num_images"], color="#7f7f7f", linestyle="--", label=f"{found['num_images']:,} images now")
    axes.set(xscale="log", xlabel="training images", ylabel="top-1 of the head on held-out images (%)")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    shown = np.r_[measured_at, 2 * found["num_images"]]
    axes.set_xticks(shown, [f"{number:,.0f}" for number in shown])
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    return figure
