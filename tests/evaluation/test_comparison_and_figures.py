import numpy as np
import pandas as pd
import pytest
from PIL import Image

from efficientnet_finetuning.evaluation.comparison import compare_regimes, format_comparison
from efficientnet_finetuning.evaluation.figures import comparison_bars, image_grid, learning_curves

TRANSFER = pd.DataFrame({"inverse_regularization": [0.1, 1.0], "val_accuracy": [0.5, 0.625], "seconds": [1.0, 2.0]})
EPOCHS = pd.DataFrame(
    {
        "epoch": [1, 2, 3],
        "accuracy": [0.2, 0.4, 0.6],
        "val_accuracy": [0.25, 0.5, 0.75],
        "loss": [2.0, 1.5, 1.0],
        "val_loss": [2.5, 2.0, 1.75],
        "seconds": [10.0, 20.0, 30.5],
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
    assert list(comparison) == ["regime", "top1", "top5", "loss", "num_images", "training_seconds"]
    assert comparison["regime"].tolist() == ["baseline", "transfer", "finetune"]
    assert comparison["top1"].tolist() == [0.25, 0.5, 0.75]
    assert comparison["num_images"].tolist() == [1000] * 3


def test_finetuning_counts_the_transfer_that_it_starts_from(comparison):
    assert comparison["training_seconds"].tolist() == [60.5, 3.0, 63.5]


def test_finetuning_without_a_transfer_in_the_run_counts_its_own_seconds():
    assert compare_regimes({"finetune": metrics(0.5)}, {"finetune": EPOCHS})["training_seconds"].tolist() == [60.5]


def test_the_terminals_table_has_a_line_a_regime(comparison):
    assert format_comparison(comparison).splitlines() == [
        "regime          top-1   top-5    loss  training",
        "baseline       25.0%   90.0%   1.250      60 s",
        "transfer       50.0%   90.0%   1.250       3 s",
        "finetune       75.0%   90.0%   1.250      64 s",
    ]


@pytest.mark.parametrize("count", [1, 4, 9])
def test_a_grid_shows_its_images_and_leaves_the_other_places_empty(pixels, count):
    images = np.full((count, 16, 16, 3), (250, 10, 30), np.uint8)
    figure = image_grid(images, [f"class {index}" for index in range(count)], "Samples")
    shown = pixels(figure)
    assert 0.04 * count < share(shown, (250, 10, 30)) < 0.11 * count
    assert [axes.get_title() for axes in figure.axes[:count]] == [f"class {index}" for index in range(count)]
    assert not any(axes.axison for axes in figure.axes)
    assert figure.get_suptitle() == "Samples"


def test_learning_curves_draw_percent_and_nats_by_epoch_and_transfer_as_a_level_line(pixels):
    figure = learning_curves({"transfer": TRANSFER, "finetune": EPOCHS})
    accuracy, loss = figure.axes
    lines = {line.get_label(): list(line.get_ydata()) for line in accuracy.lines}
    assert lines["transfer, validation"] == [62.5, 62.5]
    assert lines["finetune, validation"] == [25, 50, 75]
    assert lines["finetune, training"] == pytest.approx([20, 40, 60])
    assert [list(line.get_ydata()) for line in loss.lines] == [[2.5, 2.0, 1.75], [2.0, 1.5, 1.0]]
    shown = pixels(figure)
    assert share(shown, (0x1F, 0x77, 0xB4)) > 0
    assert share(shown, (0xD9, 0x5F, 0x02)) > 0


def test_learning_curves_of_transfer_alone_have_no_empty_loss_plot(pixels):
    figure = learning_curves({"transfer": TRANSFER})
    shown = pixels(figure)
    assert not figure.axes[1].axison
    assert share(shown[:, : shown.shape[1] // 2], (0x1F, 0x77, 0xB4)) > 0
    assert share(shown[:, shown.shape[1] * 6 // 10 :], (255, 255, 255)) > 0.97


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
