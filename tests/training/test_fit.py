"""Training on a task that a tiny network can learn: which of two colours the noise has."""

import logging
import time

import keras
import numpy as np
import pytest

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.models.folding import fold
from efficientnet_finetuning.parameters import AugmentationParameters, TrainingParameters
from efficientnet_finetuning.training.augmentation import Augmentation, Views
from efficientnet_finetuning.training.fit import fit
from efficientnet_finetuning.training.learning_rate import find_learning_rate, suggest_learning_rate
from efficientnet_finetuning.training.rules import class_weights
from efficientnet_finetuning.training.step import flatten_logits

pytestmark = pytest.mark.slow

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
    parameters = TrainingParameters(**{"epochs": 4, "batch_size": 7, "learning_rate": 0.01, "keep": "best"} | changes)
    return fit(start, BACKBONE, TRAIN, validation, parameters, seed=5)[:2]


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
    measured = {"kept", "learning_rate", "loss", "accuracy", "val_loss", "val_accuracy", "seconds"}
    assert all(set(row) == {"epoch", "epochs", "images"} | measured for row in history)
    assert {(row["epochs"], row["images"]) for row in history} == {(4, 26)}
    rates = [row["learning_rate"] for row in history]
    assert 0.01 > rates[0] > rates[1] > rates[2] > rates[3] == pytest.approx(0, abs=1e-6), "a cosine down to zero"


def test_the_start_keeps_its_weights(start, trained):
    before, _, _ = trained
    assert all((a == b).all() for a, b in zip(before, start.get_weights(), strict=True))


def test_frozen_blocks_keep_their_weights_to_the_bit_and_the_others_move(start, trained):
    _, model, _ = trained
    for layer in (layer for layer in model.layers if layer.weights):
        pairs = zip(layer.get_weights(), start.get_layer(layer.name).get_weights(), strict=True)
        same = all(np.array_equal(a, b) for a, b in pairs)
        trains = layer.name.split("_")[0] in ("block2a", "block2b", "top", "logits")
        assert same != trains, layer.name


def test_frozen_batch_norm_keeps_its_statistics(start, trained):
    _, model, _ = trained
    for layer in (layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)):
        for statistic in ("moving_mean", "moving_variance"):
            before, after = (np.asarray(getattr(each, statistic)) for each in (start.get_layer(layer.name), layer))
            np.testing.assert_array_equal(before, after)


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
    with caplog.at_level(logging.DEBUG, "efficientnet_finetuning"):
        model, history = train(start, epochs=20, learning_rate=0.03, early_stopping_patience=2)
    accuracies = [row["val_accuracy"] for row in history]
    assert len(history) == int(np.argmax(accuracies)) + 1 + 2 < 20
    assert accuracy(model, *VALIDATION) == pytest.approx(max(accuracies))
    logged = [(record.step, record.metrics) for record in caplog.records if hasattr(record, "step")]
    assert [(epoch, row | {"kept": kept["kept"]}) for (epoch, row), kept in zip(logged, history, strict=True)] == [
        (row["epoch"], row) for row in history
    ]
    (kept,) = [row for row in history if row["kept"]]
    assert kept["val_accuracy"] == max(accuracies)


def test_training_ends_when_its_images_are_learnt_and_says_so(start, caplog):
    with caplog.at_level(logging.DEBUG, "efficientnet_finetuning"):
        model, history = train(start, epochs=20, learning_rate=0.03, keep="last", stop_at_loss=0.3)
    *before, last = [row["loss"] for row in history]
    assert last < 0.3 <= min(before)
    assert len(history) < 20
    assert history[-1]["kept"]
    assert accuracy(model, *VALIDATION) >= 0.9
    assert "Training ends: its loss is below stop_at_loss (0.3)." in caplog.messages


