from io import BytesIO

import keras
import numpy as np
import pytest
from PIL import Image

from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.bundle.explain import Answer, Fault, Neighbours, explain, samples
from efficientnet_finetuning.data.encoded import EncodedImage
from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.models.heads import attach_head


@pytest.fixture(scope="module", params=["stretch", "center_crop", "pad"])
def colours(request) -> Classifier:
    """Its logits are the mean colours of an image, which it sees in 4 × 4 places."""
    inputs = keras.Input((32, 32, 3))
    model = attach_head(keras.Model(inputs, keras.layers.AveragePooling2D(8)(inputs)), 3, 0.0)
    model.get_layer("logits").set_weights([np.eye(3, dtype=np.float32) / 5, np.zeros(3, np.float32)])
    return Classifier(
        model, ("red", "green", "blue"), "EfficientNetLite0", 32, request.param, "bilinear", "#000000", flip=True
    )


def encoded(pixels: np.ndarray, name: str = "photo.png") -> EncodedImage:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return EncodedImage(name, stream.getvalue())


def test_the_evidence_is_brightest_where_the_class_is_seen(colours):
    pixels = np.zeros((200, 300, 3), np.uint8)
    pixels[20:60, 200:250, 2] = 255
    (answer,) = explain(colours, [encoded(pixels)])
    assert isinstance(answer, Answer)
    assert answer.classes[0] == "blue"
    assert answer.photograph.size == (300, 200)
    assert answer.evidence.size == (480, 480)
    grey = np.asarray(answer.evidence).sum(-1)
    row, column = np.unravel_index(grey.argmax(), grey.shape)
    assert row < 240 < column


def test_its_probabilities_are_those_of_the_classifier(colours):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8)
    (answer,) = explain(colours, [encoded(pixels)])
    assert isinstance(answer, Answer)
    expected = colours.predict([pixels])
    assert answer.classes == tuple(expected[f"class_{place}"][0] for place in (1, 2, 3))
    assert answer.probabilities == tuple(expected[f"probability_{place}"][0] for place in (1, 2, 3))


def test_answers_stay_in_the_order_of_the_photographs(colours):
    red, green = (np.full((40, 40, 3), colour, np.uint8) for colour in ((200, 0, 0), (0, 200, 0)))
    results = explain(
        colours, [EncodedImage("a", b"text"), encoded(red, "b"), EncodedImage("c", b""), encoded(green, "d")]
    )
    assert [result.name for result in results] == ["a", "b", "c", "d"]
    assert [type(result) for result in results] == [Fault, Answer, Fault, Answer]
    assert [result.classes[0] for result in results if isinstance(result, Answer)] == ["red", "green"]


def test_the_nearest_images_are_of_the_class_and_the_image_itself_comes_first(colours):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (60, 1, 1, 3), np.uint8) * np.ones((1, 32, 32, 1), np.uint8)
    labels = np.arange(60) % 3
    train = Examples(images, np.eye(3, dtype=np.uint8)[labels], labels.astype(str))
    neighbours = Neighbours.of(colours, train)
    first, none = neighbours.nearest(images[[7, 8]], [1, 5], 4)
    assert first.shape == (4, 32, 32, 3)
    np.testing.assert_array_equal(first[0], images[7])
    assert all(any((image == other).all() for other in images[labels == 1]) for image in first)
    assert len(none) == 0


def test_no_more_than_500_training_images_are_looked_through(colours):
    labels = np.arange(1200) % 3
    train = Examples(np.zeros((1200, 32, 32, 3), np.uint8), np.eye(3, dtype=np.uint8)[labels], labels.astype(str))
    assert np.bincount(Neighbours.of(colours, train).labels).tolist() == [166, 166, 166]


def test_samples_are_one_of_each_of_the_first_classes(colours):
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 3), np.uint8)
    test = Examples(images, np.eye(3, dtype=np.uint8)[[2, 2, 0, 0, 1, 1]], np.arange(6).astype(str))
    first, second = samples(colours, test, 2)
    assert (first.id, second.id) == ("A test image of red", "A test image of green")
    assert np.asarray(Image.open(first.open())).max() == 2
