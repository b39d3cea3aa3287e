import keras
import numpy as np
import pytest

from efficientnet_finetuning.models.activation_maps import class_activation_maps
from efficientnet_finetuning.models.backbones import build_backbone
from efficientnet_finetuning.models.heads import assemble, attach_head, dense_head


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_mean_of_a_map_is_the_class_logit(batch_norm):
    model = attach_head(build_backbone("EfficientNetLite0", 64, "none"), 3, 0.2, batch_norm)
    if batch_norm:
        statistics = [
            np.random.default_rng(0).uniform(0.5, 2, weight.shape) for weight in model.get_layer("head_bn").weights
        ]
        model.get_layer("head_bn").set_weights(statistics)
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    classes = np.array([0, 1, 2, 1, 0])
    maps = class_activation_maps(model, images, classes, batch_size=2)
    assert maps.shape == (5, 2, 2)
    logits = model.predict_on_batch(images)
    np.testing.assert_allclose(maps.mean((1, 2)), logits[np.arange(5), classes], atol=1e-4)


@pytest.mark.parametrize("size", [64, 72])  # 72: maps of 9, 5 and 3 places, none a multiple of another
def test_the_mean_of_a_map_is_the_class_logit_where_the_head_sees_all_stages(size):
    backbone = build_backbone("EfficientNetLite0", size, "none")
    kernel = np.random.default_rng(1).normal(size=(2064, 3)).astype("float32")
    model = assemble(backbone, dense_head(kernel, np.zeros(3, "float32")), 0.2)
    images = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
    maps = class_activation_maps(model, images, np.array([0, 1, 2]))
    assert maps.shape == (3, -(-size // 32), -(-size // 32))
    logits = model.predict_on_batch(images)
    np.testing.assert_allclose(maps.mean((1, 2)), logits[np.arange(3), [0, 1, 2]], rtol=1e-4, atol=1e-3)


def test_a_map_points_at_the_place_that_speaks_for_the_class():
    inputs = keras.Input((32, 32, 3))
    features = keras.layers.AveragePooling2D(8)(inputs)  # each place's mean colour
    model = attach_head(keras.Model(inputs, features), 3, 0.0)
    model.get_layer("logits").set_weights([np.eye(3, dtype=np.float32), np.zeros(3, np.float32)])
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[0, 8:16, 24:32, 2] = 255
    assert np.unravel_index(class_activation_maps(model, image, np.array([2]))[0].argmax(), (4, 4)) == (1, 3)
