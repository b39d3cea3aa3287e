import os
import subprocess
import sys

import pytest

SCRIPT = """
import importlib.abc
import sys


class NoTensorFlow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "tensorflow_datasets"):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)


sys.meta_path.insert(0, NoTensorFlow())

import keras
import numpy as np

from efficientnet_finetuning.models.classifier import Classifier
from efficientnet_finetuning.models.heads import attach_head
from efficientnet_finetuning.parameters import AugmentationParameters, TrainingParameters
from efficientnet_finetuning.training.fit import fit

inputs = keras.Input((32, 32, 3))
x = keras.layers.Rescaling(1 / 128, offset=-127 / 128)(inputs)
x = keras.layers.Conv2D(4, 3, 4, name="stem_conv")(x)
start = attach_head(keras.Model(inputs, x), 2, 0.2)
images = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
labels = np.eye(2, dtype=np.uint8)[np.arange(10) % 2]
parameters = TrainingParameters(
    epochs=2,
    batch_size=4,
    learning_rate=0.01,
    augmentation=AugmentationParameters(translation=0.1, rotation=0.1, contrast=0.1),
)
model, history = fit(start, "EfficientNetLite0", (images, labels), (images, labels), parameters, seed=0)
logits = Classifier(model, ("a", "b"), "EfficientNetLite0", 32, "stretch", "bicubic").predict_logits(images, 4)
print(keras.backend.backend(), len(history), logits.shape, "tensorflow" in sys.modules)
"""


def test_training_needs_no_tensorflow():
    pytest.importorskip("jax")
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.stdout.split("\n")[-2:] == ["jax 2 (10, 2) False", ""], done.stderr[-2000:]
