"""What one step of an optimizer does to weights whose gradient is known."""

import keras
import numpy as np
import pytest

from efficientnet_finetuning.parameters import SettledTrainingParameters
from efficientnet_finetuning.training.optimizers import build_optimizer, build_schedule, rate_at, stage_shares


def settled(**changes) -> SettledTrainingParameters:
    given = {"epochs": 3, "batch_size": 7, "learning_rate": 0.01, "keep": "last"}
    return SettledTrainingParameters.model_validate(given | changes)


@pytest.fixture
def threes(start) -> keras.Model:
    """The network with three for every weight."""
    model = keras.models.clone_model(start)
    model.set_weights([np.full_like(values, 3) for values in start.get_weights()])
    return model


def after_a_step(model: keras.Model, optimizer: keras.Optimizer, gradient: float) -> dict[str, float]:
    """The mean of each variable, by its path."""
    variables = model.trainable_variables
    optimizer.apply([keras.ops.full_like(each, gradient) for each in variables], variables)
    return {each.path: float(keras.ops.mean(each)) for each in variables}


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
def test_the_rate_by_the_clock_is_the_rate_by_steps(warmup):
    parameters = settled(warmup_fraction=warmup)
    schedule = build_schedule(parameters, steps_per_epoch=100)
    rates = [float(schedule(step)) for step in range(0, 301, 15)]
    assert [rate_at(parameters, step / 300) for step in range(0, 301, 15)] == pytest.approx(rates, abs=1e-7)
    assert rates[round(warmup * 20)] == max(rates) == pytest.approx(0.01)
    assert rates[-1] == pytest.approx(0, abs=1e-7)
    middle = round(20 * warmup) + round(20 * (1 - warmup)) // 2
    assert rates[middle] == pytest.approx(0.01 * 0.5 * (1 + np.cos(np.pi * (middle / 20 - warmup) / (1 - warmup))))


def test_a_rate_that_is_constant_or_goes_by_the_clock_is_a_number():
    constant = settled(schedule="constant", warmup_fraction=0.5)
    assert build_schedule(constant, 100) == 0.01
    assert [rate_at(constant, share) for share in (0.0, 0.2, 1.0)] == [0.01] * 3
    assert build_schedule(settled(time_budget_minutes=1.0), 100) == 0.01


def test_a_training_that_only_warms_up_ends_at_its_peak():
    parameters = settled(warmup_fraction=1.0)
    assert [float(build_schedule(parameters, 100)(150)), rate_at(parameters, 0.5)] == pytest.approx([0.005] * 2)
    assert rate_at(parameters, 1.0) == 0


def test_a_stage_gets_its_share_of_the_one_above_it(start):
    shares = dict(zip((each.path for each in start.trainable_variables), stage_shares(start, 0.1), strict=True))
    by_block = {path.split("_")[0].split("/")[0]: share for path, share in shares.items()}
    expected = {"logits": 1, "top": 0.1, "block2b": 0.01, "block2a": 0.01, "block1a": 1e-3, "stem": 1e-4}
    assert by_block == pytest.approx(expected)


def test_a_step_is_as_long_as_the_share_of_the_rate(threes):
    optimizer = build_optimizer(threes, settled(optimizer="sgd", stage_decay=0.5), 0.1)
    moved = after_a_step(threes, optimizer, gradient=2.0)
    assert moved["logits/kernel"] == moved["logits/bias"] == pytest.approx(3 - 0.1 * 2)
    assert moved["block2a_conv/kernel"] == pytest.approx(3 - 0.25 * 0.1 * 2)
    moved = after_a_step(threes, optimizer, gradient=0.0)
    assert moved["logits/kernel"] == pytest.approx(3 - (1 + 0.9) * 0.1 * 2), "with a momentum of 0.9"


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "rmsprop"])
@pytest.mark.filterwarnings("ignore:.*rmsprop")
def test_decay_pulls_kernels_to_zero_and_neither_biases_nor_scales(threes, optimizer):
    parameters = settled(optimizer=optimizer, weight_decay=0.5)
    moved = after_a_step(threes, build_optimizer(threes, parameters, 0.1), gradient=0.0)
    for path, value in moved.items():
        assert value == (pytest.approx(3 * (1 - 0.1 * 0.5)) if path.endswith("kernel") else 3), path


def test_a_decay_towards_the_start_pulls_all_but_the_head_back(threes):
    optimizer = build_optimizer(threes, settled(optimizer="sgd", start_decay=2.0, stage_decay=0.5), 0.1)
    threes.set_weights([np.full_like(values, 4) for values in threes.get_weights()])
    moved = after_a_step(threes, optimizer, gradient=0.0)
    assert moved["logits/kernel"] == moved["logits/bias"] == 4
    assert moved["top_conv/kernel"] == pytest.approx(4 - 0.5 * 0.1 * 2)
    below = [moved["block2a_conv/kernel"], moved["block2a_bn/gamma"]]
    assert below == pytest.approx([4 - 0.25 * 0.1 * 2] * 2)


def test_only_what_is_trained_has_a_share(start):
    model = keras.models.clone_model(start)
    for layer in model.layers:
        layer.trainable = layer.name.split("_")[0] in ("top", "logits")
    assert stage_shares(model, 0.1) == pytest.approx([0.1, 1, 1])
    assert build_optimizer(model, settled(stage_decay=0.1), 0.1).built
