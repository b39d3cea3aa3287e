import importlib.util
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pytest

from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.data.examples import Examples

CLASSES = ("red", "green", '=cmd|"/c calc"!A1')


@pytest.fixture(scope="session")
def nasty() -> ModuleType:
    """The folder with one of every fault: see ``tests/nasty.py``."""
    spec = importlib.util.spec_from_file_location("nasty", Path(__file__).parents[1] / "nasty.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def classifier() -> Classifier:
    """Its classes are the colours of an image's left half, its logits how bright they are there."""
    inputs = keras.Input((32, 32, 3))
    left = keras.layers.Cropping2D(((0, 0), (0, 16)))(inputs)
    brightness = keras.layers.GlobalAveragePooling2D()(left)
    logits = keras.layers.Dense(3, use_bias=False)
    model = keras.Model(inputs, logits(brightness))
    logits.set_weights([np.eye(3, dtype=np.float32) / 50])
    return Classifier(model, CLASSES, "EfficientNetLite0", 32, "stretch", "bilinear", temperature=2.0, threshold=0.7)


@pytest.fixture(scope="session")
def test_images() -> Examples:
    """Twelve squares, each with the colour of its class."""
    labels = np.arange(12) % 3
    images = np.random.default_rng(0).integers(0, 120, (12, 32, 32, 3), np.uint8)
    images[np.arange(12), :, :, labels] += 100
    return Examples(images, np.eye(3, dtype=np.uint8)[labels], np.array([f"{row}.png" for row in range(12)]))
