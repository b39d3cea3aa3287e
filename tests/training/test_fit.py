"""Training on a task that a tiny network can learn: which of two colours the noise has."""

import logging

import keras
import numpy as np
import pytest

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import AugmentationParameters, TrainingParameters
from efficientnet_finetuning.training.fit import class_weights, fit

BACKBONE = "EfficientNetLite0"


def colours(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = generator.integers(0, 130, (count, 32, 32, 3), dtype=np.uint8)
    images[labels == 0, ..., 0] += 120
    images[labels == 1, ..., 2] += 120
    return images, np.eye(2, dtype=np.uint8)[labels]


SHIFTS = AugmentationParameters(translation=0.2)
TRAIN, VALIDATION = colours(26, 0), colours(10, 1)


def train(start, validation=VALIDATION, **changes):
    parameters = TrainingParameters(**{"epochs": 4, "batch_size": 7, "learning_rate": 0.01} | changes)
    return fit(start, BACKBONE, TRAIN, validation, parameters, seed=5)


def accuracy(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> float:
    return float((np.asarray(model(images)).argmax(1) == labels.argmax(1)).mean())


@pytest.fixture(scope="module")
def trained(start):
    before = start.get_weights()
    model, history = train(start, unfreeze_from="block2a", augmentation=SHIFTS)
    return before, model, history


def test_the_task_is_learnt(trained):
    _, model, history = trained
    assert accuracy(model, *VALIDATION) >= 0.9
    assert history[-1]["loss"] < history[0]["loss"]


def test_the_history_has_a_row_an_epoch(trained):
    _, _, history = trained
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    columns = {"epoch", "learning_rate", "loss", "accuracy", "val_loss", "val_accuracy", "seconds"}
    assert all(set(row) == columns for row in history)
    rates = [row["learning_rate"] for row in history]
    assert 0.01 > rates[0] > rates[1] > rates[2] > rates[3] == pytest.approx(0, abs=1e-6), "a cosine down to zero"


def test_the_start_keeps_its_weights(start, trained):
    before, _, _ = trained
    assert all((a == b).all() for a, b in zip(before, start.get_weights(), strict=True))


def test_frozen_blocks_and_batch_norm_keep_their_weights_and_the_others_move(start, trained):
    _, model, _ = trained
    for layer in (layer for layer in model.layers if layer.weights):
        pairs = zip(layer.get_weights(), start.get_layer(layer.name).get_weights(), strict=True)
        same = all(np.array_equal(a, b) for a, b in pairs)
        trains = layer.name.split("_")[0] in ("block2a", "block2b", "top", "logits")
        assert same != (trains and layer.name.endswith(("_conv", "logits"))), layer.name


def test_batch_norm_that_is_not_frozen_moves_its_statistics_and_scales(start):
    model, _ = train(start, epochs=1, freeze_batch_norm=False)
    for statistic in ("moving_mean", "moving_variance", "gamma", "beta"):
        before, after = (np.asarray(getattr(each.get_layer("stem_bn"), statistic)) for each in (start, model))
        assert not np.array_equal(before, after), statistic


def test_what_is_returned_carries_no_optimizer(trained):
    _, model, _ = trained
    assert not model.compiled


def test_what_is_returned_carries_nothing_frozen(trained):
    _, model, _ = trained
    assert [layer.name for layer in model.layers if not layer.trainable] == []


def test_the_same_seed_gives_the_same_weights(start, trained):
    _, model, history = trained
    again, history_again = train(start, unfreeze_from="block2a", augmentation=SHIFTS)
    assert [row["loss"] for row in history_again] == pytest.approx([row["loss"] for row in history], rel=1e-4)
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_training_stops_early_and_the_best_epoch_comes_back(start, caplog):
    images, labels = VALIDATION
    swapped = images, labels[:, ::-1]  # so that whatever is learnt makes validation worse
    changes = {"epochs": 20, "learning_rate": 3e-4, "warmup_fraction": 0.5, "early_stopping_patience": 3}
    with caplog.at_level(logging.INFO, "efficientnet_finetuning"):
        model, history = train(start, swapped, **changes)
    accuracies = [row["val_accuracy"] for row in history]
    assert len(history) == int(np.argmax(accuracies)) + 1 + 3 < 20
    assert accuracies[-1] < max(accuracies)
    assert accuracy(model, *swapped) == pytest.approx(max(accuracies))
    logged = [(record.step, record.metrics) for record in caplog.records if hasattr(record, "step")]
    assert logged == [(row["epoch"], row) for row in history]


def test_between_equally_accurate_epochs_the_lower_loss_decides(trained):
    _, model, history = trained
    best = max(history, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    assert sum(row["val_accuracy"] == best["val_accuracy"] for row in history) > 1
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)(VALIDATION[1].astype("float32"), model(VALIDATION[0]))
    assert float(loss) == pytest.approx(best["val_loss"], rel=1e-4)


def test_a_loss_that_is_not_finite_names_epoch_and_learning_rate(start):
    with pytest.raises(
        InputError, match=r"in epoch \d+, step \d+, at a learning rate of .* \(peak 1e\+09\).*training\.learning_rate"
    ):
        train(start, epochs=20, learning_rate=1e9, warmup_fraction=0)


def test_a_network_that_breaks_in_the_last_step_is_not_returned(start):
    with pytest.raises(InputError, match=r"validation loss .* in epoch 1, step 1"):
        train(start, epochs=1, batch_size=26, learning_rate=1e30, warmup_fraction=0)


def test_balanced_classes_teach_a_rare_class_that_equal_weights_neglect(start):
    generator = np.random.default_rng(0)

    def dim_colours(reds: int, blues: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.repeat([0, 1], [reds, blues])
        shade = generator.normal(np.where(labels, 8, -8), 16)
        images = generator.normal(128, 20, (len(labels), 32, 32, 3))
        images[..., 2] += shade[:, None, None]
        return images.clip(0, 255).astype(np.uint8), np.eye(2, dtype=np.uint8)[labels]

    uneven, even = dim_colours(200, 10), dim_colours(50, 50)
    recall = {}
    for class_weight in ("none", "balanced"):
        parameters = TrainingParameters(epochs=6, batch_size=21, learning_rate=0.01, class_weight=class_weight)
        model, _ = fit(start, BACKBONE, uneven, uneven, parameters, seed=5)
        predicted = np.asarray(model(even[0])).argmax(1)
        recall[class_weight] = float((predicted[50:] == 1).mean())
    assert recall["none"] < 0.3
    assert recall["balanced"] > 0.5


def test_class_weights_are_one_on_average_and_the_inverse_of_frequency():
    labels = np.eye(3, dtype=np.uint8)[[0] * 20 + [1] * 1]
    weights = class_weights(labels, "balanced")
    assert weights[1] == pytest.approx(20 * weights[0])
    assert (20 * weights[0] + weights[1]) / 21 == pytest.approx(1)
    assert class_weights(labels, "none") is None
