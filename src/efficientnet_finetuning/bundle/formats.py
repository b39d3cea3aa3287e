"""Export a classifier to other formats, from a photograph of any size to probabilities."""

import importlib.util
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.errors import InputError

# Content of files by their path in the bundle.
Files = Mapping[str, bytes]

# File or folder of each format.
FILES = {
    "saved_model": "saved_model",
    "litert": "classifier.tflite",
    "litert_float16": "classifier_float16.tflite",
    "litert_int8": "classifier_int8.tflite",
    "onnx": "classifier.onnx",
}
_ONNX_OPSET = 18
# Images that calibrate the ranges of int8.
_NUM_CALIBRATION = 100


def check_formats(formats: tuple[str, ...]) -> None:
    """Refuse a format whose converter is not installed, with an ``InputError`` that gives the install command."""
    missing = [name for name in ("onnx", "tf2onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if "onnx" in formats and missing:
        raise InputError(
            f"The format onnx needs {', '.join(missing)}: make install-export. Or remove it from export.formats in "
            "conf/base/parameters.yml."
        )


def convert(classifier: Classifier, calibration: np.ndarray, formats: tuple[str, ...]) -> dict[str, bytes]:
    """Export a classifier.

    Args:
        classifier: the model with its whole pre- and postprocessing.
        calibration: training images, uint8 ``(N, image_size, image_size, 3)``, for the ranges of int8.
        formats: keys of :data:`FILES`.

    Returns:
        Files by path. Models take one upright RGB photograph of any size, uint8 ``(1, height, width, 3)``; int8 takes
        ``(1, image_size, image_size, 3)``, because its resize would also be rounded to eight bits.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / FILES["saved_model"]
        if {"saved_model", "litert", "litert_float16"} & {*formats}:
            _save_model(classifier, place, any_size=True)
        converters: dict[str, Callable[[], bytes]] = {
            "litert": lambda: _litert(place),
            "litert_float16": lambda: _litert(place, half=True),
            "litert_int8": lambda: _litert_int8(classifier, calibration, Path(folder) / "square"),
            "onnx": lambda: _onnx(classifier),
        }
        files = {FILES[name]: converters[name]() for name in formats if name in converters}
        if "saved_model" in formats:
            files |= {f"{place.name}/{name}": content for name, content in read_files(place).items()}
        return files


def classifier_file(classifier: Classifier) -> bytes:
    """The content of the ``.keras`` file that :meth:`Classifier.load` reads."""
    with tempfile.TemporaryDirectory() as folder:
        classifier.save(Path(folder) / "classifier.keras")
        return (Path(folder) / "classifier.keras").read_bytes()


def write_files(files: Files, folder: Path) -> None:
    """Write files into a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def read_files(folder: Path) -> dict[str, bytes]:
    """Read all files of a folder, by their relative path."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()
    }


def _save_model(classifier: Classifier, folder: Path, *, any_size: bool) -> None:
    import keras

    archive = keras.export.ExportArchive()
    archive.track(classifier.model)
    archive.add_endpoint("serve", *_function(classifier, any_size=any_size))
    archive.write_out(folder, verbose=False)


def _function(classifier: Classifier, *, any_size: bool) -> tuple[Callable[..., Any], list[Any]]:
    import tensorflow as tf

    from efficientnet_finetuning.bundle.graph import answer_function

    side = None if any_size else classifier.image_size
    signature = [tf.TensorSpec([1, side, side, 3], tf.uint8, name="photograph")]
    return answer_function(classifier, any_size=any_size), signature


def _litert(saved_model: Path, *, half: bool = False, calibration: np.ndarray | None = None) -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    if half or calibration is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if half:
        converter.target_spec.supported_types = [tf.float16]
    if calibration is not None:
        converter.representative_dataset = lambda: ([image[None]] for image in calibration)
    content: bytes = converter.convert()
    return content


def _litert_int8(classifier: Classifier, calibration: np.ndarray, folder: Path) -> bytes:
    _save_model(classifier, folder, any_size=False)
    rows = np.linspace(0, len(calibration) - 1, min(_NUM_CALIBRATION, len(calibration))).astype(int)
    return _litert(folder, calibration=calibration[rows])


def _onnx(classifier: Classifier) -> bytes:
    import tensorflow as tf
    import tf2onnx

    function, signature = _function(classifier, any_size=True)
    model, _ = tf2onnx.convert.from_function(tf.function(function), input_signature=signature, opset=_ONNX_OPSET)
    content: bytes = model.SerializeToString()
    return content
