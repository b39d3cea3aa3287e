import dataclasses

import keras
import numpy as np
import pytest

from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.bundle.new_class import add_class, features_of, read_photographs
from efficientnet_finetuning.bundle.novelty import directions
from efficientnet_finetuning.bundle.photographs import find_photographs
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.models.heads import attach_head

GENERATOR = np.random.default_rng(0)
COLOURS = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}


def coloured(name: str, count: int) -> np.ndarray:
    noise = GENERATOR.integers(-30, 30, (count, 32, 32, 3))
    return (np.array(COLOURS[name]) + noise).astype(np.uint8)


@pytest.fixture(scope="module")
def champion() -> Classifier:
    """It knows red and green, by the colours' averages."""
    inputs = keras.Input((32, 32, 3))
    scaled = keras.layers.Rescaling(1 / 255)(inputs)
    model = attach_head(keras.Model(inputs, scaled, name="colours"), 2, 0.1)
    model.get_layer("logits").set_weights([10 * np.eye(3, 2, dtype=np.float32), np.zeros(2, np.float32)])
    plain = Classifier(model, ("red", "green"), "EfficientNetLite0", 32, "stretch", "bilinear", flip=True)
    seen = features_of(plain, {"red": coloured("red", 10)}, 8)["red"]
    return dataclasses.replace(plain, references=directions(seen.last_map), reference_labels=np.zeros(10, int))


@pytest.fixture(scope="module")
def learnt(champion) -> dict[str, np.ndarray]:
    labels = np.repeat([0, 1], 30)
    images = {part: np.concatenate([coloured("red", 30), coloured("green", 30)]) for part in ("known", "test")}
    seen = features_of(champion, images, 16)
    return {
        "head_inputs": seen["known"].head_inputs,
        "labels": labels,
        "held_out_logits": seen["known"].logits,
        "test_head_inputs": seen["test"].head_inputs,
        "test_labels": labels,
    }


def test_a_class_is_added_and_the_others_stay_what_they_were(champion, learnt, tmp_path):
    blue = coloured("blue", 8)
    wider, found = add_class(champion, learnt, "blue", blue, max_loss=0.003)
    assert wider.class_names == ("red", "green", "blue")
    assert (found["num_photographs"], found["num_recognized"], found["num_test_images"]) == (8, 8, 60)
    assert found["before"] == found["after"] == 1
    assert (
        "The class blue was added. A model that was not trained on them recognizes 8 of its 8 photographs."
        in found["words"]
    )
    wider.save(tmp_path / "wider.keras")
    carried = Classifier.load(tmp_path / "wider.keras")
    images = np.concatenate([coloured(name, 3) for name in COLOURS])
    answers = carried.predict(list(images))
    assert list(answers["class_1"]) == ["red"] * 3 + ["green"] * 3 + ["blue"] * 3
    assert carried.predict_logits(images)[:, :2] == pytest.approx(champion.predict_logits(images), abs=1e-4)
    assert answers["distance"][6:].max() < 0.01, "its photographs are among the references"
    assert champion.class_names == ("red", "green"), "the champion is what it was"


def test_a_class_that_is_known_is_refused(champion, learnt):
    with pytest.raises(InputError, match="has the class 'red' already"):
        add_class(champion, learnt, "red", coloured("red", 4), max_loss=0.003)


def test_photographs_that_cannot_be_read_are_named(champion, tmp_path):
    (tmp_path / "one").mkdir()
    keras.utils.save_img(tmp_path / "one" / "good.png", coloured("blue", 1)[0])
    (tmp_path / "one" / "bad.jpg").write_text("no image")
    with pytest.raises(InputError, match=r"there are 1\. Not readable: bad.jpg \(undecodable"):
        read_photographs(champion, find_photographs(tmp_path / "one"))
    keras.utils.save_img(tmp_path / "one" / "better.png", coloured("blue", 1)[0])
    squares, unreadable = read_photographs(champion, find_photographs(tmp_path / "one"))
    assert squares.shape == (2, 32, 32, 3)
    assert list(unreadable) == ["bad.jpg"]
