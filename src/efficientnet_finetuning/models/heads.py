"""A head on a backbone: features, logits, and the rates that regularize them while training."""

from collections.abc import Callable

import keras
import numpy as np

DROP_CONNECT_SUFFIX = "_drop"
HEAD_DROPOUT = "head_dropout"
_POOLED, _FEATURES, _LOGITS, _CLASSIFIER = "avg_pool", "features", "logits", "_classifier"


def stage_of(layer: keras.Layer) -> str:
    """The stage that a layer belongs to: ``block3`` for ``block3b_expand_conv``; else ``stem``, ``top``, ``logits``."""
    block = layer.name.split("_")[0]
    return block.rstrip("abcdefghijklmnopqrstuvwxyz") if block.startswith("block") else block


def feature_extractor(backbone: keras.Model) -> keras.Model:
    """The averages of each stage's last feature map: pixels in 0–255 to float32 ``(batch, channels)``.

    Those of the backbone's output come last. The earlier stages help where the classes differ from ImageNet's. After
    Head2Toe (Evci et al. 2022, arXiv:2201.03529).
    """
    return keras.Model(backbone.input, _averaged_stages(backbone))


def attach_head(backbone: keras.Model, num_classes: int, head_dropout: float, batch_norm: bool = False) -> keras.Model:
    """Put average pooling, BatchNorm if wanted, dropout and a dense layer of logits (random) on a backbone.

    Logits stay in float32 under mixed precision, where a half-precision softmax loses small probabilities.
    """
    x = _pool(backbone.output, _POOLED)
    if batch_norm:
        x = keras.layers.BatchNormalization(dtype="float32", name="head_bn")(x)
    return _with_logits(backbone, x, num_classes, head_dropout)


def dense_head(kernel: np.ndarray, bias: np.ndarray) -> keras.Model:
    """A head alone: features ``(batch, channels)`` to logits ``(batch, num_classes)``."""
    head = keras.Sequential([keras.Input((kernel.shape[0],)), keras.layers.Dense(kernel.shape[1], name=_LOGITS)])
    head.set_weights([kernel, bias])
    return head


def assemble(backbone: keras.Model, head: keras.Model, head_dropout: float) -> keras.Model:
    """Put a fitted :func:`dense_head` on its backbone: one model from pixels to logits.

    Args:
        backbone: as the features came from it.
        head: takes all features of :func:`feature_extractor`, or those of the last feature map alone.
        head_dropout: before the logits.
    """
    num_features, num_classes = head.input_shape[-1], head.output_shape[-1]
    if num_features == backbone.output_shape[-1]:
        model = attach_head(backbone, num_classes, head_dropout)
    else:
        model = _with_logits(backbone, _averaged_stages(backbone), num_classes, head_dropout)
    model.get_layer(_LOGITS).set_weights(head.get_weights())
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


def backbone_of(model: keras.Model) -> keras.Model:
    """The backbone of a classifier, from pixels to the last feature map; it shares its layers."""
    name = model.name.removesuffix(_CLASSIFIER)
    return keras.Model(model.input, model.get_layer(_POOLED).input, name=name)


def averaged_maps(model: keras.Model) -> list:
    """The feature maps of a classifier that its head averages, as tensors, in the order of the head's features."""
    by_output = {id(layer.output): layer for layer in model.layers}
    joined = [layer for layer in model.layers if layer.name == _FEATURES]
    pools = [by_output[id(tensor)] for tensor in joined[0].input] if joined else [model.get_layer(_POOLED)]
    return [pool.input for pool in pools]


def with_features(model: keras.Model) -> keras.Model:
    """A classifier that says its logits and, after them, the averages of its last feature map.

    Returns:
        A model from pixels to float32 ``(batch, num_classes + channels)``, which shares its layers.
    """
    outputs = [model.output, model.get_layer(_POOLED).output]
    return keras.Model(model.input, keras.layers.Concatenate(dtype="float32")(outputs))


def with_head_inputs(model: keras.Model) -> keras.Model:
    """:func:`with_features` that says, after all, what the layer of the logits takes."""
    outputs = [with_features(model).output, model.get_layer(_LOGITS).input]
    return keras.Model(model.input, keras.layers.Concatenate(dtype="float32")(outputs))


def logits_of(model: keras.Model) -> tuple[np.ndarray, np.ndarray]:
    """Kernel ``(channels, num_classes)`` and bias ``(num_classes,)`` of a classifier's last layer."""
    kernel, bias = model.get_layer(_LOGITS).get_weights()
    return kernel, bias


def with_class(model: keras.Model, kernel: np.ndarray, bias: float) -> keras.Model:
    """A classifier with one more class, the last; it shares the other layers.

    Args:
        model: a classifier.
        kernel: of the new class, ``(channels,)``.
        bias: likewise.
    """
    kernels, biases = logits_of(model)
    logits = keras.layers.Dense(len(biases) + 1, dtype="float32", name=_LOGITS)
    wider = keras.Model(model.input, logits(model.get_layer(_LOGITS).input), name=model.name)
    logits.set_weights([np.c_[kernels, kernel], np.append(biases, bias)])
    return wider


def from_features(model: keras.Model) -> list[keras.Layer]:
    """The layers of a classifier's head, from features to logits."""
    start = max(index for index, layer in enumerate(model.layers) if layer.name in (_POOLED, _FEATURES))
    return model.layers[start + 1 :]


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


def _with_logits(backbone: keras.Model, features, num_classes: int, head_dropout: float) -> keras.Model:
    x = keras.layers.Dropout(head_dropout, name=HEAD_DROPOUT)(features)
    logits = keras.layers.Dense(num_classes, dtype="float32", name=_LOGITS)(x)
    return keras.Model(backbone.input, logits, name=backbone.name + _CLASSIFIER)


def _averaged_stages(backbone: keras.Model):
    ends = {stage_of(layer): layer for layer in backbone.layers if layer.name.startswith("block")}
    pooled = [_pool(layer.output, f"{_POOLED}_{stage}") for stage, layer in ends.items()]
    pooled.append(_pool(backbone.output, _POOLED))
    return keras.layers.Concatenate(dtype="float32", name=_FEATURES)(pooled) if len(pooled) > 1 else pooled[0]


def _pool(feature_map, name: str):
    return keras.layers.GlobalAveragePooling2D(dtype="float32", name=name)(feature_map)
