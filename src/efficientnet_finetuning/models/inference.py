"""Forward passes over arrays that may be larger than memory."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

from efficientnet_finetuning.device import use_jit

# Kedro resolves the annotations of nodes before it validates parameters, and importing Keras takes seconds.
KerasModel = Any


def predict(model: KerasModel, images: np.ndarray, batch_size: int, description: str = "predict") -> np.ndarray:
    """Outputs of ``model`` for every image exactly once, in the order of ``images``, the uneven last batch too.

    Args:
        model: a ``keras.Model``.
        images: ``(N, height, width, 3)`` pixels in 0–255, read batch by batch, so a memory map is fine.
        batch_size: images in a forward pass.
        description: what the progress bar says.

    Returns:
        float32 ``(N, …)``.
    """
    return np.concatenate(list(predict_batches(model, images, batch_size, description)))


def predict_batches(
    model: KerasModel, images: np.ndarray, batch_size: int, description: str = "predict"
) -> Iterator[np.ndarray]:
    """Likewise, batch by batch, where all outputs together would fill the memory."""
    # Not Model.predict: its input pipeline halves the throughput of small images on a CPU.
    model.jit_compile = use_jit()
    starts = range(0, len(images), batch_size)
    for start in tqdm(starts, desc=description, unit="batch", disable=None, leave=False):
        yield np.asarray(model.predict_on_batch(images[start : start + batch_size]), np.float32)
