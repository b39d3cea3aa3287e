"""Class activation maps: which parts of an image support a class."""

import keras
import numpy as np

from efficientnet_finetuning.models.heads import averaged_maps, from_features


def class_activation_maps(
    model: keras.Model, images: np.ndarray, classes: np.ndarray, batch_size: int = 64
) -> np.ndarray:
    """How much each part of an image contributes to the logit of a class.

    The head is applied at every position, before pooling. It is linear in the pooled features, so the mean of a map is
    exactly the logit, and Grad-CAM would differ only by a scale. Source: Zhou et al. 2016, arXiv:1512.04150.

    Args:
        model: from pixels in 0–255 to logits.
        images: pixels ``(N, size, size, 3)``.
        classes: a class index per image ``(N,)``.
        batch_size: images in a forward pass.

    Returns:
        float32 ``(N, height, width)`` in the size of the last feature map: size / 32, rounded up.
    """
    outputs = averaged_maps(model)
    network = keras.Model(model.input, outputs)
    size = outputs[-1].shape[1:3]
    maps = []
    for start in range(0, len(images), batch_size):
        # Not compiled: that would take longer than computing the few images.
        batch = keras.tree.flatten(network(images[start : start + batch_size], training=False))
        parts = [keras.ops.convert_to_numpy(part).astype(np.float32) for part in batch]
        maps.append(np.concatenate([_averaged(part, size) for part in parts], axis=-1))
    features = np.concatenate(maps)
    at_positions = features.reshape(-1, features.shape[-1])
    for layer in from_features(model):
        at_positions = layer(at_positions, training=False)
    logits = keras.ops.convert_to_numpy(at_positions).reshape(*features.shape[:3], -1)
    return logits[np.arange(len(images)), :, :, classes]


def _averaged(feature_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Shrink a feature map ``(N, height, width, channels)`` by averaging areas, which keeps its mean."""
    rows, columns = (_areas(before, after) for before, after in zip(feature_map.shape[1:3], size, strict=True))
    return np.einsum("ih,nhwc,jw->nijc", rows, feature_map, columns, optimize=True)


def _areas(before: int, after: int) -> np.ndarray:
    """Weights of ``before`` cells in each of ``after`` cells."""
    edges = np.arange(after + 1) * before / after
    cells = np.arange(before)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return (np.maximum(overlap, 0) * after / before).astype(np.float32)
