import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from efficientnet_finetuning.evaluation.figures import data_curve
from efficientnet_finetuning.parameters import HeadParameters
from efficientnet_finetuning.quality.more_images import Judged, judge_parts, sample_curves, value_of_more_images

HEAD = HeadParameters(inverse_regularizations=(0.01, 0.1))
NAMES = ["=cat", "NA", "Käfer, rot"]


def clouds(count: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three classes around the corners of a cube in twelve dimensions."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    return (np.eye(3, 12)[labels] + spread * generator.normal(size=(count, 12))).astype(np.float32), labels


def alone(count: int) -> np.ndarray:
    return np.arange(count).astype(str)


def test_images_that_are_learnt_from_slowly_gain_and_easy_ones_do_not():
    gains = {}
    for spread in (0.05, 0.7):
        features, labels = clouds(240, spread)
        found = value_of_more_images(features, labels, NAMES, alone(240), HEAD, seed=0)
        json.dumps(found, allow_nan=False)
        assert [row["images"] for row in found["points"]] == pytest.approx([24, 48, 96, 192], abs=2)
        doubled = found["doubled"]
        assert doubled["low"] <= doubled["accuracy"] <= doubled["high"]
        assert doubled["gain_low"] <= doubled["gain"] <= doubled["gain_high"]
        gains[spread] = doubled["gain"]
        assert isinstance(data_curve(found), Figure)
    assert gains[0.05] < 0.002 < 0.006 < gains[0.7]
    assert "480 instead of 240" in found["words"][0]


def test_a_known_power_law_is_continued():
    sizes = np.array([100.0, 200.0, 400.0, 800.0])
    errors = np.repeat((0.1 + 3 * sizes**-0.5)[:, None], 5, axis=1)
    curves = sample_curves(Judged(sizes, np.arange(5), errors, 5), 1e-8 * np.eye(4), 1000, np.random.default_rng(0))
    assert np.median(curves.at(2000.0)) == pytest.approx(0.1 + 3 * 2000**-0.5, abs=0.004)


def test_the_class_that_is_hard_gains_most():
    features, labels = clouds(300, 0.3)
    hard = labels == 2
    features[hard] += 0.5 * np.random.default_rng(1).normal(size=(hard.sum(), 12)).astype(np.float32)
    found = value_of_more_images(features, labels, NAMES, alone(300), HEAD, seed=0)
    assert found["classes"][0]["class"] == "Käfer, rot"
    assert {row["class"] for row in found["classes"]} == set(NAMES)


@pytest.mark.slow
def test_a_group_is_never_on_both_sides():
    """Each photograph lies there five times: one that has learnt a copy knows the answer, whatever the label is."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(40, 60)).repeat(5, axis=0).astype(np.float32)
    labels = generator.integers(0, 2, 40).repeat(5)
    together = np.arange(40).repeat(5)
    leaking = judge_parts(features, labels, 2, np.arange(200), HEAD, np.random.default_rng(0))
    honest = judge_parts(features, labels, 2, together, HEAD, np.random.default_rng(0))
    assert leaking.errors[-1].mean() < 0.1
    assert honest.errors[-1].mean() > 0.3


def test_too_few_images_are_said():
    features, labels = clouds(24, 0.3)
    found = value_of_more_images(features, labels, NAMES, alone(24), HEAD, seed=0)
    assert not found["told"]
    assert "24 images of 3 classes are too few" in found["words"][0]
    assert isinstance(data_curve(found), Figure)


def test_a_class_of_one_image_is_named():
    features, labels = clouds(120, 0.3)
    labels[-1] = 3
    found = value_of_more_images(features, labels, [*NAMES, "unicorn"], alone(120), HEAD, seed=0)
    assert "unicorn" in found["words"][-1]
    json.dumps(found, allow_nan=False)
