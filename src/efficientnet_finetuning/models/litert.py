"""A Keras model converted for XNNPACK, which is faster on CPUs. Only this module of models imports TensorFlow."""

import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import numpy as np
import tensorflow as tf

from efficientnet_finetuning.workers import num_cores

# Activations of this many pixels fit into a core's cache: 4 images of 96 px, 1 of 224 px. CPU milliseconds per image
# with 1 / 4 / 8 at once: Lite0 2.4 / 1.9 / 1.9 at 96 px, 10.2 / 10.8 / 11.4 at 224 px; B0 at 224 px 13.9 / 15.1 / 15.5.
_CHUNK_PIXELS = 40_000
# Each interpreter has its own copy of weights and activations.
_MAX_INTERPRETERS = 8


class Engine:
    """A converted copy of a Keras model for images of one shape. Later changes of the model do not affect it.

    The outputs are the same in every run. A pickled engine needs neither the model nor another conversion.
    """

    def __init__(self, model: Any, image_shape: tuple[int, ...], batch_size: int):
        """Convert a float32 ``keras.Model`` for images ``(height, width, channels)``, up to ``batch_size`` at once.

        This takes 0.7 s for Lite0 and 1 s for B0, for all image sizes.

        Raises:
            Exception: TensorFlow cannot convert an operation. It raises several kinds.
        """
        self._chunk = min(batch_size, max(1, _CHUNK_PIXELS // math.prod(image_shape[:-1])))
        self._content = _convert(model, (self._chunk, *image_shape))
        self._start()

    def _start(self) -> None:
        cores = num_cores()
        workers = min(cores, _MAX_INTERPRETERS)
        # Separate interpreters do not wait for each other at every layer, unlike the threads of one interpreter.
        self._free: SimpleQueue[tf.lite.Interpreter] = SimpleQueue()
        for _ in range(workers):
            self._free.put(_interpreter(self._content, cores // workers))
        self._pool = ThreadPoolExecutor(workers)

    def __getstate__(self) -> tuple[int, bytes]:
        return self._chunk, self._content

    def __setstate__(self, state: tuple[int, bytes]) -> None:
        self._chunk, self._content = state
        self._start()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Outputs ``(N, …)`` for images ``(N, height, width, channels)`` of any dtype; N is at least 1."""
        chunks = (images[start : start + self._chunk] for start in range(0, len(images), self._chunk))
        return np.concatenate(list(self._pool.map(self._run, chunks)))

    def _run(self, images: np.ndarray) -> np.ndarray:
        interpreter = self._free.get()
        try:
            taken = interpreter.get_input_details()[0]
            padded = np.zeros(taken["shape"], taken["dtype"])
            padded[: len(images)] = images
            interpreter.set_tensor(taken["index"], padded)
            interpreter.invoke()
            return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[: len(images)]
        finally:
            self._free.put(interpreter)


def _convert(model: Any, shape: tuple[int, ...]) -> bytes:
    weights = [[v.numpy() for v in kind] for kind in (model.trainable_variables, model.non_trainable_variables)]
    with tf.Graph().as_default() as graph:
        pixels = tf.compat.v1.placeholder(model.inputs[0].dtype, shape)
        constants = (list(map(tf.constant, kind)) for kind in weights)
        outputs, _ = model.stateless_call(*constants, pixels, training=False)
        # The converter of TensorFlow 1 takes the graph directly. The new one freezes variables first (twice as slow) or
        # writes a SavedModel of a Keras model (four times as slow).
        converter = tf.compat.v1.lite.TFLiteConverter(graph.as_graph_def(), [pixels], [outputs])
        converter.exclude_conversion_metadata = True  # its hash of the model is computed in Python
        return converter.convert()


def _interpreter(content: bytes, num_threads: int) -> tf.lite.Interpreter:
    with warnings.catch_warnings():
        # TensorFlow 2.21 warns that the interpreter moves to a separate package.
        warnings.filterwarnings("ignore", message=r"\s*Warning: tf\.lite\.Interpreter is deprecated")
        interpreter = tf.lite.Interpreter(model_content=content, num_threads=num_threads)
    interpreter.allocate_tensors()
    return interpreter
