"""A network that trains in seconds."""

import keras
import pytest

from efficientnet_finetuning.models.heads import attach_head


@pytest.fixture(scope="package")
def start() -> keras.Model:
    """Three blocks that are named as Lite0's are, and two classes: tracing Lite0 itself takes many seconds a test."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 128, offset=-127 / 128, name="scaling")(inputs)
    for block in ("stem", "block1a", "block2a"):
        x = keras.layers.Conv2D(8, 3, 2, "same", use_bias=False, name=f"{block}_conv")(x)
        x = keras.layers.BatchNormalization(name=f"{block}_bn")(x)
        x = keras.layers.Activation("swish", name=f"{block}_activation")(x)
    branch = keras.layers.Conv2D(8, 1, use_bias=False, name="block2b_conv")(x)
    branch = keras.layers.Dropout(0.1, noise_shape=(None, 1, 1, 1), name="block2b_drop")(branch)
    x = keras.layers.Add(name="block2b_add")([x, branch])
    x = keras.layers.Conv2D(16, 1, use_bias=False, name="top_conv")(x)
    return attach_head(keras.Model(inputs, x, name="tiny"), 2, 0.2)
