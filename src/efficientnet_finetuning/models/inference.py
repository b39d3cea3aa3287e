"""Forward passes over arrays that may be larger than memory."""

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
    # Not Model.predict: its input pipeline halves the throughput of small images on a CPU.
    model.jit_compile = use_jit()
    starts = range(0, len(images), batch_size)
    batches = tqdm(starts, desc=description, unit="batch", disable=None, leave=False)
    return np.concatenate(
        [np.asarray(model.predict_on_batch(images[start : start + batch_size]), np.float32) for start in batches]
    )
