import json

import numpy as np
import pandas as pd
import pytest
import scipy.special

from efficientnet_finetuning.evaluation.calibration import (
    coverage_curve,
    expected_calibration_error,
    fit_temperature,
    judge_threshold,
    log_softmax,
    reliability,
)
from efficientnet_finetuning.evaluation.comparison import wilson_interval


def draw(temperature: float, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels that are drawn as those logits divided by the temperature say."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 3, (count, 5)).astype(np.float32)
    probabilities = np.exp(log_softmax(logits, temperature))
    targets = [generator.choice(5, p=row) for row in probabilities]
    return logits, np.eye(5, dtype=np.uint8)[targets]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found_and_calibrates(temperature):
    logits, labels = draw(temperature)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.1)
    probabilities = np.exp(log_softmax(logits, found))
    correct = probabilities.argmax(1) == labels.argmax(1)
    assert expected_calibration_error(probabilities.max(1), correct) < 0.03


def test_a_few_images_that_are_all_right_do_not_make_a_classifier_certain():
    logits, labels = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.uint8)
    found = fit_temperature(logits, labels)
    assert 0.8 < found < 1
    # The prior of its logarithm is normal with a standard deviation of 0.3.
    tried = np.geomspace(0.5, 1.5, 1_001)
    losses = [(np.log(t) / 0.3) ** 2 / 2 - scipy.special.log_softmax(logits / t, 1).trace() for t in tried]
    assert found == pytest.approx(tried[np.argmin(losses)], rel=2e-3)


@pytest.mark.parametrize("scale", [1, 1e5])
def test_log_probabilities_are_scipys_however_large_the_logits(scale):
    logits = scale * np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32) - scale
    expected = scipy.special.log_softmax(logits.astype(float), axis=1)
    np.testing.assert_allclose(log_softmax(logits), expected, atol=1e-9)
    np.testing.assert_allclose(log_softmax(logits, 1.0), expected, atol=1e-9)


def test_bins_hold_equally_many_images():
    confidence = np.linspace(0, 1, 480) ** 3
    bins = reliability(confidence, np.arange(480) % 2 == 0)
    assert bins["num_images"].tolist() == [32] * 15
    assert bins["accuracy"].tolist() == [0.5] * 15
    assert (bins["low"][0], bins["high"][0]) == wilson_interval(16, 32)


def test_images_of_equal_confidence_go_into_bins_in_their_order():
    bins = reliability(np.tile([0.9, 0.6], 150), np.arange(300) < 150)
    assert bins["accuracy"].tolist() == [1, 1, 1, 0.75, 0, 0, 0, 0.5, 1, 1, 1, 0.25, 0, 0, 0]


@pytest.mark.parametrize(("num_images", "num_bins"), [(1, 1), (29, 1), (45, 3), (224, 14), (10_000, 15)])
def test_few_images_have_fewer_bins(num_images, num_bins):
    assert len(reliability(np.linspace(0, 1, num_images), np.ones(num_images, bool))) == num_bins


def test_the_calibration_error_is_the_mean_distance():
    # Seven bins of right answers, one that is mixed, seven of wrong ones.
    found = expected_calibration_error(np.full(300, 0.9), np.arange(300) < 150)
    assert found == pytest.approx((7 * 0.1 + 0.4 + 7 * 0.9) / 15)
    assert expected_calibration_error(np.ones(3), np.ones(3, bool)) == 0.0


def test_coverage_answers_images_of_equal_confidence_together():
    curve = coverage_curve(np.array([0.5, 0.9, 0.5, 0.8]), np.array([False, True, True, True]))
    assert curve["coverage"].tolist() == [0.25, 0.5, 1.0]
    assert curve["accuracy"].tolist() == [1.0, 1.0, 0.75]
    assert curve["threshold"].tolist() == [0.9, 0.8, 0.5]


def split(confidence: list[float], correct: list[bool]) -> pd.DataFrame:
    return pd.DataFrame({"confidence": confidence, "correct": correct})


def test_the_threshold_is_chosen_on_held_out_images_and_tried_on_test():
    held_out = split([0.9, 0.8, 0.7, 0.6], [True, True, False, True])
    test = split([0.95, 0.85, 0.5, 0.4], [True, False, True, True])
    assert judge_threshold(held_out, test, 1.0) == {
        "precision": 1.0,
        "confidence": 0.8,
        "coverage": 0.5,
        "accuracy": 0.5,
        "held_out": {"num_images": 4, "answered": 2, "right": 2},
        "test": {"num_images": 4, "answered": 2, "right": 1},
    }
    assert judge_threshold(held_out, test, 0.75)["confidence"] == 0.6


@pytest.mark.parametrize("test", [split([0.1], [True]), split([0.95], [False])])
def test_a_precision_that_is_out_of_reach_is_said(test):
    found = judge_threshold(split([0.9, 0.8], [False, True]), test, 0.9)
    assert (found["confidence"], found["coverage"], found["accuracy"]) == (None, 0.0, None)
    json.dumps(found, allow_nan=False)
