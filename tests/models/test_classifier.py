import dataclasses
import zipfile

import keras
import numpy as np
import pytest

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.models.classifier import TrainedClassifier
from efficientnet_finetuning.models.heads import attach_head

NAMES = ("Köter", "柴犬", 'a "quoted"\nname')


@pytest.fixture(scope="module")
def classifier(lite0) -> TrainedClassifier:
    keras.utils.set_random_seed(0)
    return TrainedClassifier(attach_head(lite0, 3, 0.2), NAMES, "EfficientNetLite0", 32, "center_crop", "bilinear")


@pytest.fixture(scope="module")
def path(classifier, tmp_path_factory):
    path = tmp_path_factory.mktemp("classifier") / "classifier.keras"
    classifier.save(path)
    return path


@pytest.fixture(scope="module")
def loaded(path) -> TrainedClassifier:
    return TrainedClassifier.load(path)


def test_logits_and_metadata_survive_a_save(classifier, loaded, pixels):
    np.testing.assert_array_equal(loaded.model(pixels), classifier.model(pixels))
    for field in dataclasses.fields(TrainedClassifier):
        if field.name != "model":
            assert getattr(loaded, field.name) == getattr(classifier, field.name)


def test_plain_keras_reads_the_file_too(classifier, path, pixels):
    np.testing.assert_array_equal(keras.models.load_model(path)(pixels), classifier.model(pixels))


def test_bytes_and_floats_give_the_same_logits(loaded, pixels):
    expected = loaded.predict_logits(pixels)
    np.testing.assert_allclose(loaded.predict_logits(pixels.astype("float32")), expected, atol=1e-5)


def test_every_image_gets_its_own_row_whatever_the_batches(loaded, pixels):
    logits = loaded.predict_logits(pixels, batch_size=2)
    assert logits.shape == (5, 3)
    assert logits.dtype == np.float32
    alone = np.concatenate([loaded.predict_logits(pixels[[index]]) for index in range(5)])
    np.testing.assert_allclose(logits, alone, atol=1e-4)
    assert np.ptp(logits, axis=0).min() > 1e-2  # so that a row in the wrong place would show


def test_an_image_and_its_mirror_image_have_the_same_averaged_logits(loaded, pixels):
    averaging = dataclasses.replace(loaded, flip=True)
    plain, averaged = loaded.predict_logits(pixels), averaging.predict_logits(pixels)
    assert np.abs(averaged - plain).max() > 1e-3
    np.testing.assert_allclose(averaged, averaging.predict_logits(pixels[:, :, ::-1]), atol=1e-5)
    np.testing.assert_allclose(averaged, (plain + loaded.predict_logits(pixels[:, :, ::-1])) / 2, atol=1e-5)


def test_a_missing_classifier_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no classifier at .*absent\.keras"):
        TrainedClassifier.load(tmp_path / "absent.keras")


def test_a_file_cut_short_is_named(path, tmp_path):
    short = tmp_path / "short.keras"
    short.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"short\.keras is not a classifier that this project saved"):
        TrainedClassifier.load(short)


def test_a_file_with_a_damaged_byte_is_named(path, tmp_path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    damaged = tmp_path / "damaged.keras"
    damaged.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged\.keras"):
        TrainedClassifier.load(damaged)


@pytest.mark.parametrize("metadata", ["{", "{}", '{"class_names": ["a"], "colour": "red"}'])
def test_a_file_with_other_metadata_is_named(path, tmp_path, metadata):
    foreign = tmp_path / "foreign.keras"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(foreign, "w") as target:
        for name in source.namelist():
            target.writestr(name, metadata if name == "classifier.json" else source.read(name))
    with pytest.raises(InputError, match=r"foreign\.keras is not a classifier"):
        TrainedClassifier.load(foreign)


def test_a_keras_file_without_metadata_is_named(tmp_path):
    path = tmp_path / "plain.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(path)
    with pytest.raises(InputError, match=r"plain\.keras is not a classifier that this project saved.*classifier\.json"):
        TrainedClassifier.load(path)


@pytest.mark.parametrize(
    ("size", "names", "words"),
    [(64, NAMES, "takes images of 32 px, but these have 64 px"), (32, NAMES[::-1], "knows the classes")],
)
def test_images_of_another_set_are_refused_even_where_their_numbers_agree(classifier, size, names, words):
    classifier.check_fits(32, list(NAMES))
    with pytest.raises(InputError, match=words):
        classifier.check_fits(size, names)
