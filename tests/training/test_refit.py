"""The new head after fine-tuning: what it learns from, and who judges the validation images."""

import keras
import numpy as np
import pytest

from efficientnet_finetuning.models.heads import backbone_of, feature_extractor, logits_of
from efficientnet_finetuning.parameters import HeadParameters, TrainingParameters
from efficientnet_finetuning.training.head import fit_head
from efficientnet_finetuning.training.refit import refit_head

TRAINING = TrainingParameters(epochs=1, batch_size=8, learning_rate=1e-3, head_dropout=0.35, class_weight="balanced")


def pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Reddish and bluish noise, twice as many images of the first class."""
    generator = np.random.default_rng(seed)
    labels = np.array([0, 0, 1])[np.arange(count) % 3]
    images = generator.integers(0, 160, (count, 32, 32, 3))
    images[..., 0] += 95 * (labels == 0)[:, None, None]
    images[..., 2] += 95 * (labels == 1)[:, None, None]
    return images.astype(np.uint8), np.eye(2, dtype=np.uint8)[labels]


TRAIN, VALIDATION = pictures(30, 0), pictures(12, 1)


def expected(start: keras.Model, images, labels, mirrored=None, class_weight="balanced"):
    """What the head's own function gives for the stages' averages."""
    features = feature_extractor(backbone_of(start))
    parameters = HeadParameters(inverse_regularizations=(1 / len(labels),), folds=0, class_weight=class_weight)
    averages = np.asarray(features(images)), np.asarray(features(VALIDATION[0]))
    return fit_head(averages[0], labels, averages[1], VALIDATION[1], parameters, mirrored=mirrored)


@pytest.fixture(scope="module")
def start(start) -> keras.Model:
    """The small network, with features large enough that a head on them is sure of some answers."""
    louder = keras.models.clone_model(start)
    louder.set_weights([3 * weight if weight.ndim == 4 else weight for weight in start.get_weights()])
    return louder


@pytest.fixture(scope="module")
def refitted(start):
    return refit_head(start, TRAIN, VALIDATION, TRAINING)


def test_the_head_learns_from_training_and_validation_images(start, refitted):
    kernel, bias = logits_of(refitted[0])
    everything = [np.concatenate(pair) for pair in zip(TRAIN, VALIDATION, strict=True)]
    fitted = expected(start, *everything)
    np.testing.assert_allclose(kernel, fitted.kernel, atol=1e-3)
    np.testing.assert_allclose(bias, fitted.bias, atol=1e-3)


def test_validation_images_are_judged_by_a_head_that_has_not_seen_them(start, refitted):
    np.testing.assert_allclose(refitted[1], expected(start, *TRAIN).held_out_logits, atol=1e-3)


def test_the_model_goes_from_pixels_to_logits_on_the_same_backbone(start, refitted):
    model = refitted[0]
    kernel, bias = logits_of(model)
    features = np.asarray(feature_extractor(backbone_of(start))(VALIDATION[0]))
    np.testing.assert_allclose(np.asarray(model(VALIDATION[0])), features @ kernel + bias, atol=1e-3)
    assert model.get_layer("stem_conv") is start.get_layer("stem_conv")
    assert model.get_layer("head_dropout").rate == 0.35


def test_class_weights_are_those_of_the_training(start, refitted):
    plain = refit_head(start, TRAIN, VALIDATION, TRAINING.model_copy(update={"class_weight": "none"}))
    np.testing.assert_allclose(plain[1], expected(start, *TRAIN, class_weight="none").held_out_logits, atol=1e-3)
    assert np.abs(plain[1] - refitted[1]).max() > 0.1


def test_mirror_images_count_in_the_judgement_alone(start, refitted):
    model, logits = refit_head(start, TRAIN, VALIDATION, TRAINING, flip=True)
    np.testing.assert_allclose(logits_of(model)[0], logits_of(refitted[0])[0], atol=1e-3)
    mirrored = np.asarray(feature_extractor(backbone_of(start))(VALIDATION[0][:, :, ::-1]))
    np.testing.assert_allclose(logits, expected(start, *TRAIN, mirrored=mirrored).held_out_logits, atol=1e-3)
    assert np.abs(logits - refitted[1]).max() > 0.1


def test_the_blocks_of_images_may_be_mapped_elsewhere(start, refitted):
    mapped = []

    def map_blocks(function, blocks):
        mapped.append(function)
        return map(function, blocks)

    logits = refit_head(start, TRAIN, VALIDATION, TRAINING, map_blocks=map_blocks)[1]
    assert mapped
    np.testing.assert_allclose(logits, refitted[1], atol=1e-4)
