import logging
import multiprocessing
import os
import subprocess
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import keras
import numpy as np
import pytest

from efficientnet_finetuning.models import inference
from efficientnet_finetuning.models.backbones import build_backbone
from efficientnet_finetuning.models.heads import attach_head, feature_extractor
from efficientnet_finetuning.models.inference import mirrored, predict, predict_all, predict_batches
from efficientnet_finetuning.models.litert import Engine
from efficientnet_finetuning.parameters import AugmentationParameters
from efficientnet_finetuning.training.augmentation import Augmentation, Views


@pytest.fixture(autouse=True)
def always_converts(monkeypatch):
    monkeypatch.setattr(inference, "_PIXELS_THAT_PAY", 0)


@pytest.fixture
def engines(monkeypatch) -> list[Engine]:
    """The engines that were made."""
    made = []

    class Recorded(Engine):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr("efficientnet_finetuning.models.litert.Engine", Recorded)
    return made


@pytest.fixture(scope="module")
def extractor(lite0) -> keras.Model:
    return feature_extractor(lite0)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """More than one chunk of 39 images of 32 px, and an uneven last one."""
    return np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def expected(extractor, images) -> np.ndarray:
    return np.asarray(extractor(images, training=False))


def words(caplog) -> list[str]:
    """What this module says; TensorFlow warns of its own now and then, of retracing for one."""
    return [record.message for record in caplog.records if record.name == inference.__name__]


def assert_close(got: np.ndarray, expected: np.ndarray) -> None:
    """Closer than is asked for: 1e-4 of the largest output."""
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(("count", "batch_size"), [(100, 64), (100, 7), (1, 64), (64, 64)])
def test_every_image_counts_once_and_in_order_whatever_the_batches(
    extractor, images, expected, engines, count, batch_size
):
    assert_close(predict(extractor, images[:count], batch_size), expected[:count])
    assert len(engines) == 1
    assert np.ptp(expected, axis=0).max() > 0.1  # so that a row in the wrong place would show


def test_bytes_floats_and_memory_maps_give_the_same_features(extractor, images, expected, tmp_path):
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    floats = images.astype("float64") - 0.25
    assert_close(predict(extractor, mapped, 64), expected)
    assert_close(predict(extractor, floats, 64), np.asarray(extractor(floats.astype("float32"), training=False)))


def test_the_same_images_give_the_same_bits_from_run_to_run(extractor, images):
    np.testing.assert_array_equal(predict(extractor, images, 64), predict(extractor, images, 64))


def test_several_arrays_share_one_conversion(extractor, images, expected, engines):
    features = predict_all(extractor, {"train": images[:50], "validation": images[50:]}, 32, "features of ")
    assert list(features) == ["train", "validation"]
    assert_close(np.concatenate(list(features.values())), expected)
    assert len(engines) == 1


