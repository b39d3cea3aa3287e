"""Training on a task that a tiny network can learn: which of two colours the noise has."""

import keras
import numpy as np
import pytest

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.models.backbones import build_backbone
from efficientnet_finetuning.models.heads import attach_head
from efficientnet_finetuning.parameters import TrainingParameters
from efficientnet_finetuning.training.fit import fit

BACKBONE = "EfficientNetLite0"


def colours(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = generator.integers(0, 130, (count, 32, 32, 3), dtype=np.uint8)
    images[labels == 0, ..., 0] += 120
    images[labels == 1, ..., 2] += 120
    return images, np.eye(2, dtype=np.uint8)[labels]


TRAIN, VALIDATION = colours(24, 0), colours(10, 1)


@pytest.fixture(scope="module")
def start() -> keras.Model:
    return attach_head(build_backbone(BACKBONE, 32), 2, 0.2)


def train(start, **changes):
    parameters = TrainingParameters(**{"epochs": 3, "batch_size": 7, "learning_rate": 3e-3} | changes)
    return fit(start, BACKBONE, TRAIN, VALIDATION, parameters, seed=5)


@pytest.fixture(scope="module")
def trained(start):
    before = [weight.copy() for weight in start.get_weights()]
    model, history = train(start, unfreeze_from="block7a")
    return before, model, history


def test_the_task_is_learnt(trained):
    _, _, history = trained
    assert history[-1]["val_accuracy"] >= 0.9
    assert history[-1]["loss"] < history[0]["loss"]


def test_the_history_has_a_row_an_epoch(trained):
    _, _, history = trained
    assert [row["epoch"] for row in history] == [1, 2, 3]
    columns = {"epoch", "learning_rate", "loss", "accuracy", "val_loss", "val_accuracy", "seconds"}
    assert all(set(row) == columns for row in history)
    assert history[-1]["learning_rate"] == pytest.approx(0, abs=1e-6), "the cosine ends at zero"


def test_the_start_keeps_its_weights(start, trained):
    before, _, _ = trained
    assert all((a == b).all() for a, b in zip(before, start.get_weights(), strict=True))


def test_frozen_blocks_and_batch_norm_keep_their_weights_and_the_others_move(start, trained):
    _, model, _ = trained
    for layer in model.layers:
        pairs = zip(layer.get_weights(), start.get_layer(layer.name).get_weights(), strict=True)
        same = all(np.array_equal(a, b) for a, b in pairs)
        is_batch_norm = isinstance(layer, keras.layers.BatchNormalization)
        moves = bool(layer.weights) and not is_batch_norm and layer.name.split("_")[0] in ("block7a", "top", "logits")
        assert same != moves, layer.name


def test_the_weights_of_the_best_epoch_come_back(start):
    # A rate this high makes validation accuracy jump about.
    model, history = train(start, epochs=4, learning_rate=0.03, warmup_fraction=0, unfreeze_from="top")
    accuracy = (model.predict(VALIDATION[0], verbose=0).argmax(1) == VALIDATION[1].argmax(1)).mean()
    assert accuracy == pytest.approx(max(row["val_accuracy"] for row in history))


def test_what_is_returned_carries_no_optimizer_and_nothing_frozen(trained):
    _, model, _ = trained
    assert not model.compiled
    assert all(layer.trainable for layer in model.layers)


def test_the_same_seed_gives_the_same_weights(start, trained):
    _, model, _ = trained
    again, _ = train(start, unfreeze_from="block7a")
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_early_stopping_ends_training(start):
    _, history = train(start, epochs=20, learning_rate=1e-9, unfreeze_from="top", early_stopping_patience=1)
    assert len(history) < 5


def test_a_loss_that_is_not_finite_names_epoch_and_learning_rate(start):
    with pytest.raises(InputError, match=r"epoch 1: the learning rate\s1e\+30 is too high"):
        train(start, learning_rate=1e30, warmup_fraction=0, freeze_batch_norm=False)