def test_the_start_comes_back_where_no_epoch_is_better(start, caplog):
    images, labels = (np.repeat(array, 4, axis=0) for array in VALIDATION)
    swapped = images, labels[:, ::-1]  # so that whatever is learnt makes validation worse
    model, history = train(start, swapped, learning_rate=3e-4, early_stopping_patience=3)
    assert [row["epoch"] for row in history] == [1, 2, 3]
    for ours, theirs in zip(model.get_weights(), start.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (
        "No epoch was better on validation than the start (30.0 %), so the initial weights are restored" in caplog.text
    )
    assert "points below that before training" in caplog.text


def test_of_equal_epochs_the_first_is_kept(start):
    _, history = train(start, learning_rate=1e-30, epochs=2)
    assert len({row["val_loss"] for row in history}) == 1
    assert [row["kept"] for row in history] == [False, False], "the start, which comes before them, is as good"


def test_one_image_of_few_does_not_blame_the_learning_rate(start, caplog):
    images, labels = VALIDATION
    known = np.asarray(start(images)).argmax(1)
    is_wrong = known != labels.argmax(1)
    rows = [*np.flatnonzero(is_wrong)[:1], *np.flatnonzero(~is_wrong)[:3]]
    # Labels that the start gets right, of which the training images contradict one.
    _, history = train(start, (images[rows], np.eye(2, dtype=np.uint8)[known[rows]]))
    assert min(row["val_accuracy"] for row in history) == 0.75
    assert "too high" not in caplog.text


def test_a_loss_far_above_that_of_guessing_is_explained(start, caplog):
    train(start, learning_rate=1.0, warmup_fraction=0.0, epochs=1)
    assert "is far above that of random guessing (0.69). The learning rate is too high" in caplog.text


def test_pixels_that_were_scaled_already_are_refused(start):
    images, labels = TRAIN
    parameters = TrainingParameters(epochs=1, batch_size=7, learning_rate=0.01)
    with pytest.raises(InputError, match=r"The pixels are in 0 to 0.9.*needs 0 to 255"):
        fit(start, BACKBONE, (images / np.float32(255), labels), VALIDATION, parameters, seed=5)


@pytest.mark.parametrize(("unfreeze_from", "views"), [("block2a", 1), ("block2a", 2), ("head", 1)])
def test_cached_activations_give_what_the_images_would_give(start, unfreeze_from, views):
    """With the views that are cached, augmented by themselves beforehand, and nothing drawn below the freeze point."""
    changes = {"unfreeze_from": unfreeze_from, "learning_rate": 0.003, "drop_connect_rate": 0.0, "head_dropout": 0.0}
    cached, history = train(start, cached_views=views, augmentation=SHIFTS, **changes)
    images = Views(TRAIN[0], views, Augmentation(SHIFTS), seed=5)[:]
    parameters = TrainingParameters(epochs=4, batch_size=7, augmentation=AugmentationParameters(flip="none"), **changes)
    plain, plain_history, _ = fit(start, BACKBONE, (images, TRAIN[1]), VALIDATION, parameters, seed=5)
    assert [row["loss"] for row in history] == pytest.approx([row["loss"] for row in plain_history], rel=2e-3)
    assert [row["val_loss"] for row in history] == pytest.approx([row["val_loss"] for row in plain_history], rel=2e-3)
    for ours, theirs in zip(cached.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=5e-3)


def test_a_decay_towards_the_start_holds_all_but_the_head(start):
    free, held = (train(start, keep="last", start_decay=decay)[0] for decay in (0.0, 300.0))

    def moved(model: keras.Model, layer: str) -> float:
        before, after = (fold(of).get_layer(layer).get_weights()[0] for of in (start, model))
        return float(np.abs(after - before).mean())

    assert moved(held, "block1a_conv") < 0.7 * moved(free, "block1a_conv")
    assert accuracy(held, *VALIDATION) >= 0.9
    free, held = (train(start, unfreeze_from="head", start_decay=decay)[0] for decay in (0.0, 300.0))
    np.testing.assert_array_equal(free.get_layer("logits").kernel, held.get_layer("logits").kernel)


def test_the_head_is_fitted_anew_on_all_stages(start):
    (plain, _), (anew, history) = (train(start, keep="last", refit_head=wanted) for wanted in (False, True))
    assert anew.get_layer("logits").kernel.shape[0] > plain.get_layer("logits").kernel.shape[0]
    np.testing.assert_array_equal(anew.get_layer("stem_conv").kernel, plain.get_layer("stem_conv").kernel)
    assert accuracy(anew, *VALIDATION) >= 0.9
    assert history[-1]["kept"]


def test_what_a_refitted_head_says_of_validation_is_said_by_one_that_has_not_seen_it(start):
    images, labels = VALIDATION
    swapped = images, labels[:, ::-1]
    parameters = TrainingParameters(epochs=1, batch_size=7, learning_rate=1e-6, keep="last", refit_head=True)
    trained = fit(start, BACKBONE, TRAIN, swapped, parameters, seed=5)
    assert (trained.validation_logits.argmax(1) == labels.argmax(1)).mean() >= 0.9, "by the training images"
    margins = [np.sum((labels - 0.5) * logits) for logits in (trained.validation_logits, trained.model(images))]
    assert margins[0] > 1.1 * margins[1], "the model itself has learnt from the swapped labels"


def test_a_start_that_comes_back_gets_a_head_on_all_stages(start):
    images, labels = VALIDATION
    model, history = train(start, (images, labels[:, ::-1]), learning_rate=3e-4, epochs=1, refit_head=True)
    assert not any(row["kept"] for row in history)
    np.testing.assert_array_equal(model.get_layer("stem_conv").kernel, start.get_layer("stem_conv").kernel)
    assert model.get_layer("logits").kernel.shape[0] > start.get_layer("logits").kernel.shape[0]


def test_lower_stages_learn_more_slowly(start):
    moved = {}
    for stage_decay in (1.0, 0.1):
        model, _ = train(start, epochs=1, stage_decay=stage_decay, warmup_fraction=0.0, freeze_batch_norm=False)
        moved[stage_decay] = [
            np.abs(model.get_layer(name).get_weights()[0] - start.get_layer(name).get_weights()[0]).mean()
            for name in ("stem_conv", "block2a_conv", "logits")
        ]
    shares = np.array(moved[0.1]) / moved[1.0]
    # Five stages: the rate of block2 is a hundredth of the head's, that of the stem a ten-thousandth.
    assert shares[2] > 0.5
    assert 0.003 < shares[1] < 0.05
    assert shares[0] < 0.001


def test_a_time_budget_ends_by_the_clock_and_so_does_its_schedule(start):
    began = time.monotonic()
    _, history = train(start, epochs=1, time_budget_minutes=0.1)
    assert time.monotonic() - began >= 4.5, "it uses the time that it has"
    assert sum(row["seconds"] for row in history) < 8
    assert len(history) == history[-1]["epochs"] > 2
    rates = [row["learning_rate"] for row in history]
    assert 0.01 > max(rates) > rates[-1]
    assert rates[-1] < 0.001, "near the end of its cosine"


def test_a_budget_shorter_than_an_epoch_says_so(start, caplog):
    _, history = train(start, time_budget_minutes=1e-6)
    assert (len(history), history[0]["images"]) == (1, 7)
    assert "ended within the first epoch, after 1 of 4 steps" in caplog.text


def test_the_learning_rate_can_be_found(start, caplog):
    with caplog.at_level(logging.DEBUG, "efficientnet_finetuning"):
        model, _ = train(start, learning_rate="find")
    assert "as the finder suggests" in caplog.text
    assert accuracy(model, *VALIDATION) >= 0.9


def test_what_is_auto_follows_from_the_number_of_images(start, caplog):
    names = ("epochs", "batch_size", "learning_rate", "keep", "start_loss", "start_decay", "stop_at_loss")
    automatic = dict.fromkeys(names, "auto")
    with caplog.at_level(logging.DEBUG, "efficientnet_finetuning"):
        _, history = train(start, **automatic, unfreeze_from="head")
    line = next(record.message for record in caplog.records if record.message.startswith("from 26 training"))
    assert f"epochs {len(history)}" in line
    assert "10 validation images" in line
    assert "keep last" in line


def test_few_validation_images_choose_no_epoch(start):
    """The start is right on all of them and the training goes wrong, but ten images are too few to say so."""
    wrong = VALIDATION[0], 1 - VALIDATION[1]
    good, _ = train(start)
    last, history = train(good, validation=wrong, keep="auto")
    assert history[-1]["val_accuracy"] == pytest.approx(accuracy(last, *wrong))
    assert any((a != b).any() for a, b in zip(good.get_weights(), last.get_weights(), strict=True))


def test_nobody_who_left_the_learning_rate_to_the_rule_is_told_to_change_it(start, caplog):
    good, _ = train(start)
    caplog.clear()
    train(good, validation=(VALIDATION[0], 1 - VALIDATION[1]), learning_rate="auto", epochs=1)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("start_loss", [0.5, 0.8])
def test_a_sure_start_is_flattened_and_predicts_the_same(start, start_loss):
    sure, _ = train(start, epochs=8, learning_rate=0.03)
    flat = keras.models.clone_model(sure)
    flat.set_weights(sure.get_weights())
    flatten_logits(flat, TRAIN, start_loss)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)(TRAIN[1].astype("float32"), flat(TRAIN[0]))
    assert float(loss) == pytest.approx(start_loss * np.log(2), rel=0.05)
    np.testing.assert_array_equal(np.argmax(flat(TRAIN[0]), 1), np.argmax(sure(TRAIN[0]), 1))
    before = flat.get_weights()
    flatten_logits(flat, TRAIN, 0.3)
    assert all((a == b).all() for a, b in zip(before, flat.get_weights(), strict=True)), "it is flat enough already"


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
        model, *_ = fit(start, BACKBONE, uneven, uneven, parameters, seed=5)
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


