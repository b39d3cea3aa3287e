"""Run an exported classifier as another program would; this file imports nothing of the project.

``python run_export.py <file or folder>`` reads photographs from standard input, each as its height and width (unsigned
32-bit little-endian integers) followed by its RGB bytes, row by row. It writes one array in NumPy's format to standard
output: probabilities ``(N, num_classes)`` with the seconds of each prediction as a last column.
"""

import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

Run = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    """Predict all photographs of standard input."""
    out = sys.stdout.buffer
    sys.stdout = sys.stderr  # libraries may print there, which would spoil the array
    run = _open(Path(sys.argv[1]))
    rows = []
    for photograph in _photographs(sys.stdin.buffer):
        began = time.perf_counter()
        probabilities = run(photograph[None])
        rows.append(np.append(probabilities[0], time.perf_counter() - began))
    np.lib.format.write_array(out, np.array(rows), allow_pickle=False)


def _photographs(stream: BinaryIO) -> Iterator[np.ndarray]:
    while header := stream.read(8):
        height, width = struct.unpack("<II", header)
        yield np.frombuffer(stream.read(height * width * 3), np.uint8).reshape(height, width, 3)


def _open(path: Path) -> Run:
    if path.suffix == ".onnx":
        return _open_onnx(path)
    return _open_saved_model(path) if path.is_dir() else _open_litert(path)


def _open_saved_model(path: Path) -> Run:
    import tensorflow as tf

    loaded: Any = tf.saved_model.load(str(path))
    return lambda photograph: loaded.serve(photograph).numpy()


def _open_litert(path: Path) -> Run:
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(str(path))
    taken, given = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(photograph: np.ndarray) -> np.ndarray:
        if tuple(interpreter.get_input_details()[0]["shape"]) != photograph.shape:
            interpreter.resize_tensor_input(taken, photograph.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(taken, photograph)
        interpreter.invoke()
        answer: np.ndarray = interpreter.get_tensor(given)
        return answer

    return run


def _open_onnx(path: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda photograph: session.run(None, {name: photograph})[0]


if __name__ == "__main__":
    main()
