"""What bursts on both sides of a cut do to the test score: `make bench-bursts` prints a table. Nothing here passes.

Each draw takes photographs of CIFAR-10 (``BENCH="--data-dir <TFDS folder>"``) and writes each of them five times,
cropped and brightened at random, as a folder of class folders. Test and validation are cut out of it as in a run: with
``dataset.group_pattern``, with the groups that near duplicates alone make, and without groups. The head of conf/base is
fitted on Lite0's features of the training images. It is judged by the test split and by other photographs, each cropped
and brightened once, that were never near the set. At the end come the means with 95 % intervals (Student's t over the
draws), and how many of the bursts are in one group, and how many are cut apart.

Measured (``--others 1000``; the first three rows are of 16 draws, the last three of 6 with ``--crop 1``, which only
brightens):

==================  ==========  ==========  ==============  ============
groups              test        others      bursts whole %  bursts cut %
==================  ==========  ==========  ==============  ============
group_pattern       67.3 ± 2.9  65.0 ± 0.8  100.0           0.0
near duplicates     97.7 ± 1.1  65.7 ± 0.7  1.0 ± 0.3       64.8 ± 0.9
no groups           99.9 ± 0.1  65.7 ± 0.9  0.0             81.2 ± 0.6
brightened alone:
group_pattern       66.7 ± 7.1  64.2 ± 2.8  100.0           0.0
near duplicates     66.1 ± 7.3  64.3 ± 2.5  95.3 ± 1.7      2.2 ± 0.8
no groups           99.9 ± 0.1  64.3 ± 2.1  0.0             81.7 ± 1.5
==================  ==========  ==========  ==============  ============
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from ladder import load, parameters
from levers import say
from PIL import Image
from sizes import _interval

from efficientnet_finetuning.data.groups import groups_of
from efficientnet_finetuning.data.inspection import inspect_images
from efficientnet_finetuning.data.manifest import build_manifest
from efficientnet_finetuning.data.prepare import prepare
from efficientnet_finetuning.data.sources import open_source
from efficientnet_finetuning.parameters import AuditParameters, DatasetParameters, HeadParameters

BACKBONE, SIDE, IN_BURST = "EfficientNetLite0", 96, 5
WAYS: dict[str, dict[str, Any]] = {
    "group_pattern": {"group_pattern": r"/([0-9]+)-[0-9]\.png$"},
    "near duplicates": {},
    "no groups": {"group_near_duplicates": False},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="folder with the prepared TFDS set cifar10")
    parser.add_argument("--train", default="train[32000:42000]", help="TFDS split from which photographs are drawn")
    parser.add_argument("--photographs", type=int, default=300, help="in a set, each five times")
    parser.add_argument("--others", type=int, default=2_000, help="photographs that were never near the set")
    parser.add_argument("--crop", type=float, default=0.9, help="the smallest side of a crop, as a share")
    parser.add_argument("--draws", type=int, default=10)
    options = parser.parse_args()
    options.set, options.test = "cifar10", "test[:1]"
    pool, _ = load(options, None)
    rows = [row for seed in range(options.draws) for row in measure(*pool, options, seed)]
    found = pd.DataFrame(rows)
    found["test − others"] = found["test"] - found["others"]
    say(found.drop(columns="seed").groupby("way", sort=False).agg(_interval).to_string())


def measure(images: np.ndarray, labels: np.ndarray, options: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """A row for each way to make groups, in percent."""
    generator = np.random.default_rng(seed)
    drawn = generator.permutation(len(images))[: options.photographs + options.others]
    photographs, others = drawn[: options.photographs], drawn[options.photographs :]
    with TemporaryDirectory() as folder:
        root = Path(folder)
        for label in range(labels.shape[1]):
            (root / str(label)).mkdir()
        for row in photographs:
            for index in range(IN_BURST):
                name = root / str(labels[row].argmax()) / f"{row}-{index}.png"
                Image.fromarray(varied(images[row], options.crop, generator)).save(name)
        source = open_source(DatasetParameters(path=root))
        findings = inspect_images(source, DatasetParameters(path=root), 100.0, seed)
        whole = prepare(source, findings.assign(split="train"), labels.shape[1], "train", image_size=SIDE)
        features = pd.Series(list(extract(np.stack(list(whole.images)))), whole.ids)
        away = [Image.fromarray(varied(images[row], options.crop, generator)) for row in others]
        away = [np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for image in away]
        judge = extract(np.stack(away)), labels[others]
        rows = []
        for way, dataset in WAYS.items():
            given = DatasetParameters(path=root, **dataset)
            manifest = build_manifest(findings, source.class_names, given, AuditParameters(), seed)
            rows.append({"way": way, "seed": seed} | score(manifest, features, labels.shape[1], judge))
            say(str(rows[-1]))
    return rows


def varied(image: np.ndarray, crop: float, generator: np.random.Generator) -> np.ndarray:
    """A square part of an image, as bright or up to a third brighter or darker."""
    side = int(generator.integers(round(crop * len(image)), len(image) + 1))
    top, left = generator.integers(0, len(image) - side + 1, 2)
    part = image[top : top + side, left : left + side] * generator.uniform(0.75, 1.33)
    return part.clip(0, 255).astype(np.uint8)


def extract(images: np.ndarray) -> np.ndarray:
    """Features of all stages, averaged over each image and its mirror image."""
    from efficientnet_finetuning.models.backbones import build_backbone
    from efficientnet_finetuning.models.heads import feature_extractor
    from efficientnet_finetuning.models.inference import mirrored, predict

    extractor = feature_extractor(build_backbone(BACKBONE, SIDE))
    return (predict(extractor, images, 64) + predict(extractor, mirrored(images), 64)) / 2


def score(
    manifest: pd.DataFrame, features: pd.Series, num_classes: int, others: tuple[np.ndarray, np.ndarray]
) -> dict[str, float]:
    """Accuracy on the test split and on photographs from elsewhere, and how many bursts are in one group."""
    from efficientnet_finetuning.training.head import fit_head

    splits = {
        split: (np.stack(features.loc[part["id"]].to_list()), np.eye(num_classes, dtype=np.uint8)[part["label"]])
        for split, part in manifest[manifest["split"] != ""].groupby("split")
    }
    learnt = manifest["id"][manifest["split"] == "train"], manifest["id"][manifest["split"] == "validation"]
    groups = groups_of(manifest, np.concatenate(learnt))
    head = HeadParameters(**parameters("transfer", "head"))
    kernel, bias, *_ = fit_head(*splits["train"], *splits["validation"], head, groups=groups, use_all=True, quiet=True)
    accuracies = {
        name: 100 * float(((seen @ kernel + bias).argmax(1) == truth.argmax(1)).mean())
        for name, (seen, truth) in {"test": splits["test"], "others": others}.items()
    }
    bursts = manifest["id"].str.split("-").str[0]
    whole = manifest.groupby(bursts)["group"].nunique() == 1
    cut = manifest[manifest["split"] != ""].groupby(bursts)["split"].nunique() > 1
    mixed = bursts.groupby(manifest["group"]).nunique() > 1
    return accuracies | {
        "bursts whole %": 100 * float(whole.mean()),
        "bursts cut %": 100 * float(cut.mean()),
        "groups of several bursts": float(mixed.sum()),
    }


if __name__ == "__main__":
    main()