def test_the_finder_bears_a_start_that_has_nothing_left_to_learn(start):
    best, _ = train(start, epochs=8, learning_rate=0.03)
    rows = find_learning_rate(best, BACKBONE, TRAIN, TrainingParameters(epochs=1, batch_size=7, learning_rate=0.01), 5)
    assert np.mean([row["start_loss"] for row in rows]) < 0.1
    assert len(rows) > 20
    assert 1e-6 < suggest_learning_rate(rows, 2) < 1


def test_the_finder_weighs_the_classes_of_the_start_s_loss_too(start):
    """Its first steps change nothing yet, so both losses of a batch are the same."""
    uneven = tuple(array[np.r_[0:26:2, 1]] for array in TRAIN)  # thirteen of one colour, one of the other
    changes = {"head_dropout": 0.0, "drop_connect_rate": 0.0, "augmentation": AugmentationParameters(flip="none")}
    parameters = TrainingParameters(epochs=1, batch_size=7, learning_rate=0.01, class_weight="balanced", **changes)
    rows = find_learning_rate(start, BACKBONE, uneven, parameters, 5)[:2]
    assert [row["loss"] for row in rows] == pytest.approx([row["start_loss"] for row in rows], rel=1e-3)


def test_the_cost_is_told_once_and_early(start, caplog):
    with caplog.at_level(logging.DEBUG, "efficientnet_finetuning"):
        train(start, epochs=2, batch_size=2)
    costs = [record.message for record in caplog.records if record.message.startswith("cost: ")]
    assert len(costs) == 1
    assert "26 steps" in costs[0]
