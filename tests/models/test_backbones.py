import hashlib
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras.src.applications import efficientnet
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.models.architectures import ARCHITECTURES
from efficientnet_finetuning.models.backbones import build_backbone

MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def write_published_layout(name: str, path: Path) -> keras.Model:
    """Write random weights as Keras publishes ImageNet's: legacy HDF5, where B0 to B7 hold deviations as variances."""
    keras.utils.set_random_seed(1)
    model = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(32, 32, 3))
    random = np.random.default_rng(1)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        gamma, beta = random.uniform(0.5, 1.5, norm.gamma.shape), random.normal(0, 0.3, norm.gamma.shape)
        norm.set_weights([gamma, beta, *norm.get_weights()[2:]])
        norm.momentum = 0.0
    scaling = [layer for layer in model.layers if isinstance(layer, keras.layers.Normalization) and layer.weights]
    for layer in scaling:
        layer.set_weights([np.array(MEAN), np.square(DEVIATION), np.array(0)])
        layer.finalize_state()
    # One step in training mode sets BatchNorm's statistics, without which signals die out or explode on their way.
    model(random.integers(0, 256, (32, 32, 32, 3)), training=True)
    for layer in scaling:
        layer.set_weights([np.array(MEAN), np.array(DEVIATION), np.array(0)])
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, model)
    return model


def stock(weights: str) -> keras.Model:
    return keras.applications.EfficientNetB0(include_top=False, weights=weights, input_shape=(32, 32, 3))


def blocks_of(backbone: keras.Model) -> tuple[str, ...]:
    return tuple(dict.fromkeys(layer.name.split("_")[0] for layer in backbone.layers[1:]))


def relative_difference(one: np.ndarray, other: np.ndarray) -> float:
    one, other = np.asarray(one), np.asarray(other)
    return float(np.abs(one - other).max() / np.abs(other).max())


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file in the place where Keras keeps B0's ImageNet weights, its checksum the one that Keras expects."""
    home = tmp_path_factory.mktemp("keras_home")
    path = home / "models" / "efficientnetb0_notop.h5"
    write_published_layout("EfficientNetB0", path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keras.src.backend.config._KERAS_DIR", str(home))  # KERAS_HOME is read when Keras is imported
        patch.setitem(efficientnet.WEIGHTS_HASHES, "b0", (None, hashlib.md5(path.read_bytes()).hexdigest()))
        yield path


@pytest.fixture(scope="module")
def from_imagenet(published) -> keras.Model:
    assert published.is_file()
    return build_backbone("EfficientNetB0", 32, "imagenet")


def test_a_backbone_is_the_stock_one_with_imagenet_weights(from_imagenet, pixels):
    assert relative_difference(from_imagenet(pixels), stock("imagenet")(pixels)) < 1e-3


def test_the_same_weights_as_a_file_give_the_same_network(published, from_imagenet, pixels):
    from_file = build_backbone("EfficientNetB0", 32, str(published))
    assert relative_difference(from_file(pixels), from_imagenet(pixels)) < 1e-3


def test_keras_itself_gives_another_network_for_the_same_weights_as_a_file(published, from_imagenet, pixels):
    """It leaves a correction out, which the two tests above must be able to see."""
    assert relative_difference(stock(str(published))(pixels), from_imagenet(pixels)) > 0.1


def test_v2_needs_no_correction_and_gets_none(tmp_path, pixels):
    path = tmp_path / "v2b0_notop.h5"
    original = write_published_layout("EfficientNetV2B0", path)
    backbone = build_backbone("EfficientNetV2B0", 32, str(path))
    assert relative_difference(backbone(pixels), original(pixels)) < 1e-3
    assert blocks_of(backbone) == ("scaling", *ARCHITECTURES["EfficientNetV2B0"].blocks)


def test_a_random_backbone_scales_its_inputs_like_the_pretrained_one(from_imagenet, pixels):
    random = build_backbone("EfficientNetB0", 32, "none")
    expected = from_imagenet(pixels)
    assert relative_difference(random(pixels), expected) > 0.1
    random.set_weights(from_imagenet.get_weights())
    assert relative_difference(random(pixels), expected) < 1e-3


def test_blocks_lie_in_the_table_s_order_above_one_scaling_layer(from_imagenet):
    assert blocks_of(from_imagenet) == ("scaling", *ARCHITECTURES["EfficientNetB0"].blocks)


def test_the_file_of_another_network_is_refused_with_both_named(published):
    with pytest.raises(InputError, match=r"efficientnetb0_notop\.h5 does not fit EfficientNetV2B0 without its top"):
        build_backbone("EfficientNetV2B0", 32, str(published))


def test_inputs_scale_to_zero_mean_and_unit_deviation_over_imagenet(from_imagenet):
    scaling = from_imagenet.get_layer("scaling")
    mean, deviation = 255 * np.array(MEAN), 255 * np.array(DEVIATION)
    scaled = np.asarray(scaling(np.stack([mean, mean + deviation]).reshape(2, 1, 1, 3))).reshape(2, 3)
    np.testing.assert_allclose(scaled, [[0, 0, 0], [1, 1, 1]], atol=1e-5)


def test_without_a_network_the_message_names_the_address_and_the_ways_out(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there, so a network changes nothing
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setattr("urllib.request._opener", None)  # a cached one would keep an earlier test's proxies
    with pytest.raises(InputError) as caught:
        build_backbone("EfficientNetB0", 32, "imagenet")
    message = str(caught.value)
    assert "https://storage.googleapis.com/keras-applications/efficientnetb0_notop.h5" in message
    assert str(tmp_path / "models") in message
    assert "backbone.weights=" in message
    assert "backbone.name=EfficientNetLite0" in message
