"""A head on a backbone: features, logits, and the rates that regularize them while training."""

from collections.abc import Callable

import keras
import numpy as np

DROP_CONNECT_SUFFIX = "_drop"
HEAD_DROPOUT = "head_dropout"


def feature_extractor(backbone: keras.Model) -> keras.Model:
    """The backbone with average pooling: pixels in 0–255 to float32 features ``(batch, channels)``."""
    return keras.Model(backbone.input, _pool(backbone.output))


def attach_head(backbone: keras.Model, num_classes: int, head_dropout: float, batch_norm: bool = False) -> keras.Model:
    """Put average pooling, BatchNorm if wanted, dropout and a dense layer of logits (random) on a backbone.

    Logits stay in float32 under mixed precision, where a half-precision softmax loses small probabilities.
    """
    x = _pool(backbone.output)
    if batch_norm:
        x = keras.layers.BatchNormalization(dtype="float32", name="head_bn")(x)
    x = keras.layers.Dropout(head_dropout, name=HEAD_DROPOUT)(x)
    logits = keras.layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(backbone.input, logits, name=f"{backbone.name}_classifier")


def dense_head(kernel: np.ndarray, bias: np.ndarray) -> keras.Model:
    """A head alone: features ``(batch, channels)`` to logits ``(batch, num_classes)``."""
    head = keras.Sequential([keras.Input((kernel.shape[0],)), keras.layers.Dense(kernel.shape[1], name="logits")])
    head.set_weights([kernel, bias])
    return head


def assemble(backbone: keras.Model, head: keras.Model, head_dropout: float) -> keras.Model:
    """Put a fitted :func:`dense_head` on its backbone: one model from pixels to logits."""
    model = attach_head(backbone, head.output_shape[-1], head_dropout)
    model.get_layer("logits").set_weights(head.get_weights())
    return model


def with_rates(model: keras.Model, drop_connect_rate: float, head_dropout: float) -> keras.Model:
    """A copy of a classifier, weights included, with other rates of stochastic depth and head dropout.

    Args:
        model: a model of :func:`attach_head`.
        drop_connect_rate: of the last block; a block's rate grows linearly with its index (Huang et al. 2016,
            arXiv:1603.09382, as EfficientNet uses it). ``keras.applications`` no longer takes it as an argument.
        head_dropout: before the logits.
    """
    blocks = list(dict.fromkeys(layer.name.split("_")[0] for layer in model.layers if layer.name.startswith("block")))

    def rate_of(name: str) -> float | None:
        if name == HEAD_DROPOUT:
            return head_dropout
        if name.endswith(DROP_CONNECT_SUFFIX):
            return drop_connect_rate * blocks.index(name.split("_")[0]) / len(blocks)
        return None

    copy = keras.models.clone_model(model, clone_function=_with_rate(rate_of))
    copy.set_weights(model.get_weights())
    return copy


def without_training_state(model: keras.Model) -> keras.Model:
    """A copy, weights included, without optimizer, loss and frozen layers: what is worth keeping on disk."""
    # Not clone_model, which compiles its copy as the original is compiled.
    copy = keras.Model.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    for layer in copy.layers:  # setting it on the model does nothing where the model itself is not frozen
        layer.trainable = True
    return copy


def _with_rate(rate_of: Callable[[str], float | None]) -> Callable[[keras.Layer], keras.Layer]:
    def clone(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        rate = rate_of(layer.name)
        if rate is not None:
            config["rate"] = rate
        return layer.__class__.from_config(config)

    return clone


def _pool(feature_map):
    return keras.layers.GlobalAveragePooling2D(dtype="float32", name="avg_pool")(feature_map)