@pytest.fixture(scope="module")
def in_other_processes():
    """Maps in two processes of one thread each, which take two batches at a time."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("OMP_NUM_THREADS", "1")
            list(pool.map(time.sleep, [0.1, 0.1]))  # starts both
        yield partial(pool.map, chunksize=2)


@pytest.mark.slow
def test_other_processes_give_the_same_bits_in_the_same_order(monkeypatch, extractor, images, in_other_processes):
    found = []
    for pixels_that_pay in (0, 1e9):  # the converted model, then Keras
        monkeypatch.setattr(inference, "_PIXELS_THAT_PAY", pixels_that_pay)
        alone = list(predict_batches(extractor, images, 30, flip=True))
        shared = list(predict_batches(extractor, images, 30, flip=True, map_blocks=in_other_processes))
        assert [len(batch) for batch in shared] == [30, 30, 30, 10]
        np.testing.assert_array_equal(np.concatenate(shared), np.concatenate(alone))
        found.append(np.concatenate(shared))
    assert not np.array_equal(*found)  # so that one in the other's place would show


@pytest.mark.slow
def test_other_processes_read_several_arrays_and_make_augmented_views(extractor, images, in_other_processes):
    augmentation = Augmentation(AugmentationParameters(rotation=0.1, contrast=0.1, erasing=0.5))
    arrays = {"train": Views(images[:40], 2, augmentation, 1), "mirrored": mirrored(images), "one": images[:1]}
    alone = predict_all(extractor, arrays, 64)
    shared = predict_all(extractor, arrays, 64, map_blocks=in_other_processes)
    assert {name: len(outputs) for name, outputs in shared.items()} == {"train": 80, "mirrored": 100, "one": 1}
    for name, outputs in shared.items():
        np.testing.assert_array_equal(outputs, alone[name])


@pytest.mark.slow
def test_other_processes_compute_a_classifier_in_mixed_precision(images, in_other_processes):
    model = attach_head(build_backbone("EfficientNetLite0", 32, "none", dtype_policy="mixed_bfloat16"), 3, 0.2)
    shared = predict(model, images[:20], 16, map_blocks=in_other_processes)
    np.testing.assert_array_equal(shared, predict(model, images[:20], 16))


def test_squeeze_and_excitation_a_head_and_sizes_that_do_not_divide_evenly(engines):
    keras.utils.set_random_seed(0)
    model = attach_head(build_backbone("EfficientNetB0", 45, "none"), 3, 0.2)
    pixels = np.random.default_rng(0).integers(0, 256, (9, 45, 45, 3), dtype=np.uint8)
    assert_close(predict(model, pixels, 4), np.asarray(model(pixels, training=False)))
    assert len(engines) == 1


def test_part_of_a_network_gives_its_activations(lite0, images, engines):
    start = keras.Model(lite0.input, lite0.get_layer("block6d_add").output)
    activations = predict(start, images[:10], 4)
    assert activations.shape == (10, 1, 1, 192)
    assert_close(activations, np.asarray(start(images[:10], training=False)))
    rest = keras.Model(lite0.get_layer("block6d_add").output, lite0.output)
    assert_close(predict(rest, activations, 4), np.asarray(lite0(images[:10], training=False)))
    assert len(engines) == 2


def test_weights_that_change_between_two_calls_count(images):
    model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    before = predict(model, images, 64)
    model.set_weights([2 * weight for weight in model.get_weights()])
    np.testing.assert_allclose(predict(model, images, 64), 2 * before, rtol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_stays_with_keras_without_a_word(images, engines, caplog, policy):
    model = feature_extractor(build_backbone("EfficientNetLite0", 32, "none", dtype_policy=policy))
    assert predict(model, images[:4], 4).dtype == np.float32
    assert not engines
    assert not words(caplog)


def test_where_keras_compiles_it_computes(monkeypatch, images, engines):
    monkeypatch.setattr(inference, "use_jit", lambda: True)  # as on a GPU
    model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    assert_close(predict(model, images, 50), np.asarray(model(images)))
    assert model.jit_compile
    assert not engines


def test_few_images_stay_with_keras_without_a_word(monkeypatch, extractor, images, expected, engines, caplog):
    monkeypatch.setattr(inference, "_PIXELS_THAT_PAY", images[..., 0].size + 1)
    assert_close(predict(extractor, images, 64), expected)
    assert not engines
    assert not words(caplog)


def test_what_cannot_be_converted_is_computed_by_keras_with_a_word(images, caplog):
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, keras.ops.fft2((inputs, inputs))[0])
    expected = np.asarray(model(images, training=False))
    with caplog.at_level(logging.WARNING):
        np.testing.assert_allclose(predict(model, images, 64), expected, rtol=1e-3, atol=1)
    [line] = words(caplog)
    assert line.startswith("Keras is used instead of the faster XNNPACK: ")


def test_another_result_is_computed_by_keras_with_a_word(monkeypatch, extractor, images, expected, caplog):
    monkeypatch.setattr(Engine, "_run", lambda _self, images: np.zeros((len(images), 2064), "float32"))
    assert_close(predict(extractor, images, 64), expected)
    [line] = words(caplog)
    assert "the converted model's outputs differ by " in line


def test_a_converter_that_is_gone_is_no_failure(monkeypatch, extractor, images, expected, caplog):
    monkeypatch.setitem(sys.modules, "efficientnet_finetuning.models.litert", None)
    assert_close(predict(extractor, images, 64), expected)
    assert len(words(caplog)) == 1


def test_no_warning_of_tensorflows_own_shows(extractor, images):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Engine(extractor, images.shape[1:], 64)


@pytest.mark.slow
def test_other_backends_compute_without_tensorflow_and_without_a_word():
    pytest.importorskip("jax")
    script = """
import logging, sys
import keras, numpy as np
from efficientnet_finetuning.models import inference
inference._PIXELS_THAT_PAY = 0
logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
compiled = []
class Mean(keras.layers.Layer):
    def call(self, images):
        compiled.append(images.shape[0])
        return keras.ops.mean(images, (1, 2))
model = keras.Sequential([keras.Input((8, 8, 3)), Mean()])
compiled.clear()
images = np.arange(5, dtype=np.uint8).repeat(8 * 8 * 3).reshape(5, 8, 8, 3)
print(inference.predict(model, images, 2)[:, 0].tolist(), set(compiled), "tensorflow" in sys.modules)
"""
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300)
    # Each shape costs a compilation, on a GPU a minute for some networks, so the last batch has that of the others.
    assert done.stdout == "[0.0, 1.0, 2.0, 3.0, 4.0] {2} False\n", done.stderr[-2000:]
