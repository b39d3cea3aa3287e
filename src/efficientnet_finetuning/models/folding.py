"""BatchNorm with fixed statistics is a scale and a shift, which can be folded into the convolution before it.

The folded network has a third fewer layers, so training takes less time and memory.
"""

import keras
import numpy as np


def fold(model: keras.Model) -> keras.Model:
    """A copy of a functional model with each BatchNorm folded into the bias-free convolution before it.

    Its outputs equal those of ``model`` in inference mode, up to rounding. Layers keep their names.
    """
    folded = _foldable(model)
    convolutions = set(folded.values())

    def clone(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        if layer.name in convolutions:
            config["use_bias"] = True
        return layer.__class__.from_config(config)

    def call(layer: keras.Layer, *args, **kwargs):
        return args[0] if layer.name in folded else layer(*args, **kwargs)

    copy = keras.models.clone_model(model, clone_function=clone, call_function=call)
    batch_norm_of = {convolution: name for name, convolution in folded.items()}
    for layer in (layer for layer in copy.layers if layer.weights):
        weights = model.get_layer(layer.name).get_weights()
        if layer.name in convolutions:
            scale, shift = _scale_and_shift(model.get_layer(batch_norm_of[layer.name]))
            weights = [weights[0] * _along_outputs(layer, scale), shift]
        layer.set_weights(weights)
    return copy


def unfold(folded: keras.Model, model: keras.Model) -> None:
    """Copy trained weights from a :func:`fold` of ``model`` back into ``model``, which then computes the same.

    A trained convolution gets the folded kernel, and its BatchNorm becomes a shift. Weights that did not change since
    :func:`fold` stay exactly as they are.
    """
    batch_norm_of = {convolution: name for name, convolution in _foldable(model).items()}
    for layer in (layer for layer in folded.layers if layer.weights):
        target = model.get_layer(layer.name)
        weights = layer.get_weights()
        if layer.name not in batch_norm_of:
            target.set_weights(weights)
            continue
        batch_norm = model.get_layer(batch_norm_of[layer.name])
        scale, shift = _scale_and_shift(batch_norm)
        (kernel,) = target.get_weights()
        if np.array_equal(weights[0], kernel * _along_outputs(layer, scale)) and np.array_equal(weights[1], shift):
            continue
        target.set_weights([weights[0]])
        _gamma, _beta, mean, variance = batch_norm.get_weights()
        batch_norm.set_weights([np.sqrt(variance + batch_norm.epsilon), weights[1] + mean, mean, variance])


def _foldable(model: keras.Model) -> dict[str, str]:
    """Names of the BatchNorm layers that can be folded, with the convolution before each."""
    layers_of_outputs = {id(layer.output): layer for layer in model.layers}
    pairs = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            before = layers_of_outputs.get(id(layer.input))
            if not isinstance(before, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
                continue
            if not before.use_bias and layer.scale and layer.center:
                pairs[layer.name] = before.name
    return pairs


def _scale_and_shift(batch_norm: keras.layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    gamma, beta, mean, variance = batch_norm.get_weights()
    scale = gamma / np.sqrt(variance + batch_norm.epsilon)
    return scale, beta - mean * scale


def _along_outputs(layer: keras.Layer, scale: np.ndarray) -> np.ndarray:
    # A depthwise kernel is (height, width, channels, 1), others (height, width, in, out).
    return scale[:, None] if isinstance(layer, keras.layers.DepthwiseConv2D) else scale
