"""Where in an image a classifier sees a class."""

import keras
import numpy as np


def class_activation_maps(
    model: keras.Model, images: np.ndarray, classes: np.ndarray, batch_size: int = 64
) -> np.ndarray:
    """How much each part of an image speaks for a class: the head, applied before pooling at every position.

    A head of this project is linear in the pooled features, so the mean of a map is the class' logit exactly, and
    Grad-CAM would give the same map up to scale. Source: Zhou et al. 2016, arXiv:1512.04150.

    Args:
        model: from pixels in 0–255 to logits, as :func:`~efficientnet_finetuning.models.heads.attach_head` makes it.
        images: pixels ``(N, size, size, 3)``.
        classes: a class index for each image ``(N,)``.
        batch_size: images in a forward pass.

    Returns:
        float32 ``(N, height, width)`` of the last feature map: size / 32, rounded up.
    """
    pooling = model.get_layer("avg_pool")
    network = keras.Model(model.input, pooling.input)
    # Called as it is: for the few images that a person looks at, compiling would take longer.
    maps = [network(images[start : start + batch_size], training=False) for start in range(0, len(images), batch_size)]
    features = np.concatenate([keras.ops.convert_to_numpy(batch) for batch in maps]).astype(np.float32)
    at_positions = features.reshape(-1, features.shape[-1])
    for layer in model.layers[model.layers.index(pooling) + 1 :]:
        at_positions = layer(at_positions, training=False)
    logits = keras.ops.convert_to_numpy(at_positions).reshape(*features.shape[:3], -1)
    return logits[np.arange(len(images)), :, :, classes]
