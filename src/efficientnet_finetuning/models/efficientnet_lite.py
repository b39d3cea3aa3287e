"""EfficientNet-Lite in Keras: EfficientNet without squeeze-and-excitation and with ReLU6, for CPUs and phones.

Source: Google's `EfficientNet-Lite <https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite>`_,
after Tan and Le 2019 (arXiv:1905.11946). The blocks are those of B0. The first and last stage are not deepened, and
stem and head are not widened. Layers are named as in ``keras.applications``.
"""

from collections.abc import Mapping
from string import ascii_lowercase

import keras
import numpy as np

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.models.architectures import ARCHITECTURES

_KERNEL_SIZES = (3, 3, 5, 3, 5, 5, 3)
_STRIDES = (1, 2, 2, 2, 1, 2, 1)
_EXPANSIONS = (1, 6, 6, 6, 6, 6, 6)
_WIDTHS = {
    "EfficientNetLite0": (16, 24, 40, 80, 112, 192, 320),
    "EfficientNetLite1": (16, 24, 40, 80, 112, 192, 320),
    "EfficientNetLite2": (16, 24, 48, 88, 120, 208, 352),
}
_STEM_WIDTH, _TOP_WIDTH = 32, 1280
_BATCH_NORM_EPSILON = 1e-3
_DROP_CONNECT_RATE = 0.2
# As keras.applications initializes EfficientNet's convolutions.
_INITIALIZER = {
    "class_name": "VarianceScaling",
    "config": {"scale": 2.0, "mode": "fan_out", "distribution": "truncated_normal"},
}


def efficientnet_lite(name: str, image_size: int) -> keras.Model:
    """Build a Lite backbone with random weights, from ``EfficientNetLite0`` to ``EfficientNetLite2``.

    Returns:
        A model from ``(batch, image_size, image_size, 3)`` pixels in 0–255 to ``(batch, side, side, 1280)``
        activations; ``side`` is ``ceil(image_size / 32)``.
    """
    repeats_of_stages = ARCHITECTURES[name].repeats
    num_blocks = sum(repeats_of_stages)
    inputs = keras.Input((image_size, image_size, 3))
    # In float32 under any policy, as in every backbone of this project: bfloat16 would round the pixels.
    x = keras.layers.Rescaling(1 / 128, offset=-127 / 128, dtype="float32", name="scaling")(inputs)
    x = _conv_bn(x, _STEM_WIDTH, 3, "stem_", strides=2)
    index = 0
    for stage, repeats in enumerate(repeats_of_stages):
        for repeat in range(repeats):
            x = _block(
                x,
                name=f"block{stage + 1}{ascii_lowercase[repeat]}_",
                filters=_WIDTHS[name][stage],
                kernel_size=_KERNEL_SIZES[stage],
                strides=_STRIDES[stage] if repeat == 0 else 1,
                expansion=_EXPANSIONS[stage],
                drop_rate=_DROP_CONNECT_RATE * index / num_blocks,
            )
            index += 1
    x = _conv_bn(x, _TOP_WIDTH, 1, "top_")
    return keras.Model(inputs, x, name=name.lower())


def _block(x, name: str, filters: int, kernel_size: int, strides: int, expansion: int, drop_rate: float):
    """An inverted residual block: expansion, depthwise convolution, projection and, if possible, a shortcut."""
    shortcut = x
    if expansion != 1:
        x = _conv_bn(x, x.shape[-1] * expansion, 1, f"{name}expand_")
    x = keras.layers.DepthwiseConv2D(
        kernel_size, strides, "same", use_bias=False, depthwise_initializer=_INITIALIZER, name=f"{name}dwconv"
    )(x)
    x = _bn_relu6(x, name)
    x = _conv_bn(x, filters, 1, f"{name}project_", activation=False)
    if strides == 1 and shortcut.shape[-1] == filters:
        if drop_rate:
            x = keras.layers.Dropout(drop_rate, noise_shape=(None, 1, 1, 1), name=f"{name}drop")(x)
        x = keras.layers.Add(name=f"{name}add")([x, shortcut])
    return x


def _conv_bn(x, filters: int, kernel_size: int, name: str, strides: int = 1, activation: bool = True):
    x = keras.layers.Conv2D(
        filters, kernel_size, strides, "same", use_bias=False, kernel_initializer=_INITIALIZER, name=f"{name}conv"
    )(x)
    return _bn_relu6(x, name, activation)


def _bn_relu6(x, name: str, activation: bool = True):
    x = keras.layers.BatchNormalization(epsilon=_BATCH_NORM_EPSILON, name=f"{name}bn")(x)
    return keras.layers.ReLU(max_value=6.0, name=f"{name}activation")(x) if activation else x


def load_torch_weights(model: keras.Model, tensors: Mapping[str, np.ndarray]) -> None:
    """Copy the tensors of the PyTorch original, by parameter name, into a model of :func:`efficientnet_lite`.

    Raises:
        InputError: a tensor is missing or has another shape.
    """
    blocks = list(dict.fromkeys(layer.name.split("_")[0] for layer in model.layers if layer.name.startswith("block")))
    for layer in model.layers:
        if layer.weights:
            prefix = _torch_prefix(layer.name, blocks)
            layer.set_weights([_tensor(tensors, prefix, weight) for weight in layer.weights])


def _torch_prefix(layer_name: str, blocks: list[str]) -> str:
    fixed = {"stem_conv": "_conv_stem", "stem_bn": "_bn0", "top_conv": "_conv_head", "top_bn": "_bn1"}
    if layer_name in fixed:
        return fixed[layer_name]
    block, part = layer_name.split("_", 1)
    parts = {
        "expand_conv": "_expand_conv",
        "expand_bn": "_bn0",
        "dwconv": "_depthwise_conv",
        "bn": "_bn1",
        "project_conv": "_project_conv",
        "project_bn": "_bn2",
    }
    return f"_blocks.{blocks.index(block)}.{parts[part]}"


def _tensor(tensors: Mapping[str, np.ndarray], prefix: str, weight: keras.Variable) -> np.ndarray:
    suffixes = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    key = f"{prefix}.{suffixes.get(weight.name, 'weight')}"
    if key not in tensors:
        raise InputError(f"The weights file has no tensor {key!r}: it belongs to another network.")
    tensor = tensors[key]
    if tensor.ndim == 4:
        # PyTorch stores (out, in, height, width). A depthwise kernel has in = 1, and Keras stores out third.
        depthwise = tensor.shape[1] == 1 and weight.shape[2] != 1
        tensor = tensor.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
    if tensor.shape != weight.shape:
        raise InputError(
            f"The weights file's tensor {key!r} has shape {tensor.shape}, expected {tuple(weight.shape)}: "
            "it belongs to another network."
        )
    return tensor
