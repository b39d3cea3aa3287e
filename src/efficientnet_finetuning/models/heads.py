"""Heads: features, logits, and the dropout rates of a training."""

import keras
import numpy as np

DROP_CONNECT_SUFFIX = "_drop"
HEAD_DROPOUT = "head_dropout"
_POOLED, _FEATURES, _LOGITS, _CLASSIFIER = "avg_pool", "features", "logits", "_classifier"


def stage_of(layer: keras.Layer) -> str:
    """The stage of a layer: ``block3`` for ``block3b_expand_conv``; else ``stem``, ``top`` or ``logits``."""
    block = layer.name.split("_")[0]
    return block.rstrip("abcdefghijklmnopqrstuvwxyz") if block.startswith("block") else block


def feature_extractor(backbone: keras.Model) -> keras.Model:
    """A model from pixels in 0–255 to the averages of each stage's last feature map, float32 ``(batch, channels)``.

    The averages of the backbone's output come last. Earlier stages help if the classes differ from ImageNet's. After
    Head2Toe (Evci et al. 2022, arXiv:2201.03529).
    """
    return keras.Model(backbone.input, _averaged_stages(backbone))


def attach_head(backbone: keras.Model, num_classes: int, head_dropout: float, batch_norm: bool = False) -> keras.Model:
    """Add average pooling, optionally BatchNorm, dropout and a random dense layer of logits to a backbone.

    Logits are float32, because a half-precision softmax loses small probabilities.
    """
    x = _pool(backbone.output, _POOLED)
    if batch_norm:
        x = keras.layers.BatchNormalization(dtype="float32", name="head_bn")(x)
    return _with_logits(backbone, x, num_classes, head_dropout)


def dense_head(kernel: np.ndarray, bias: np.ndarray) -> keras.Model:
    """A head without backbone: features ``(batch, channels)`` to logits ``(batch, num_classes)``."""
    head = keras.Sequential([keras.Input((kernel.shape[0],)), keras.layers.Dense(kernel.shape[1], name=_LOGITS)])
    head.set_weights([kernel, bias])
    return head


def assemble(backbone: keras.Model, head: keras.Model, head_dropout: float) -> keras.Model:
    """Connect a fitted :func:`dense_head` to its backbone: a model from pixels to logits.

    The head takes all features of :func:`feature_extractor`, or only those of the last feature map.
    """
    num_features, num_classes = head.input_shape[-1], head.output_shape[-1]
    if num_features == backbone.output_shape[-1]:
        model = attach_head(backbone, num_classes, head_dropout)
    else:
        model = _with_logits(backbone, _averaged_stages(backbone), num_classes, head_dropout)
    model.get_layer(_LOGITS).set_weights(head.get_weights())
    return model


def with_rates(model: keras.Model, drop_connect_rate: float, head_dropout: float) -> keras.Model:
    """A copy of a classifier, including weights, with other rates of stochastic depth and of the head's dropout.

    ``drop_connect_rate`` is that of the last block. The rates of the blocks grow linearly (Huang et al. 2016,
    arXiv:1603.09382, as in EfficientNet). ``keras.applications`` no longer takes it as an argument.
    """
    blocks = list(dict.fromkeys(layer.name.split("_")[0] for layer in model.layers if layer.name.startswith("block")))

    def clone(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        if layer.name == HEAD_DROPOUT:
            config["rate"] = head_dropout
        elif layer.name.endswith(DROP_CONNECT_SUFFIX):
            config["rate"] = drop_connect_rate * blocks.index(layer.name.split("_")[0]) / len(blocks)
        return layer.__class__.from_config(config)

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy


def backbone_of(model: keras.Model) -> keras.Model:
    """The backbone of a classifier, from pixels to the last feature map. They share their layers."""
    name = model.name.removesuffix(_CLASSIFIER)
    return keras.Model(model.input, model.get_layer(_POOLED).input, name=name)


def averaged_maps(model: keras.Model) -> list:
    """The feature maps, as tensors, that the head of a classifier averages, in the order of the features."""
    by_output = {id(layer.output): layer for layer in model.layers}
    joined = [layer for layer in model.layers if layer.name == _FEATURES]
    pools = [by_output[id(tensor)] for tensor in joined[0].input] if joined else [model.get_layer(_POOLED)]
    return [pool.input for pool in pools]


def with_features(model: keras.Model) -> keras.Model:
    """A model from pixels to a classifier's logits and, after them, the averages of its last feature map, float32."""
    outputs = [model.output, model.get_layer(_POOLED).output]
    return keras.Model(model.input, keras.layers.Concatenate(dtype="float32")(outputs))


def with_head_inputs(model: keras.Model) -> keras.Model:
    """As :func:`with_features`, followed by the inputs of the layer of logits."""
    outputs = [with_features(model).output, model.get_layer(_LOGITS).input]
    return keras.Model(model.input, keras.layers.Concatenate(dtype="float32")(outputs))


def logits_of(model: keras.Model) -> tuple[np.ndarray, np.ndarray]:
    """Kernel ``(channels, num_classes)`` and bias ``(num_classes,)`` of the last layer of a classifier."""
    kernel, bias = model.get_layer(_LOGITS).get_weights()
    return kernel, bias


def with_class(model: keras.Model, kernel: np.ndarray, bias: float) -> keras.Model:
    """A classifier with one more class, the last: ``kernel`` ``(channels,)`` and ``bias``. Other layers are shared."""
    kernels, biases = logits_of(model)
    logits = keras.layers.Dense(len(biases) + 1, dtype="float32", name=_LOGITS)
    wider = keras.Model(model.input, logits(model.get_layer(_LOGITS).input), name=model.name)
    logits.set_weights([np.c_[kernels, kernel], np.append(biases, bias)])
    return wider


def from_features(model: keras.Model) -> list[keras.Layer]:
    """The layers of a classifier from features to logits."""
    start = max(index for index, layer in enumerate(model.layers) if layer.name in (_POOLED, _FEATURES))
    return model.layers[start + 1 :]


def without_training_state(model: keras.Model) -> keras.Model:
    """A copy of a model, including weights, without optimizer, loss and frozen layers."""
    # Not clone_model, which also copies the compilation.
    copy = keras.Model.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    for layer in copy.layers:  # per layer: on an unfrozen model, setting it has no effect
        layer.trainable = True
    return copy


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
