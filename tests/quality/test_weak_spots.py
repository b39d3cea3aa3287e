import json

import numpy as np
import pandas as pd
import pytest

from efficientnet_finetuning.evaluation.pictures import weak_spot_sheet
from efficientnet_finetuning.quality.weak_spots import find_weak_spots

NAMES = ["cat", "dog", "owl", "größe, 5"]
EACH = 200


@pytest.fixture
def classifier():
    """Features of four classes, and a classifier that gets a tenth of each wrong, wherever they lie."""

    def make(seed: int = 0, wrong_share=(0.1, 0.1, 0.1, 0.1)):
        generator = np.random.default_rng(seed)
        labels = np.repeat(np.arange(4), EACH)
        centres = generator.normal(0, 1, (4, 32))
        features = (centres[labels] + generator.normal(0, 1, (len(labels), 32))).astype(np.float32)
        is_wrong = generator.random(len(labels)) < np.asarray(wrong_share)[labels]
        predicted = np.where(is_wrong, (labels + generator.integers(1, 4, len(labels))) % 4, labels)
        images = pd.DataFrame({"id": [f"{i}.png" for i in range(len(labels))], "split": "train"})
        images["brightness"] = generator.random(len(labels))
        return features, np.eye(4, dtype=np.float32)[predicted], labels, images

    return make


def plant(features, probabilities, images):
    """Three images in twenty of the class dog are of another kind, dark, large, and taken for owls."""
    rows = np.arange(EACH, EACH + EACH * 15 // 100)
    features[rows] += np.random.default_rng(9).normal(0, 3, 32)
    probabilities[rows] = np.eye(4)[2]
    images.loc[rows, "brightness"] *= 0.1
    images["contrast"], images["size"] = np.random.default_rng(8).random((2, len(images)))
    images.loc[rows, "size"] += 0.8
    return set(images["id"].iloc[rows])


def test_a_planted_group_is_found_and_described(classifier):
    features, probabilities, labels, images = classifier()
    planted = plant(features, probabilities, images)
    report = find_weak_spots(features, probabilities, labels, images, NAMES, seed=0)
    spot = report["spots"][0]
    assert len(report["spots"]) == 1
    assert 25 <= spot["size"] <= 40
    assert spot["accuracy_low"] <= spot["accuracy"] < 0.2 < 0.8 < spot["elsewhere_low"] < spot["elsewhere"]
    assert (spot["true"], spot["predicted"]) == ("dog", "owl")
    assert spot["confused"] >= 25
    assert spot["unlike"] == ["darker", "larger"]
    assert all(part in spot["words"] for part in ("darker", "larger", f"{spot['size']} dog"))
    is_right = probabilities.argmax(1) == labels
    assert spot["classes"] == {"dog": spot["size"]}
    right_here, elsewhere = spot["accuracy"] * spot["size"], len(labels) - spot["size"]
    assert spot["elsewhere"] == pytest.approx((is_right.sum() - right_here) / elsewhere)
    right_dogs = is_right[labels == 1].sum() - right_here
    assert spot["expected"] == pytest.approx(right_dogs / (EACH - spot["size"]))
    assert find_weak_spots(features, probabilities, labels, images, NAMES, seed=0) == report
    assert len(spot["examples"]) == 8
    assert set(spot["examples"]) <= planted
    assert "dog are predicted as owl" in report["words"][0]
    assert json.loads(json.dumps(report)) == report


@pytest.mark.slow
def test_errors_at_random_are_no_group(classifier):
    found = [len(find_weak_spots(*classifier(seed), NAMES, seed=seed)["spots"]) for seed in range(20)]
    assert np.count_nonzero(found) <= 2


@pytest.mark.slow
def test_a_difficult_class_is_no_group(classifier):
    found = [
        len(find_weak_spots(*classifier(seed, (0.05, 0.6, 0.05, 0.05)), NAMES, seed=seed)["spots"])
        for seed in range(10)
    ]
    assert np.count_nonzero(found) <= 1


def test_the_test_split_is_passed_over(classifier):
    features, probabilities, labels, images = classifier()
    planted = plant(features, probabilities, images)
    images.loc[images["id"].isin(planted), "split"] = "test"
    report = find_weak_spots(features, probabilities, labels, images, NAMES, seed=0)
    assert report["num_images"] == 4 * EACH - len(planted)
    assert report["spots"] == []


def test_few_images_tell_nothing_and_it_says_so(classifier):
    few = [part[::10] for part in classifier()]
    report = find_weak_spots(*few, NAMES, seed=0)
    assert report["spots"] == []
    assert report["words"] == ["The search for weak spots needs 200 images, and there are 80."]


@pytest.mark.parametrize("error", [0.0, 1.0])
def test_a_classifier_that_is_always_right_or_always_wrong_has_no_weak_spot(classifier, error):
    report = find_weak_spots(*classifier(0, (error,) * 4), NAMES, seed=0)
    assert report["spots"] == []
    assert report["words"] == [f"None of {report['num_clusters']} groups of similar images is a weak spot."]


@pytest.mark.parametrize("count", [0, 2])
def test_the_sheet_shows_every_example(count):
    generator = np.random.default_rng(0)
    images = {f"{i}.png": generator.integers(0, 256, (8, 8, 3), np.uint8) for i in range(8)}
    spots = [{"words": "a $group$ " * 30, "examples": list(images)[: 8 - i]} for i in range(count)]
    figure = weak_spot_sheet(images, spots)
    figure.canvas.draw()
    assert len(figure.axes[0].images) == sum(len(spot["examples"]) for spot in spots)
