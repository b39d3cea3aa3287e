import keras
import numpy as np
import pytest

from efficientnet_finetuning.models.backbones import build_backbone
from efficientnet_finetuning.models.folding import fold, unfold
from efficientnet_finetuning.models.heads import attach_head

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)


def build(name: str) -> keras.Model:
    model = attach_head(build_backbone(name, 32, "none", seed=1), 3, 0.2)
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([generator.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    return model


@pytest.fixture(scope="module", params=["EfficientNetLite0", "EfficientNetB0", "EfficientNetV2B0"])
def model(request) -> keras.Model:
    return build(request.param)


def batch_norms(model: keras.Model) -> list[keras.Layer]:
    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


def outputs(model: keras.Model) -> np.ndarray:
    return np.asarray(model(IMAGES, training=False))


def test_a_folded_network_has_no_batch_norm_and_computes_the_same(model):
    folded = fold(model)
    assert batch_norms(model)
    assert not batch_norms(folded)
    np.testing.assert_allclose(outputs(folded), outputs(model), rtol=1e-3, atol=1e-3 * np.abs(outputs(model)).max())


def test_what_was_not_trained_comes_back_to_the_bit(model):
    before = model.get_weights()
    unfold(fold(model), model)
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_what_was_trained_comes_back_as_the_same_function_with_the_same_statistics():
    model = build("EfficientNetLite0")
    statistics = [np.asarray(layer.moving_mean) for layer in batch_norms(model)]
    folded = fold(model)
    generator = np.random.default_rng(2)
    for layer in folded.layers:
        layer.set_weights([weight * generator.uniform(0.9, 1.1, weight.shape) for weight in layer.get_weights()])
    changed = outputs(folded)
    assert np.abs(changed - outputs(model)).max() > 0.01 * np.abs(changed).max()
    unfold(folded, model)
    np.testing.assert_allclose(outputs(model), changed, rtol=1e-3, atol=1e-3 * np.abs(changed).max())
    for layer, mean in zip(batch_norms(model), statistics, strict=True):
        np.testing.assert_array_equal(np.asarray(layer.moving_mean), mean)


@pytest.mark.slow
@pytest.mark.parametrize("position", [0, 1], ids=["kernels alone", "shifts alone"])
def test_a_part_that_was_trained_comes_back_from_above_what_was_frozen(position):
    model = build("EfficientNetB0")  # between its convolutions are some that have no BatchNorm
    folded = fold(model)
    for layer in folded.layers:
        if layer.name.startswith(("block6d", "block7a", "top")) and len(layer.get_weights()) == 2:
            weights = layer.get_weights()
            weights[position] = 1.1 * weights[position] + 0.01
            layer.set_weights(weights)
    changed = outputs(folded)
    assert np.abs(changed - outputs(model)).max() > 0.01 * np.abs(changed).max()
    unfold(folded, model)
    np.testing.assert_allclose(outputs(model), changed, rtol=1e-3, atol=1e-3 * np.abs(changed).max())


def test_a_batch_norm_that_follows_no_convolution_stays():
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.BatchNormalization(name="first")(inputs)
    x = keras.layers.Conv2D(3, 1, use_bias=True, name="biased")(x)
    x = keras.layers.BatchNormalization(name="second")(x)
    x = keras.layers.Conv2D(3, 1, use_bias=False, name="plain")(x)
    x = keras.layers.BatchNormalization(name="third")(x)
    folded = fold(keras.Model(inputs, x))
    assert [layer.name for layer in batch_norms(folded)] == ["first", "second"]
