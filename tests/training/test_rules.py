import logging

import numpy as np
import pytest

from efficientnet_finetuning.parameters import TrainingParameters
from efficientnet_finetuning.training.rules import apply_rules, class_weights

RULED = ("epochs", "batch_size", "learning_rate", "start_loss", "keep", "start_decay", "stop_at_loss")
AUTO = TrainingParameters(**dict.fromkeys(RULED, "auto"))


@pytest.mark.parametrize(
    ("num_train", "epochs", "batch_size"), [(9, 30, 16), (90, 30, 16), (159, 20, 16), (900, 3, 16), (1_800, 3, 32)]
)
def test_few_images_get_more_epochs_and_smaller_batches(num_train, epochs, batch_size):
    settled = apply_rules(AUTO, num_train, num_validation=0)
    assert (settled.epochs, settled.batch_size) == (epochs, batch_size)


@pytest.mark.parametrize(
    ("num_train", "settled"),
    [(1_199, (2, 16, 2e-4, 0.8, 50.0, 0.01)), (1_200, (5, 32, 6e-4, None, 0.0, None))],
)
def test_from_1200_images_on_there_are_many(num_train, settled):
    found = apply_rules(AUTO, num_train, num_validation=0)
    names = ("epochs", "batch_size", "learning_rate", "start_loss", "start_decay", "stop_at_loss")
    assert tuple(getattr(found, name) for name in names) == (max(settled[0], 3), *settled[1:])


def test_classes_weigh_the_inverse_of_their_frequency_one_on_average():
    labels = np.eye(4, dtype=np.uint8)[[0] * 6 + [1] * 3 + [3]]  # no image of the third
    assert class_weights(labels, "balanced") == pytest.approx({0: 10 / 18, 1: 10 / 9, 2: 10 / 3, 3: 10 / 3})
    assert class_weights(labels, "none") is None


def test_few_images_learn_more_gently_from_a_flattened_start():
    few, many = (apply_rules(AUTO, num_train, 500) for num_train in (100, 100_000))
    assert few.learning_rate < many.learning_rate
    assert few.start_loss
    assert few.start_decay > many.start_decay == 0
    assert many.start_loss is None


@pytest.mark.parametrize(
    ("num_train", "given", "stops"),
    [(100, {}, True), (2_000, {}, False), (100, {"epochs": 30}, False), (100, {"time_budget_minutes": 5.0}, False)],
    ids=["few", "many", "epochs", "time"],
)
def test_a_training_that_nobody_gave_a_length_ends_when_its_images_are_learnt(num_train, given, stops):
    assert (apply_rules(AUTO.model_copy(update=given), num_train, 10).stop_at_loss is not None) == stops


@pytest.mark.parametrize(("num_validation", "keep"), [(0, "last"), (199, "last"), (200, "best")])
def test_an_epoch_is_chosen_only_by_enough_images(num_validation, keep):
    assert apply_rules(AUTO, 1_000, num_validation).keep == keep


def test_early_stopping_asks_for_the_best_epoch():
    asked = AUTO.model_copy(update={"early_stopping_patience": 2})
    assert apply_rules(asked, 100, 10).keep == "best"


def test_numbers_that_are_given_win_and_shape_the_others(caplog):
    given = {"batch_size": 50, "learning_rate": 0.5, "start_loss": None, "keep": "best", "checkpoint_minutes": 1.0}
    with caplog.at_level(logging.DEBUG, "efficientnet_finetuning"):
        settled = apply_rules(TrainingParameters(epochs="auto", **given), 500, 10)
    assert given.items() <= dict(settled).items()
    assert settled.epochs == 20
    assert "from 500 training and 10 validation images: epochs 20" in caplog.text


def test_nothing_is_said_where_nothing_is_chosen(caplog):
    given = {"epochs": 2, "batch_size": 50, "learning_rate": 0.5, "keep": "best"}
    with caplog.at_level(logging.DEBUG, "efficientnet_finetuning"):
        apply_rules(TrainingParameters(**given), 500, 10)
    assert not caplog.records
