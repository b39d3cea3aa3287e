import dataclasses

import keras
import numpy as np
import pytest

from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.bundle.novelty import References, choose_max_distance, directions, distances
from efficientnet_finetuning.evaluation.ranking import area_under_roc
from efficientnet_finetuning.models.heads import attach_head, with_features
from efficientnet_finetuning.models.inference import predict

GENERATOR = np.random.default_rng(0)
LEARNT = GENERATOR.normal(size=(60, 16)) + np.repeat(8 * np.eye(3, 16), 20, axis=0)
KNOWN = GENERATOR.normal(size=(30, 16)) + np.repeat(8 * np.eye(3, 16), 10, axis=0)
UNKNOWN = GENERATOR.normal(size=(30, 16)) + 8 * np.eye(16)[9]


REFERENCES = References(directions(LEARNT), np.repeat([0, 1, 2], 20))
KNOWN_CLASSES, UNKNOWN_CLASSES = np.repeat([0, 1, 2], 10), np.zeros(30, int)


def test_what_was_learnt_is_near_and_what_was_not_is_far():
    known, unknown = distances(KNOWN, KNOWN_CLASSES, REFERENCES), distances(UNKNOWN, UNKNOWN_CLASSES, REFERENCES)
    scores = np.concatenate([known, unknown])
    assert ((scores >= 0) & (scores <= 1)).all()
    assert area_under_roc(scores, np.arange(60) >= 30) > 0.99
    copies = References(directions(np.repeat(LEARNT[:1], 5, axis=0)), np.zeros(5, int))
    assert distances(LEARNT[:1], np.array([0]), copies) == pytest.approx(0, abs=1e-3)
    assert distances(3 * KNOWN, KNOWN_CLASSES, REFERENCES) == pytest.approx(known, abs=1e-3), "length does not matter"


def test_an_image_is_compared_with_its_predicted_class_alone():
    right, wrong = (distances(KNOWN[:10], np.full(10, label), REFERENCES) for label in (0, 1))
    assert (wrong > right + 0.2).all()


@pytest.mark.parametrize("num_references", [3, 20])
def test_the_distance_is_that_to_the_five_nearest_of_the_class(num_references):
    learnt, labels = LEARNT[:20][:num_references], np.arange(num_references) % 2
    found = distances(KNOWN[:12], np.repeat([0, 1], 6), References(directions(learnt), labels))
    cosines = KNOWN[:12] @ learnt.T / np.linalg.norm(KNOWN[:12], axis=1)[:, None] / np.linalg.norm(learnt, axis=1)
    nearest = [np.sort(row[labels == label])[-5:] for row, label in zip(cosines, np.repeat([0, 1], 6), strict=True)]
    assert found == pytest.approx([min(1 - row.mean(), 1) for row in nearest], abs=2e-3)


def test_two_of_a_hundred_held_out_images_may_lie_beyond_the_limit():
    assert choose_max_distance(np.random.default_rng(0).permutation(101) / 100) == 0.98
    assert choose_max_distance(np.array([0.1, 0.4, 0.3])) == 0.4
    same = directions(np.array([[3.0, 4.0], [0.0, 0.0], [-1.0, 0.0]]))
    assert same.dtype == np.float16
    assert same.tolist() == [pytest.approx([0.6, 0.8], abs=1e-3), [0, 0], [-1, 0]]
    opposite = References(directions(np.array([[-1.0, 0.0]])), np.zeros(1, int))
    assert distances(np.array([[1.0, 0.0]]), np.zeros(1, int), opposite) == 1


def test_nearly_all_held_out_images_lie_within_the_limit():
    held_out = distances(KNOWN, KNOWN_CLASSES, REFERENCES)
    limit = choose_max_distance(held_out)
    assert 0.97 < (held_out <= limit).mean() <= 1
    assert (distances(UNKNOWN, UNKNOWN_CLASSES, REFERENCES) > limit).mean() > 0.9


def test_a_class_of_few_references_or_of_none_is_no_fault():
    few = References(REFERENCES.directions[:2], REFERENCES.labels[:2])
    assert list(distances(KNOWN[-1:], np.array([2]), few)) == [1.0]
    assert 0 < distances(KNOWN[:1], np.array([0]), few)[0] < 1


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Five images of a colour each."""
    colours = np.array([(250, 0, 0), (0, 250, 0), (250, 250, 0), (0, 0, 250), (0, 120, 250)], np.uint8)
    return np.broadcast_to(colours[:, None, None], (5, 32, 32, 3)).copy()


@pytest.fixture(scope="module")
def knowing(pixels) -> Classifier:
    """It has learnt the first three of them."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, 3))
    model = attach_head(keras.Model(inputs, keras.layers.AveragePooling2D(8)(inputs)), 2, 0.0)
    plain = Classifier(model, ("a", "b"), "EfficientNetLite0", 32, "stretch", "bilinear", threshold=0.0)
    features = predict(with_features(model), pixels[:3], 8)[:, 2:]
    learnt = directions(np.repeat(features, 5, axis=0))
    labels = plain.predict_logits(pixels[:3]).argmax(1).repeat(5)
    return dataclasses.replace(plain, references=learnt, reference_labels=labels, max_distance=0.01)


def test_a_classifier_does_not_answer_what_is_unlike_all_it_has_learnt(knowing, pixels):
    answers = knowing.predict(list(pixels))
    assert list(answers["answered"]) == [True, True, True, False, False]
    assert (answers["distance"][:3] < 0.01).all()
    without = dataclasses.replace(knowing, references=None).predict(list(pixels))
    assert "distance" not in without
    assert without["answered"].all()
    np.testing.assert_allclose(answers["probability_1"], without["probability_1"], atol=1e-5)


def test_what_it_has_learnt_travels_in_its_file(knowing, pixels, tmp_path):
    knowing.save(tmp_path / "knowing.keras")
    loaded = Classifier.load(tmp_path / "knowing.keras")
    np.testing.assert_array_equal(loaded.references, knowing.references)
    np.testing.assert_allclose(
        loaded.predict(list(pixels))["distance"], knowing.predict(list(pixels))["distance"], atol=1e-6
    )
