import dataclasses

import keras
import numpy as np
import pytest

from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.bundle.new_class import add_class, features_of, read_photographs
from efficientnet_finetuning.bundle.novelty import directions
from efficientnet_finetuning.bundle.photographs import find_photographs
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.models.heads import attach_head, logits_of
from efficientnet_finetuning.training.new_class import fit_new_class

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
    model.get_layer("logits").set_weights([10 * np.eye(3, 2, dtype=np.float32), np.array([0.8, -0.8], np.float32)])
    plain = Classifier(model, ("red", "green"), "EfficientNetLite0", 32, "stretch", "bilinear", flip=True)
    seen = features_of(plain, {"red": coloured("red", 10)}, 8)["red"]
    return dataclasses.replace(plain, references=directions(seen.last_map), reference_labels=np.zeros(10, np.int32))


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


def test_the_new_column_is_the_one_that_was_fitted_and_its_photographs_are_references(champion, learnt):
    blue = coloured("blue", 8)
    wider, _ = add_class(champion, learnt, "blue", blue, max_loss=0.003)
    kernel, bias = logits_of(champion.model)
    new = features_of(champion, {"blue": blue}, 8)["blue"]
    column = fit_new_class(
        (learnt["head_inputs"], learnt["head_inputs"] @ kernel + bias),
        (new.head_inputs, new.logits),
        learnt["labels"],
        learnt["held_out_logits"],
        0.003,
    )
    wide_kernel, wide_bias = logits_of(wider.model)
    np.testing.assert_allclose(wide_kernel, np.c_[kernel, column.kernel], rtol=1e-5)
    np.testing.assert_allclose(wide_bias, np.r_[bias, column.bias], rtol=1e-5)
    np.testing.assert_allclose(wider.references[10:], directions(new.last_map), atol=1e-6)
    np.testing.assert_array_equal(wider.reference_labels, np.repeat(np.array([0, 2], np.int32), [10, 8]), strict=True)


def test_test_images_that_the_new_class_takes_away_are_counted(champion, learnt):
    bluish = features_of(champion, {"bluish": coloured("blue", 5)}, 8)["bluish"]
    mixed = learnt | {
        "test_head_inputs": np.concatenate([learnt["test_head_inputs"], bluish.head_inputs]),
        "test_labels": np.append(learnt["test_labels"], [0] * 5),
    }
    _, found = add_class(champion, mixed, "blue", coloured("blue", 8), max_loss=0.003)
    assert (found["class"], found["num_test_images"]) == ("blue", 65)
    assert found["before"] == 1, "the champion calls them red"
    assert found["after"] == pytest.approx(60 / 65)
    assert found["difference"] == pytest.approx(-5 / 65)
    assert (
        "Of 65 test images of the other classes, 100.0 % were predicted correctly before and 92.3 % are now"
        in (found["words"])
    )
    interval = f"95 % interval {100 * found['low']:.1f} to {100 * found['high']:.1f}"
    assert found["words"].endswith(f"(-7.7 points, {interval}).")


def test_features_are_averaged_over_mirror_images_as_the_predictions_are():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, 3))
    scaled = keras.layers.Rescaling(1 / 255)(inputs)
    shapes = keras.layers.Conv2D(4, 3, activation="relu")(scaled)
    model = attach_head(keras.Model(inputs, shapes, name="shapes"), 2, 0.1)
    plain, averaged = (
        Classifier(model, ("red", "green"), "EfficientNetLite0", 32, "stretch", "bilinear", flip=flip)
        for flip in (False, True)
    )
    images = coloured("red", 3)
    images[:, :, 16:] = 0
    both = features_of(plain, {"as it is": images, "mirrored": images[:, :, ::-1]}, 2)
    for mean, one, other in zip(features_of(averaged, {"": images}, 2)[""], *both.values(), strict=True):
        np.testing.assert_allclose(mean, (one + other) / 2, rtol=1e-4, atol=1e-5)
        assert np.abs(one - other).max() > 1e-3


def test_a_champion_without_references_gets_none(champion, learnt):
    plain = dataclasses.replace(champion, references=None, reference_labels=None)
    assert add_class(plain, learnt, "blue", coloured("blue", 4), max_loss=0.003)[0].references is None


@pytest.mark.parametrize("name", ["", "  ", "blue\nred"])
def test_a_name_that_cannot_be_shown_is_refused(champion, learnt, name):
    with pytest.raises(InputError, match=r"cannot be the name of a class\. Set add_class\.name"):
        add_class(champion, learnt, name, coloured("blue", 4), max_loss=0.003)


def test_a_class_that_is_known_is_refused(champion, learnt):
    with pytest.raises(InputError, match="has the class 'red' already"):
        add_class(champion, learnt, "red", coloured("red", 4), max_loss=0.003)


def test_photographs_that_cannot_be_read_are_named(champion, tmp_path):
    (tmp_path / "one").mkdir()
    keras.utils.save_img(tmp_path / "one" / "good.png", coloured("blue", 1)[0])
    (tmp_path / "one" / "bad.jpg").write_text("no image")
    with pytest.raises(InputError, match=r"there are 1\. Not readable: bad.jpg \(undecodable"):
        read_photographs(champion, find_photographs(tmp_path / "one"))
    (tmp_path / "two").mkdir()
    keras.utils.save_img(tmp_path / "two" / "good.png", coloured("blue", 1)[0])
    with pytest.raises(InputError, match=r"there are 1\.$"):
        read_photographs(champion, find_photographs(tmp_path / "two"))
    keras.utils.save_img(tmp_path / "one" / "better.png", coloured("blue", 1)[0])
    squares, unreadable = read_photographs(champion, find_photographs(tmp_path / "one"))
    assert squares.shape == (2, 32, 32, 3)
    assert list(unreadable) == ["bad.jpg"]
