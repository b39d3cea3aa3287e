import dataclasses

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.errors import InputError

RED, PURPLE = (200, 0, 0), (110, 100, 0)


def photo(color, size=(48, 40)) -> Image.Image:
    return Image.new("RGB", size, color)


def test_an_answer_names_the_likeliest_classes_with_calibrated_probabilities(classifier):
    answers = classifier.predict(photo(PURPLE), top=2)
    logits = np.array([*PURPLE]) / 50
    expected = np.exp(logits / 2) / np.exp(logits / 2).sum()
    assert list(answers.columns) == ["id", "class_1", "probability_1", "class_2", "probability_2", "answered", "reason"]
    (row,) = answers.itertuples()
    assert (row.class_1, row.class_2, row.reason) == ("red", "green", "")
    assert [row.probability_1, row.probability_2] == pytest.approx(expected[:2], abs=1e-3)


def test_it_answers_from_its_threshold_on(classifier):
    answered = classifier.predict([photo(RED), photo(PURPLE)])["answered"]
    assert list(answered) == [True, False]
    never, always = (dataclasses.replace(classifier, threshold=threshold) for threshold in (None, 0.0))
    assert not never.predict(photo(RED))["answered"].any()
    assert always.predict(photo(PURPLE))["answered"].all()


def test_mirror_images_count_where_the_classifier_says_so(classifier):
    half = np.zeros((32, 32, 3), np.uint8)
    half[:, :16] = RED
    half[:, 16:] = (0, 240, 0)
    assert classifier.predict(half)["class_1"][0] == "red"
    assert dataclasses.replace(classifier, flip=True).predict(half)["class_1"][0] == "green"


def test_a_photograph_that_cannot_be_read_is_a_row_of_its_own(classifier, tmp_path):
    photo(RED).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    photo((0, 200, 0)).save(tmp_path / "c.png")
    answers = classifier.predict(tmp_path, batch_size=2)
    assert list(answers["id"]) == ["a.png", "b.png", "c.png"]
    assert list(answers["class_1"]) == ["red", "", "green"]
    assert list(answers["reason"]) == ["", "empty: the file has no bytes", ""]
    assert list(answers["answered"]) == [True, False, True]
    assert answers["probability_1"].isna().tolist() == [False, True, False]


def test_paths_images_and_arrays_may_be_mixed(classifier, tmp_path):
    photo(RED).save(tmp_path / "a.png")
    answers = classifier.predict([str(tmp_path / "a.png"), tmp_path, photo(RED), np.asarray(photo(RED))])
    assert list(answers["id"]) == ["a.png", "a.png", "2", "3"]
    assert (answers["class_1"] == "red").all()


def test_batches_change_nothing(classifier):
    photos = [np.random.default_rng(row).integers(0, 256, (30, 30, 3), np.uint8) for row in range(11)]
    expected = classifier.predict(photos, batch_size=11)
    pd.testing.assert_frame_equal(classifier.predict(photos, batch_size=4), expected)
    assert list(expected["id"]) == [str(row) for row in range(11)]


def test_all_of_it_survives_a_save(classifier, tmp_path):
    classifier.save(tmp_path / "classifier.keras")
    loaded = Classifier.load(tmp_path / "classifier.keras")
    assert loaded.threshold == classifier.threshold
    pd.testing.assert_frame_equal(loaded.predict(photo(PURPLE)), classifier.predict(photo(PURPLE)))


def test_the_newest_champion_of_a_job_is_found(classifier, tmp_path):
    for version, threshold in (("2026-01-02", 0.2), ("2026-01-10", 0.1)):
        folder = tmp_path / "06_models" / "photos" / "champion_model.keras" / version
        folder.mkdir(parents=True)
        dataclasses.replace(classifier, threshold=threshold).save(folder / "champion_model.keras")
    assert Classifier.champion("photos", tmp_path).threshold == 0.1
    with pytest.raises(InputError, match=r"has no champion of the job 'photo'. Did you mean 'photos'"):
        Classifier.champion("photo", tmp_path)
