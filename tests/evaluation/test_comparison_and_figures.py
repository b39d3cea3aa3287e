import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import binomtest

from efficientnet_finetuning.evaluation.comparison import compare_regimes, format_comparison, wilson_interval
from efficientnet_finetuning.evaluation.figures import (
    comparison_bars,
    confidence_curves,
    confusion_matrix,
    learning_curves,
)
from efficientnet_finetuning.evaluation.pictures import image_grid

TRANSFER = pd.DataFrame(
    {"val_accuracy": [0.5, 0.625], "seconds": [1.0, 2.0], "images": [100, 0], "kept": [False, True]}
)
EPOCHS = pd.DataFrame(
    {
        "epoch": [1, 2, 3],
        "epochs": [3, 3, 3],
        "images": [100, 100, 100],
        "learning_rate": [3e-4, 2e-4, 1e-4],
        "accuracy": [0.2, 0.4, 0.6],
        "val_accuracy": [0.25, 0.5, 0.75],
        "loss": [2.0, 1.5, 1.0],
        "val_loss": [2.5, 2.0, 1.75],
        "seconds": [10.0, 20.0, 30.5],
        "kept": [False, False, True],
    }
)


def metrics(top1: float) -> dict:
    return {"num_images": 1000, "loss": 1.25, "top1": top1, "top5": 0.9, "per_class": {"a": top1}}


@pytest.fixture
def comparison() -> pd.DataFrame:
    regimes = {"baseline": metrics(0.25), "transfer": metrics(0.5), "finetune": metrics(0.75)}
    return compare_regimes(regimes, {"finetune": EPOCHS, "transfer": TRANSFER, "baseline": EPOCHS})


@pytest.fixture
def pixels(tmp_path):
    """Saves a figure as a run does and reads its pixels."""

    def save(figure) -> np.ndarray:
        figure.savefig(tmp_path / "figure.png", format="png", dpi=110)
        with Image.open(tmp_path / "figure.png") as opened:
            return np.asarray(opened.convert("RGB"))

    return save


