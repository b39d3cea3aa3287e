"""A whole classifier as one TensorFlow graph, from a photograph of any size to probabilities.

Pillow's resize with anti-aliasing becomes two matrix products, because every format supports these. The graph computes
their weights from the photograph's size. Values differ from Pillow's by at most 1 of 255.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from efficientnet_finetuning.models.classifier import TrainedClassifier

Tensor = Any

_BICUBIC = -0.5  # Pillow's parameter of the cubic filter
_SUPPORT = {"bicubic": 2.0, "bilinear": 1.0}


def answer_function(classifier: TrainedClassifier, *, any_size: bool = True) -> Callable[[Tensor], Tensor]:
    """The classifier's prediction for one photograph, with its resize rule, mirror images and temperature.

    Returns:
        A function from uint8 pixels ``(1, height, width, 3)``, upright RGB, to float32 probabilities ``(1,
        num_classes)``. Without ``any_size`` it takes only squares of ``image_size``.
    """

    def answer(photograph: Tensor) -> Tensor:
        pixels = tf.cast(photograph, tf.float32)
        if any_size:
            pixels = resize(pixels[0], classifier)[None]
        if classifier.flip:
            pixels = tf.concat([pixels, tf.reverse(pixels, [2])], 0)
        logits = tf.reduce_mean(classifier.model(pixels, training=False), 0, keepdims=True)
        return tf.nn.softmax(logits / classifier.temperature)

    return answer


def resize(pixels: Tensor, rule: TrainedClassifier) -> Tensor:
    """Resize one photograph, float32 ``(height, width, 3)`` in 0–255, to ``(image_size, image_size, 3)``."""
    size, sides = rule.image_size, tf.cast(tf.shape(pixels), tf.float32)
    height, width = sides[0], sides[1]
    longer, shorter = tf.maximum(height, width), tf.minimum(height, width)
    background = tf.constant([int(rule.background[place : place + 2], 16) for place in (1, 3, 5)], tf.float32)

    def side(length: Tensor) -> tuple[Tensor, Tensor]:
        if rule.resize == "center_crop":
            return _weights(length, shorter, (length - shorter) / 2, size, rule.interpolation)
        if rule.resize == "stretch":
            return _weights(length, length, 0.0, size, rule.interpolation)
        inside = tf.maximum(tf.round(size * length / longer), 1.0)
        return _weights(length, length, 0.0, size, rule.interpolation, inside)

    across, inside_across = side(width)
    down, inside_down = side(height)
    rows = tf.reshape(tf.transpose(pixels, [0, 2, 1]), [-1, tf.shape(pixels)[1]])  # (height × 3, width)
    rows = _to_bytes(tf.matmul(rows, across, transpose_b=True))
    columns = tf.reshape(rows, [-1, 3 * size])  # (height, 3 × size)
    square = _to_bytes(tf.matmul(down, columns))
    square = tf.transpose(tf.reshape(square, [size, 3, size]), [0, 2, 1])
    if rule.resize != "pad":
        return square
    inside = (inside_down[:, None] * inside_across[None])[..., None]
    return square * inside + background * (1.0 - inside)


def _weights(
    length: Tensor, taken: Tensor, start: Tensor | float, size: int, interpolation: str, inside: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Weights ``(size, length)`` of Pillow's resize of one side, and which pixels it covers, 1 or 0 ``(size,)``.

    Resizes ``taken`` pixels from ``start`` on, out of ``length``, to the ``inside`` middle pixels out of ``size``, or
    to all.
    """
    target = tf.range(size, dtype=tf.float32)
    covered = tf.ones([size])
    if inside is None:
        inside = tf.constant(float(size))
    else:
        target -= tf.floor((size - inside) / 2)
        covered = tf.cast((target >= 0) & (target < inside), tf.float32)
    scale = taken / inside
    stretched = tf.maximum(scale, 1.0)
    reach = _SUPPORT[interpolation] * stretched
    center = start + (target + 0.5) * scale
    source = tf.range(length)
    first, last = tf.floor(tf.maximum(center - reach + 0.5, 0.0)), tf.floor(tf.minimum(center + reach + 0.5, length))
    weights = _filter(tf.abs((source[None] + 0.5 - center[:, None]) / stretched), interpolation)
    weights *= tf.cast((source[None] >= first[:, None]) & (source[None] < last[:, None]), tf.float32)
    total = tf.reduce_sum(weights, 1, keepdims=True)
    return weights / tf.where(total == 0.0, 1.0, total), covered  # rows of the padding have no weights


def _filter(distance: Tensor, interpolation: str) -> Tensor:
    if interpolation == "bilinear":
        return tf.maximum(1.0 - distance, 0.0)
    near = ((_BICUBIC + 2) * distance - (_BICUBIC + 3)) * distance * distance + 1
    far = (((distance - 5) * distance + 8) * distance - 4) * _BICUBIC
    return tf.where(distance < 1, near, tf.where(distance < 2, far, 0.0))


def _to_bytes(values: Tensor) -> Tensor:
    return tf.clip_by_value(tf.floor(values + 0.5), 0.0, 255.0)
