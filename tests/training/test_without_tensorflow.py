import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

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

from efficientnet_finetuning.models.classifier import TrainedClassifier
from efficientnet_finetuning.models.heads import assemble, dense_head, feature_extractor
from efficientnet_finetuning.models.inference import predict
from efficientnet_finetuning.parameters import AugmentationParameters, HeadParameters, TrainingParameters
from efficientnet_finetuning.training.fit import fit
from efficientnet_finetuning.training.head import fit_head

inputs = keras.Input((32, 32, 3))
x = keras.layers.Rescaling(1 / 128, offset=-127 / 128)(inputs)
x = keras.layers.Conv2D(8, 3, 4, use_bias=False, name="stem_conv")(x)
x = keras.layers.BatchNormalization(name="stem_bn")(x)
x = keras.layers.Conv2D(8, 3, 2, name="block1a_conv")(x)
backbone = keras.Model(inputs, x)
generator = np.random.default_rng(0)
labels = np.eye(2, dtype=np.uint8)[np.arange(20) % 2]
images = generator.integers(0, 156, (20, 32, 32, 3), dtype=np.uint8) + 99 * labels[:, :1, None, None]
data = images, labels

features = predict(feature_extractor(backbone), images, 8)
kernel, bias, *_ = fit_head(features, labels, features, labels, HeadParameters(inverse_regularizations=(1.0,)))
transfer = assemble(backbone, dense_head(kernel, bias), 0.2)
options = dict(epochs=2, batch_size=8, learning_rate=0.001)
augmentation = AugmentationParameters(translation=0.1, rotation=0.1, contrast=0.1)
whole, history, _ = fit(
    transfer,
    "EfficientNetLite0",
    data,
    data,
    TrainingParameters(**options, stage_decay=0.5, augmentation=augmentation),
    seed=0,
)
upper, *_ = fit(
    whole,
    "EfficientNetLite0",
    data,
    data,
    TrainingParameters(**options, unfreeze_from="block1a", cached_views=2),
    seed=0,
)
classifier = TrainedClassifier(upper, ("a", "b"), "EfficientNetLite0", 32, "stretch", "bicubic", flip=True)
accuracy = (classifier.predict_logits(images, 8).argmax(1) == labels.argmax(1)).mean()
print(keras.backend.backend(), len(history), accuracy, "tensorflow" in sys.modules)
"""


def test_the_ladder_runs_on_jax_where_there_is_no_tensorflow():
    pytest.importorskip("jax")
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.stdout.split("\n")[-2:] == ["jax 2 1.0 False", ""], done.stderr[-2000:]