def share(pixels: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((pixels == colour).all(-1).mean())


def test_regimes_are_compared_in_the_order_of_their_metrics(comparison):
    assert list(comparison) == [
        "regime",
        "top1",
        "top1_low",
        "top1_high",
        "top5",
        "loss",
        "num_images",
        "training_seconds",
    ]
    assert comparison["regime"].tolist() == ["baseline", "transfer", "finetune"]
    assert comparison["top1"].tolist() == [0.25, 0.5, 0.75]
    assert comparison["num_images"].tolist() == [1000] * 3


def test_finetuning_counts_the_transfer_that_it_starts_from(comparison):
    assert comparison["training_seconds"].tolist() == [60.5, 3.0, 63.5]


def test_finetuning_without_a_transfer_in_the_run_counts_its_own_seconds():
    assert compare_regimes({"finetune": metrics(0.5)}, {"finetune": EPOCHS})["training_seconds"].tolist() == [60.5]


def test_the_terminals_table_has_a_line_a_regime(comparison):
    assert format_comparison(comparison).splitlines() == [
        "regime          top-1   95 % interval   top-5    loss  training",
        "baseline       25.0 %    22.4 to 27.8  90.0 %   1.250      60 s",
        "transfer       50.0 %    46.9 to 53.1  90.0 %   1.250       3 s",
        "finetune       75.0 %    72.2 to 77.6  90.0 %   1.250      64 s",
    ]


def test_where_top5_says_nothing_there_is_no_top5():
    comparison = compare_regimes({"finetune": metrics(0.5) | {"top5": None}}, {"finetune": EPOCHS})
    assert "top-5" not in format_comparison(comparison)
    assert "nan" not in format_comparison(comparison)
    (axes,) = comparison_bars(comparison).axes
    assert len(axes.patches) == 1
    assert "top-5" not in axes.get_title()


def test_the_interval_is_wilsons():
    # 8 of 10, by the formula.
    z, share_right = 1.959964, 0.8
    centre = (share_right + z**2 / 20) / (1 + z**2 / 10)
    half = z * math.sqrt(share_right * 0.2 / 10 + z**2 / 400) / (1 + z**2 / 10)
    assert wilson_interval(8, 10) == pytest.approx((centre - half, centre + half), abs=1e-6)


@pytest.mark.parametrize(("hits", "count"), [(8, 10), (0, 3), (1, 1), (417, 500), (8_580, 8_580)])
def test_the_interval_is_scipys(hits, count):
    expected = binomtest(hits, count).proportion_ci(method="wilson")
    assert wilson_interval(hits, count) == pytest.approx(tuple(expected), abs=1e-12)


@pytest.mark.parametrize(("num_classes", "numbers"), [(2, True), (20, True), (21, False), (120, False)])
def test_a_confusion_matrix_has_numbers_where_there_is_room(num_classes, numbers, pixels):
    names = [f"a rather long class name, number {index}" for index in range(num_classes)]
    counts = 5 * np.eye(num_classes, dtype=int)
    counts[0, -1] = 3
    figure = confusion_matrix(counts, names, "finetune")
    matrix = figure.axes[0]
    assert {text.get_text() for text in matrix.texts} == ({"5", "3"} if numbers else set())
    labels = [label.get_text() for label in matrix.get_yticklabels()]
    assert len(set(labels)) == num_classes, "cut names still differ"
    if not numbers:
        order = [int(label.split()[-1]) for label in labels]
        assert abs(order.index(0) - order.index(num_classes - 1)) == 1, "what is confused is put side by side"
    pixels(figure)


def test_confidence_curves_show_bins_and_coverage():
    table = pd.DataFrame({"confidence": np.linspace(0.5, 1, 30), "correct": np.arange(30) % 3 > 0})
    reliable, coverage = confidence_curves({"finetune": table}, ["a", "b", "c"]).axes
    assert len(reliable.lines[1].get_xdata()) == 2
    assert reliable.get_title() == "reliability: bins of 15 test images or more"
    assert coverage.lines[0].get_ydata()[-1] == pytest.approx(100 * 20 / 30)


def test_two_classes_have_a_roc_curve_of_the_second_one():
    table = pd.DataFrame(
        {
            "true": ["sound", "sound", "ill", "ill"],
            "predicted": ["sound", "ill", "ill", "sound"],
            "confidence": [0.9, 0.6, 0.8, 0.7],
            "correct": [True, False, True, False],
        }
    )
    roc = confidence_curves({"finetune": table}, ["sound", "ill"]).axes[2]
    assert roc.get_title() == "ROC: ill at each threshold"
    curve = roc.lines[1]
    # By falling probability of ill: 0.8 (ill), 0.6 (sound), 0.3 (ill), 0.1 (sound).
    np.testing.assert_allclose(curve.get_ydata(), [0, 50, 50, 100, 100])
    np.testing.assert_allclose(curve.get_xdata(), [0, 0, 50, 50, 100])
    assert curve.get_label() == "finetune (area 0.750)"


@pytest.mark.parametrize("count", [1, 4, 9])
def test_a_grid_shows_its_images_and_leaves_the_other_places_empty(pixels, count):
    images = np.full((count, 16, 16, 3), (250, 10, 30), np.uint8)
    figure = image_grid(images, [f"class {index}" for index in range(count)], "Samples")
    shown = pixels(figure)
    assert 0.04 * count < share(shown, (250, 10, 30)) < 0.11 * count
    assert [axes.get_title() for axes in figure.axes[:count]] == [f"class {index}" for index in range(count)]
    assert not any(axes.axison for axes in figure.axes)
    assert figure.get_suptitle() == "Samples"


def test_learning_curves_go_by_images_and_by_seconds_and_finetuning_starts_where_transfer_ends(pixels):
    figure = learning_curves({"transfer": TRANSFER, "finetune": EPOCHS})
    by_images, by_seconds, loss, rate = figure.axes
    lines = {line.get_label(): line for line in by_images.lines}
    assert list(lines["finetune, validation"].get_ydata()) == [25, 50, 75]
    assert list(lines["finetune, validation"].get_xdata()) == [200, 300, 400]
    assert list(lines["finetune, training"].get_ydata()) == pytest.approx([20, 40, 60])
    assert list(lines["transfer, validation"].get_ydata()) == [62.5]
    timed = {line.get_label(): list(line.get_xdata()) for line in by_seconds.lines}
    assert timed["finetune, validation"] == [13, 33, 63.5]
    assert [list(line.get_ydata()) for line in loss.lines] == [[2.5, 2.0, 1.75], [2.0, 1.5, 1.0]]
    assert list(rate.lines[0].get_ydata()) == [3e-4, 2e-4, 1e-4]
    shown = pixels(figure)
    assert share(shown, (0x1F, 0x77, 0xB4)) > 0
    assert share(shown, (0xD9, 0x5F, 0x02)) > 0


def marks(histories: dict, marker: str) -> dict[str, float]:
    """Where a marker stands, by colour."""
    lines = learning_curves(histories).axes[0].lines
    return {line.get_color(): float(line.get_xdata()[0]) for line in lines if line.get_marker() == marker}


def test_a_star_marks_the_epoch_that_was_kept_and_a_cross_an_early_end():
    orange, blue = "#d95f02", "#1f77b4"
    assert marks({"transfer": TRANSFER, "finetune": EPOCHS}, "*") == {blue: 100, orange: 400}
    assert marks({"finetune": EPOCHS}, "x") == {}
    assert marks({"finetune": EPOCHS.assign(epochs=9)}, "x") == {orange: 300}
    nothing_won = EPOCHS.assign(kept=False)
    assert marks({"transfer": TRANSFER, "finetune": nothing_won}, "*") == {blue: 100}, "the start's weights were kept"


def test_learning_curves_of_transfer_alone_have_no_empty_plots():
    assert len(learning_curves({"transfer": TRANSFER}).axes) == 2


def test_comparison_bars_are_as_high_as_the_accuracies(comparison, pixels):
    figure = comparison_bars(comparison)
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches] == [25, 50, 75, 90, 90, 90]
    assert [label.get_text() for label in axes.get_xticklabels()][1] == "transfer\n3 s of training"
    assert "1,000 test images" in axes.get_title()
    shown = pixels(figure)
    grey, blue, orange = (share(shown, colour) for colour in [(0x7F,) * 3, (0x1F, 0x77, 0xB4), (0xD9, 0x5F, 0x02)])
    assert blue / grey == pytest.approx(2, rel=0.1)
    assert orange / grey == pytest.approx(3, rel=0.1)
