"""What a large set costs, alone and on two workers, and what that means for ImageNet.

``python tests/benchmarks/scale.py --images 200000 --photos <folder>`` draws so many tiny images, and prints seconds,
memory and ratios for looking, preparing, features and training, each by one process and by two workers of half the
cores. Rates at 224 px come from the photographs. From both it extrapolates.
"""

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd
from PIL import Image

from efficientnet_finetuning.cluster.workers import RayWorkers
from efficientnet_finetuning.data.groups import group_images
from efficientnet_finetuning.data.inspection import inspect_images
from efficientnet_finetuning.data.prepare import prepare
from efficientnet_finetuning.data.sources import fingerprint, open_source
from efficientnet_finetuning.parameters import ClusterParameters, DatasetParameters, DeviceParameters
from efficientnet_finetuning.workers import Workers, num_cores

IMAGENET = 1_281_167
CLASSES = 10


def draw(folder: Path, first: int, count: int) -> None:
    generator = np.random.default_rng(first)
    for index in range(first, first + count):
        pixels = generator.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).resize((32, 32)).save(folder / f"{index % CLASSES}" / f"{index:07d}.jpg")


def tiny_images(folder: Path, count: int) -> None:
    for label in range(CLASSES):
        (folder / f"{label}").mkdir(parents=True)
    with ProcessPoolExecutor(num_cores()) as pool:
        starts = range(0, count, 1_000)
        list(pool.map(draw, [folder] * len(starts), starts, [min(1_000, count - start) for start in starts]))


class Memory(threading.Thread):
    """The most memory that this process and its workers held, in GB, looked at ten times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.own = self.worker = 0.0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.1):
            self.own = max(self.own, resident(os.getpid()))
            self.worker = max([self.worker, *(resident(process) for process in workers_of_ray())])


def workers_of_ray() -> Iterator[int]:
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if file.read_bytes().startswith((b"ray::_run", b"ray::Rank")):
                yield int(file.parent.name)
        except OSError:
            continue


def resident(process: int) -> float:
    """Memory of a process that no file on disk backs, in GB."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e6


@contextmanager
def measured(rows: list[dict[str, Any]], step: str, workers: Workers, images: int) -> Iterator[None]:
    memory = Memory()
    memory.start()
    began = time.perf_counter()
    yield
    seconds = time.perf_counter() - began
    memory.over.set()
    memory.join()
    rows.append(
        {
            "step": step,
            "workers": workers.count,
            "seconds": seconds,
            "images/s": images / seconds,
            "GB here": memory.own,
            "GB worker": memory.worker,
        }
    )
    print(rows[-1], flush=True)  # noqa: T201


def steps(workers: Workers, folder: Path, photos: Path, size: int, rows: list[dict[str, Any]], name: str) -> Any:
    """Look, prepare and compute features; returns the examples."""
    from efficientnet_finetuning.models.backbones import build_backbone
    from efficientnet_finetuning.models.heads import feature_extractor
    from efficientnet_finetuning.models.inference import predict

    dataset = DatasetParameters(path=photos)
    source = open_source(dataset)
    count = sum(source.splits.values())
    with measured(rows, f"look, {name}", workers, count):
        findings = inspect_images(source, dataset, 100, 0, folder / "look", workers.map_blocks)
    manifest = findings[(findings["excluded"] == "") | findings["excluded"].str.startswith("duplicate")]
    manifest = manifest.assign(split="train")
    with measured(rows, f"prepare, {name}", workers, len(manifest)):
        examples = prepare(
            source,
            manifest,
            CLASSES,
            "train",
            image_size=size,
            folder=folder / "prepare",
            map_blocks=workers.map_blocks,
        )
    extractor = feature_extractor(build_backbone("EfficientNetLite0", size, "imagenet", seed=0))
    with measured(rows, f"features, {name}", workers, len(manifest)):
        predict(extractor, examples.images, 64, map_blocks=workers.map_blocks)
    return examples


def train(workers: Workers, examples: Any, images: int, rows: list[dict[str, Any]], name: str) -> None:
    """One epoch of some of the images; its seconds without compilation are the second epoch's."""
    from efficientnet_finetuning.models.backbones import build_backbone
    from efficientnet_finetuning.models.heads import attach_head
    from efficientnet_finetuning.parameters import TrainingParameters
    from efficientnet_finetuning.training.fit import fit

    # 96 px: at 32 px a step is mostly the optimizer's, which no rank can leave to another.
    pixels, labels = np.repeat(np.repeat(examples.images[:images], 3, 1), 3, 2), examples.labels[:images]
    start = attach_head(build_backbone("EfficientNetLite0", pixels.shape[1], "imagenet", seed=0), CLASSES, 0.2)
    training = TrainingParameters(epochs=2, batch_size=32, learning_rate=1e-4, keep="last")
    with measured(rows, f"training, {name}", workers, images):
        history = fit(
            start, "EfficientNetLite0", (pixels, labels), (pixels[:64], labels[:64]), training, 0, workers=workers
        ).history
    rows[-1] |= {"seconds": history[1]["seconds"], "images/s": images / history[1]["seconds"]}


def near_hashes(count: int) -> float:
    """Seconds to find near duplicates among random hashes."""
    hashes = [f"{value:016x}" for value in np.random.default_rng(0).integers(0, 2**64, count, np.uint64)]
    findings = pd.DataFrame({"id": np.arange(count).astype(str), "perceptual_hash": hashes}).assign(
        group="", excluded=""
    )
    began = time.perf_counter()
    group_images(findings, None)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--photos", type=Path, help="folder of class folders, for rates at 224 px")
    parser.add_argument("--training", type=int, default=256, help="images of the epoch that is timed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tiny_images(folder / "tiny", arguments.images)
        began = time.perf_counter()
        fingerprint(DatasetParameters(path=folder / "tiny"))
        print(f"names, sizes and times of {arguments.images:,} files: {time.perf_counter() - began:.1f} s")  # noqa: T201
        rows: list[dict[str, Any]] = []
        for workers in (Workers(), None):
            opened = workers or RayWorkers(DeviceParameters(workers=2), ClusterParameters(), folder)
            scratch = folder / f"{opened.count}"
            examples = steps(opened, scratch / "tiny", folder / "tiny", 32, rows, "32 px")
            train(opened, examples, arguments.training, rows, "96 px")
            if arguments.photos:
                steps(opened, scratch / "photos", arguments.photos, 224, rows, "224 px")
            if isinstance(opened, RayWorkers):
                opened.close()
        print(pd.DataFrame(rows).round(2).to_string(index=False))  # noqa: T201
        print(f"near duplicates among {IMAGENET:,} random hashes: {near_hashes(IMAGENET):.0f} s")  # noqa: T201


if __name__ == "__main__":
    main()
