"""Size and speed of a network."""

import math
import tempfile
from pathlib import Path

import keras
import numpy as np

from efficientnet_finetuning.device import seconds_of, use_jit

# Large images take longer and vary less, so the time is limited too.
_ROUNDS, _ENOUGH_SECONDS = 3, 1.0


def cost_of(model: keras.Model) -> dict[str, float]:
    """Size and speed of a network, from pixels in 0–255 to logits, on this machine.

    Returns:
        ``parameters``; ``gflops`` per image (a multiplication with an addition counts as two; activations and sums are
        ignored); ``file_megabytes`` of its ``.keras`` file; and ``milliseconds_per_image_batch_1`` and ``_64`` of a
        forward pass of Keras, the best of a few.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.keras"
        model.save(file)
        size = file.stat().st_size
    return {
        "parameters": model.count_params(),
        "gflops": 2 * sum(map(_multiplications, model.layers)) / 1e9,
        "file_megabytes": size / 1e6,
        "milliseconds_per_image_batch_1": _milliseconds(model, 1),
        "milliseconds_per_image_batch_64": _milliseconds(model, 64),
    }


def _multiplications(layer: keras.Layer) -> int:
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return math.prod(layer.output.shape[1:]) * math.prod(layer.kernel_size)
    if isinstance(layer, keras.layers.Conv2D):
        return math.prod(layer.output.shape[1:]) * math.prod(layer.kernel.shape[:3])
    return math.prod(layer.kernel.shape) if isinstance(layer, keras.layers.Dense) else 0


def _milliseconds(model: keras.Model, batch_size: int) -> float:
    images = np.random.default_rng(0).integers(0, 256, (batch_size, *model.input_shape[1:]), np.uint8)
    model.jit_compile = use_jit()
    return 1000 * min(seconds_of(lambda: model.predict_on_batch(images), _ROUNDS, _ENOUGH_SECONDS)) / batch_size
