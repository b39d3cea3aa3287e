import keras
import numpy as np
import pytest

from efficientnet_finetuning.models.architectures import ARCHITECTURES
from efficientnet_finetuning.models.freezing import frozen_blocks, split, unfreeze
from efficientnet_finetuning.models.heads import attach_head, with_rates

BLOCKS = ARCHITECTURES["EfficientNetLite0"].blocks


@pytest.fixture(scope="module")
def model(lite0) -> keras.Model:
    return with_rates(attach_head(lite0, 3, 0.2), 0.2, 0.2)


def size(weights) -> int:
    return sum(int(np.prod(weight.shape)) for weight in weights)


def batch_norms(model: keras.Model) -> list[keras.Layer]:
    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


def test_all_trains_everything_but_batch_norm(model):
    trainable, frozen = unfreeze(model, "EfficientNetLite0", "all", freeze_batch_norm=True)
    assert frozen == sum(size(layer.weights) for layer in batch_norms(model)) > 0
    assert trainable == size(model.weights) - frozen == size(model.trainable_weights)


def test_batch_norm_that_is_trained_keeps_only_its_statistics_frozen(model):
    trainable, frozen = unfreeze(model, "EfficientNetLite0", "all", freeze_batch_norm=False)
    assert frozen == sum(size([layer.moving_mean, layer.moving_variance]) for layer in batch_norms(model))
    assert trainable + frozen == size(model.weights)


@pytest.mark.parametrize("freeze_batch_norm", [True, False])
@pytest.mark.parametrize("lowest", ["stem", "block2a", "block6a", "top"])
def test_whole_blocks_are_trained_from_the_named_one_upward(model, lowest, freeze_batch_norm):
    unfreeze(model, "EfficientNetLite0", lowest, freeze_batch_norm)
    trained = {*BLOCKS[BLOCKS.index(lowest) :], "logits"}
    for layer in model.layers:
        if layer.weights:
            is_frozen_norm = freeze_batch_norm and layer in batch_norms(model)
            assert layer.trainable == (layer.name.split("_")[0] in trained and not is_frozen_norm), layer.name
            assert bool(layer.trainable_weights) == layer.trainable


def test_top_trains_its_convolution_and_the_logits_alone(model):
    trainable, _ = unfreeze(model, "EfficientNetLite0", "top", freeze_batch_norm=True)
    assert {weight.path.split("/")[0] for weight in model.trainable_weights} == {"top_conv", "logits"}
    assert trainable == 320 * 1280 + 1280 * 3 + 3


def test_a_head_trains_alone_and_with_its_own_batch_norm(lite0):
    model = with_rates(attach_head(lite0, 3, 0.2, batch_norm=True), 0.2, 0.2)
    assert frozen_blocks("EfficientNetLite0", "head") == BLOCKS
    unfreeze(model, "EfficientNetLite0", "head", freeze_batch_norm=True)
    assert {layer.name for layer in model.layers if layer.trainable_weights} == {"head_bn", "logits"}
    unfreeze(model, "EfficientNetLite0", "top", freeze_batch_norm=True)
    assert model.get_layer("head_bn").trainable
    assert not model.get_layer("top_bn").trainable


@pytest.mark.parametrize(("lowest", "shape"), [("block7a", (1, 1, 192)), ("top", (1, 1, 320)), ("head", (1280,))])
def test_both_parts_of_a_split_network_compute_what_it_computes(model, pixels, lowest, shape):
    below, above = split(model, "EfficientNetLite0", lowest)
    activations = below(pixels, training=False)
    assert activations.shape[1:] == shape
    np.testing.assert_allclose(above(activations, training=False), model(pixels, training=False), atol=1e-5)
    assert {layer.name.split("_")[0] for layer in below.layers if layer.weights} == set(
        frozen_blocks("EfficientNetLite0", lowest)
    )
