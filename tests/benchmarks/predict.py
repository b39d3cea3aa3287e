"""What classifying files costs beside its parts: `make bench-predict` prints a table. Nothing here passes or fails.

Small photographs (the size of the network) should be bound by the forward pass, large ones (12 megapixels) by decoding.
Goals: at least 0.9 of the forward pass' or of the decoder's images a second; memory that does not grow with the number.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}  # read when TensorFlow is imported

import numpy as np
from PIL import Image

from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.bundle.photographs import Reader, find_photographs
from efficientnet_finetuning.data.encoded import EncodedImage
from efficientnet_finetuning.device import peak_memory, prepare_process, reset_peak_memory
from efficientnet_finetuning.models.backbones import build_backbone
from efficientnet_finetuning.models.heads import attach_head
from efficientnet_finetuning.parameters import DeviceParameters

SIZE, MANY_SIZE, BATCH_SIZE = 224, 64, 64
SMALL, LARGE, MANY = 2_000, 100, 100_000


def main() -> None:
    prepare_process(DeviceParameters(accelerator="cpu"))
    classifier = classifier_of(SIZE)
    with tempfile.TemporaryDirectory() as folder:
        for name, size, count in (("small", (SIZE, SIZE), SMALL), ("large", (4_000, 3_000), LARGE)):
            files = write(Path(folder) / name, size, count)
            compare(classifier, name, files)
        watch_memory(classifier_of(MANY_SIZE), write(Path(folder) / "many", (MANY_SIZE, MANY_SIZE), MANY))


def classifier_of(size: int) -> Classifier:
    """Of random answers, with everything that a champion has."""
    model = attach_head(build_backbone("EfficientNetLite0", size, "imagenet"), 10, 0.0)
    learnt = {"references": np.full((1_000, 1_280), 0.03, np.float16), "reference_labels": np.arange(1_000) % 10}
    return Classifier(model, tuple("abcdefghij"), "EfficientNetLite0", size, "stretch", "bicubic", **learnt)


def compare(classifier: Classifier, name: str, files: list[EncodedImage]) -> None:
    """One row, best of two; the forward pass is that of the same pixels in memory."""
    pixels = Reader(files, classifier)[:]
    forward = best(lambda: classifier.answer(list(pixels), 5, BATCH_SIZE), len(files))
    decode = best(lambda: read(Reader(files, classifier)), len(files))
    whole = best(lambda: classifier.answer(files, 5, BATCH_SIZE), len(files))
    print(  # noqa: T201
        f"{name}: forward {forward:.1f}, decoding {decode:.1f}, predict {whole:.1f} images/s, "
        f"{whole / min(forward, decode):.2f} of the slower one   goal ≥ 0.9",
        flush=True,
    )


def best(way: Callable, count: int) -> float:
    """Images a second of the better of two rounds."""
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        for _ in way():
            pass
        seconds.append(time.perf_counter() - began)
    return count / min(seconds)


def read(reader: Reader):
    for start in range(0, len(reader), BATCH_SIZE):
        yield reader[start : start + BATCH_SIZE]


def watch_memory(classifier: Classifier, files: list[EncodedImage]) -> None:
    """The most memory after a tenth of the photographs and after all of them."""
    reset_peak_memory()
    done, early = 0, 0.0
    for part in classifier.answer(files, 5, BATCH_SIZE):
        done += len(part)
        if not early and done >= len(files) / 10:
            early = peak_memory() / 1e9
    print(f"{done:,} photographs: {early:.2f} GB after a tenth, {peak_memory() / 1e9:.2f} GB in all")  # noqa: T201


def write(folder: Path, size: tuple[int, int], count: int) -> list[EncodedImage]:
    """JPEG files of smooth noise, which take as long to decode as photographs do; once."""
    if not folder.exists():
        folder.mkdir()
        generator = np.random.default_rng(0)
        for row in range(min(count, 20)):
            coarse = Image.fromarray(generator.integers(0, 256, (60, 80, 3), np.uint8))
            coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"{row}.jpg", quality=90)
    files = find_photographs(folder)
    return [files[row % len(files)] for row in range(count)]


if __name__ == "__main__":
    main()
