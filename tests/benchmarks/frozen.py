"""Features of the frozen backbone (Lite0, 96 px), kept for the next time: what heads are fitted on in benchmarks."""

from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from drawn import drawn_arrays

from efficientnet_finetuning.data.prepare import prepare
from efficientnet_finetuning.data.sources import open_source
from efficientnet_finetuning.models.inference import mirrored, predict_all
from efficientnet_finetuning.parameters import DatasetParameters, HeadParameters

# All of CIFAR-10's training split. Methods are chosen on the first and reported on the second, which none has seen.
CIFAR10 = {"cifar_dev": "train[20000:32000]", "cifar_rep": "train[32000:42000]"}
SETS = (*CIFAR10, "drawn", "photos")
SIDE = 96
CONF = Path(__file__).parents[2] / "conf" / "base"


def head_parameters() -> HeadParameters:
    recipe = yaml.safe_load((CONF / "parameters_transfer.yml").read_text(encoding="utf-8"))
    return HeadParameters.model_validate(recipe["transfer"]["head"])


def load_features(
    name: str, data_dir: Path | None, photographs: Path | None, cache: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Averages over each image and its mirror image, float32 ``(N, channels)``, and labels ``(N,)``.

    Args:
        name: one of ``SETS``.
        data_dir: folder with the prepared TFDS set cifar10.
        photographs: a folder of class folders, at 224 px.
        cache: folder that keeps ``<name>.npz``.
    """
    file = cache / f"{name}.npz"
    if not file.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(file, **_features(name, data_dir, photographs))
    with np.load(file) as kept:
        return (kept["plain"] + kept["mirrored"]) / 2, kept["labels"]


def _features(name: str, data_dir: Path | None, photographs: Path | None) -> dict[str, np.ndarray]:
    from efficientnet_finetuning.models.backbones import build_backbone
    from efficientnet_finetuning.models.heads import feature_extractor

    side = 224 if name == "photos" else SIDE
    images, labels = _images(name, data_dir, photographs, side)
    extractor = feature_extractor(build_backbone("EfficientNetLite0", side))
    features = predict_all(extractor, {"plain": images, "mirrored": mirrored(images)}, 64, "features of ")
    return features | {"labels": labels}


def _images(name: str, data_dir: Path | None, photographs: Path | None, side: int) -> tuple[np.ndarray, np.ndarray]:
    if name == "drawn":
        images, labels = drawn_arrays(side, {"train": 250})["train"]
        return images, labels.argmax(1)
    if name == "photos":
        source = open_source(DatasetParameters(path=photographs))
    else:
        options = {"train_split": CIFAR10[name], "validation_split": None, "test_split": None}
        source = open_source(DatasetParameters(name="cifar10", data_dir=data_dir, download=False, **options))
    split = next(iter(source.splits))
    manifest = pd.DataFrame(source.labels(split), columns=["id", "label"]).assign(split="train", source_split=split)
    examples = prepare(source, manifest, len(source.class_names), "train", image_size=side)
    return np.stack(list(examples.images)), np.asarray(examples.labels).argmax(1)
