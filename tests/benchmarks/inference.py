"""What a forward pass costs on a CPU: `make bench-inference` prints a table. Nothing here passes or fails.

Goals: the engine ≥ 1.5 × `Model.predict`; features of 7,000 images of 96 px with Lite0 in less than 9 s, conversion
included, where `Model.predict` takes 18 s.

Measured: seconds of whole calls on two cores, conversion (0.7 s for Lite0, 1 s for B0) or Keras' tracing included:

=============  ======  ======  =====  =======
backbone       images  Mpixel  Keras  XNNPACK
=============  ======  ======  =====  =======
B0, 224 px         50     2.5    2.0      2.8
B0, 224 px        100     5.0    4.3      2.6
B0, 96 px         600     5.5    3.8      2.1
Lite0, 224 px      50     2.5    1.2      1.4
Lite0, 224 px     100     5.0    2.2      1.6
Lite0, 96 px      300     2.8    1.5      1.1
Lite0, 96 px    2,000    18.4    4.2      2.7
=============  ======  ======  =====  =======
"""

import os
import time
from collections.abc import Callable

os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}  # read when TensorFlow is imported

import keras
import numpy as np

from efficientnet_finetuning.device import prepare_process
from efficientnet_finetuning.models.backbones import build_backbone
from efficientnet_finetuning.models.heads import feature_extractor
from efficientnet_finetuning.models.inference import predict
from efficientnet_finetuning.models.litert import Engine
from efficientnet_finetuning.parameters import DeviceParameters

ROUNDS, BATCH_SIZE = 4, 64
NUM_FEATURES, FEATURES_SIZE = 7_000, 96


def main() -> None:
    prepare_process(DeviceParameters(accelerator="cpu"))
    print("images a second              predict  on_batch    engine  conversion, s  engine / predict")  # noqa: T201
    for name in ("EfficientNetLite0", "EfficientNetB0"):
        for size, count in ((224, BATCH_SIZE), (96, 4 * BATCH_SIZE)):
            compare(name, size, count)
    extractor = extractor_of("EfficientNetLite0", FEATURES_SIZE)
    images = pixels(NUM_FEATURES, FEATURES_SIZE)
    seconds = seconds_of(lambda: predict(extractor, images, BATCH_SIZE))
    print(f"features of {NUM_FEATURES:,} images, Lite0 at 96 px, all told: {seconds:.1f} s   goal < 9 s")  # noqa: T201


def compare(name: str, size: int, count: int) -> None:
    """One row; rounds are interleaved and the best of each counts, since other users of the machine come and go."""
    model, images = extractor_of(name, size), pixels(count, size)
    model.jit_compile = False
    conversion = seconds_of(lambda: Engine(model, images.shape[1:], BATCH_SIZE))
    engine = Engine(model, images.shape[1:], BATCH_SIZE)
    ways: list[Callable] = [
        lambda: model.predict(images, batch_size=BATCH_SIZE, verbose=0),
        lambda: in_batches(model.predict_on_batch, images),
        lambda: in_batches(engine, images),
    ]
    for way in ways:  # traced off the clock
        way()
    rounds = [[count / seconds_of(way) for way in ways] for _ in range(ROUNDS)]
    keras_predict, on_batch, ours = (max(column) for column in zip(*rounds, strict=True))
    print(  # noqa: T201
        f"{name + f' at {size} px':<26} {keras_predict:>9.1f} {on_batch:>9.1f} {ours:>9.1f} {conversion:>14.1f} "
        f"{ours / keras_predict:>17.2f}   goal ≥ 1.5",
        flush=True,
    )


def extractor_of(name: str, size: int) -> keras.Model:
    return feature_extractor(build_backbone(name, size, "none"))


def pixels(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def in_batches(forward: Callable, images: np.ndarray) -> None:
    for start in range(0, len(images), BATCH_SIZE):
        forward(images[start : start + BATCH_SIZE])


def seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
