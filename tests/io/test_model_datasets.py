import json
import zipfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from kedro.io import DatasetError, Version

from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.io.models import ChampionDataset, ClassifierDataset, KerasModelDataset
from efficientnet_finetuning.models.classifier import TrainedClassifier

VERSION = "2026-01-01T00.00.00.000Z"
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    scaled = keras.layers.Rescaling(1 / 255)(inputs)
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(scaled))
    return keras.Model(inputs, keras.layers.Dense(3)(pooled))


@pytest.fixture
def classifier(model) -> TrainedClassifier:
    return TrainedClassifier(
        model, ("Äpfel", "NA", "birnen"), "EfficientNetLite0", 8, "center_crop", "bilinear", "#102030", "balanced"
    )


def dataset(kind: type, folder: Path, save: str | None = None):
    return kind(filepath=str(folder / "model.keras"), version=Version(None, save))


def test_a_keras_model_gives_the_same_outputs_after_it_is_loaded(tmp_path, model):
    dataset(KerasModelDataset, tmp_path, VERSION).save(model)
    loaded = dataset(KerasModelDataset, tmp_path).load()
    assert np.array_equal(loaded.predict_on_batch(IMAGES), model.predict_on_batch(IMAGES))
    assert [path.name for path in (tmp_path / "model.keras" / VERSION).glob("*.keras")] == ["model.keras"]


def test_a_classifier_keeps_its_outputs_and_all_that_one_must_know_to_use_it(tmp_path, classifier):
    assert not dataset(ClassifierDataset, tmp_path).exists()
    dataset(ClassifierDataset, tmp_path, VERSION).save(classifier)
    loaded = dataset(ClassifierDataset, tmp_path).load()
    assert np.array_equal(loaded.predict_logits(IMAGES, 2), classifier.predict_logits(IMAGES, 2))
    for name in ("class_names", "backbone", "image_size", "resize", "interpolation", "background", "class_weight"):
        assert getattr(loaded, name) == getattr(classifier, name)


def test_a_classifier_is_read_by_others_than_the_process_that_saved_it(tmp_path, classifier):
    saving = dataset(ClassifierDataset, tmp_path, VERSION)
    saving.save(classifier)
    assert saving.load() is classifier
    assert dataset(ClassifierDataset, tmp_path).load() is not classifier


def test_a_classifier_that_could_not_be_stored_is_not_handed_out(tmp_path, classifier):
    dataset(ClassifierDataset, tmp_path, VERSION).save(classifier)
    saving = dataset(ClassifierDataset, tmp_path, VERSION.replace("2026", "2027"))
    (tmp_path / "model.keras" / VERSION.replace("2026", "2027")).write_text("in the way")
    with pytest.raises(DatasetError):
        saving.save(replace(classifier, temperature=2.0))
    loaded = saving.load()
    assert loaded.temperature == classifier.temperature


def test_a_classifiers_file_opens_with_plain_keras_and_any_zip_reader(tmp_path, classifier):
    dataset(ClassifierDataset, tmp_path, VERSION).save(classifier)
    file = tmp_path / "model.keras" / VERSION / "model.keras"
    logits = keras.models.load_model(file, safe_mode=True).predict_on_batch(IMAGES)
    assert np.array_equal(logits, classifier.predict_logits(IMAGES))
    with zipfile.ZipFile(file) as archive:
        assert json.loads(archive.read("classifier.json"))["class_names"] == ["Äpfel", "NA", "birnen"]


def test_a_model_that_is_no_classifier_of_this_project_is_refused_and_named(tmp_path, model):
    dataset(KerasModelDataset, tmp_path, VERSION).save(model)
    with pytest.raises(DatasetError, match=r"model\.keras is not a classifier that this project saved"):
        dataset(ClassifierDataset, tmp_path).load()


def test_a_model_on_the_way_is_stored_as_it_was_whoever_reads_it(tmp_path, classifier):
    """What a training made, and what a resumed run makes of what it has read, are the same file."""
    dataset(ClassifierDataset, tmp_path, VERSION).save(classifier)
    stored = dataset(ClassifierDataset, tmp_path)
    again = dataset(ClassifierDataset, tmp_path / "again", VERSION)
    again.save(replace(stored.load(), model=classifier.model))
    assert again.content() == stored.content()


def test_a_champion_is_read_with_its_limits(tmp_path, classifier):
    champion = Classifier(**classifier.__dict__, threshold=0.6, references=np.eye(3, dtype=np.float16))
    dataset(ChampionDataset, tmp_path, VERSION).save(champion)
    loaded = dataset(ChampionDataset, tmp_path).load()
    assert loaded.threshold == 0.6
    assert np.array_equal(loaded.references, champion.references)
