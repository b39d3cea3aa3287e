import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from efficientnet_finetuning.bundle.graph import answer_function, resize
from efficientnet_finetuning.data.decode import resize_to_square

SIZES = [(32, 32), (40, 30), (17, 90), (100, 33), (694, 234), (8, 400), (333, 500)]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("how", ["stretch", "center_crop", "pad"])
def test_the_graph_resizes_as_pillow_does(classifier, how, interpolation):
    rule = dataclasses.replace(classifier, resize=how, interpolation=interpolation, background="#204060")
    for width, height in SIZES:
        image = Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8))
        expected = np.asarray(resize_to_square(image, 32, how, interpolation, "#204060")).astype(int)
        got = resize(tf.constant(np.asarray(image), tf.float32), rule).numpy()
        difference = np.abs(got - expected)
        assert difference.max() <= 1, (width, height)
        # Pillow computes with integers: of two bilinear neighbours many means lie half-way.
        assert (difference > 0).mean() < (0.01 if interpolation == "bicubic" else 0.1)


@pytest.mark.parametrize("flip", [False, True])
def test_the_graph_answers_as_the_classifier_does(classifier, flip):
    using = dataclasses.replace(classifier, flip=flip)
    answer = answer_function(using)
    for row in range(5):
        photograph = np.random.default_rng(row).integers(0, 256, (60 + row, 40, 3), np.uint8)
        got = answer(tf.constant(photograph[None])).numpy()
        expected = using.predict(photograph, top=3).set_index("id")
        by_class = {expected[f"class_{place}"].iloc[0]: expected[f"probability_{place}"].iloc[0] for place in (1, 2, 3)}
        np.testing.assert_allclose(got[0], [by_class[name] for name in using.class_names], atol=1e-3)
