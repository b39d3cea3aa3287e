"""How well shortcuts and weak spots are found, on photographs and on a drawn set.

``python tests/benchmarks/shortcuts_and_weak_spots.py --data-dir <folder>`` prints for each set, which has no shortcut
that we know of, what its properties tell, and the seconds of the measurement. Then, for both sets together, in how many
draws a weak spot is found where there is none (the predictions shuffled within each class) and where one is planted (of
one class the 15 % that are nearest to one of its images are taken for another class), for clusters of all images alone
and with those within classes.

Measured. Of 10 weak spots that were planted one by one (15 % of a class, those nearest to one of its images, taken for
another class; Lite0 at 96 px), and of 10 draws without any (predictions shuffled within each class),
``tests/benchmarks/shortcuts_and_weak_spots.py`` finds:

==========================  ==================  ===============
clusters                    CIFAR-10, 4,000     drawn, 3,400
==========================  ==================  ===============
of all images               2 (0 where none)    2 (0)
**and within classes**      6 (0)               2 (1)
==========================  ==================  ===============
"""

import argparse
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
from sets import SIDE, load_arrays

from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.quality import weak_spots
from efficientnet_finetuning.quality.image_properties import find_property_issues, measure_properties
from efficientnet_finetuning.quality.shortcuts import find_shortcuts

DRAWS = 10
# The file that the pixels came from.
OWN_SIDE = {"cifar10": 32, "drawn": 128}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with the prepared TFDS set cifar10")
    parser.add_argument("--cache", type=Path, help="keep the sets' arrays here")
    parser.add_argument("--draws", type=int, default=DRAWS, help="of planted weak spots")
    options = parser.parse_args()
    rows = []
    for name, own_side in OWN_SIDE.items():
        parts = load_arrays(name, options.data_dir, None, options.cache)
        say(shortcuts(name, *parts["train"], own_side))
        images, one_hot = (np.concatenate(arrays) for arrays in zip(*parts.values(), strict=True))
        rows += planted(name, images, one_hot.argmax(1), options.draws)
    say(pd.DataFrame(rows).to_string(index=False))


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def shortcuts(name: str, images: np.ndarray, one_hot: np.ndarray, own_side: int) -> str:
    ids, labels = np.array([f"{index:06d}" for index in range(len(images))]), one_hot.argmax(1)
    manifest = pd.DataFrame({"id": ids, "split": "train", "source_split": "train", "label": labels})
    manifest["class_name"] = labels.astype(str)
    manifest = manifest.assign(format="PNG", mode="RGB", width=own_side, height=own_side)
    began, cpu = time.perf_counter(), time.process_time()
    properties = measure_properties(manifest, {"train": Examples(images, one_hot, ids)})
    speed = (
        f"{len(ids) / (time.perf_counter() - began):.0f} images/s, {len(ids) / (time.process_time() - cpu):.0f} a core"
    )
    issues, _ = find_property_issues(properties)
    began = time.perf_counter()
    found = find_shortcuts(manifest, properties, 0)
    told = {title: f"{of['accuracy']:.3f}, {of['stands_out']:.2f}" for title, of in found["properties"].items()}
    return (
        f"{name}: {len(ids)} images measured at {speed}; issues {issues['kind'].value_counts().to_dict()}; chance "
        f"{found['chance']:.3f}, all properties {found['accuracy']:.3f} ({time.perf_counter() - began:.1f} s); of each "
        f"the accuracy and how far a class stands out: {told}; warnings {found['warnings']}"
    )


def planted(name: str, images: np.ndarray, labels: np.ndarray, draws: int) -> list[dict[str, object]]:
    features = features_of(images)
    predicted = out_of_fold(features, labels)
    num_classes = labels.max() + 1
    rows = [
        {"set": name, "images": len(labels), "clusters": clusters, "draws": draws, "found": 0, "of none": 0}
        for clusters in ("of all", "of all and within classes")
    ]
    table = pd.DataFrame({"id": np.arange(len(labels)).astype(str), "split": "train"})
    class_names = [str(label) for label in range(num_classes)]
    for draw in range(draws):
        generator = np.random.default_rng(draw)
        shuffled = predicted.copy()
        for label in range(num_classes):
            of_class = np.flatnonzero(labels == label)
            shuffled[generator.permutation(of_class)] = predicted[of_class]
        weak, other = generator.permutation(num_classes)[:2]
        of_class = np.flatnonzero(labels == weak)
        distances = np.linalg.norm(features[of_class] - features[generator.choice(of_class)], axis=1)
        spoilt = shuffled.copy()
        spoilt[of_class[distances.argsort()[: round(0.15 * len(of_class))]]] = other
        for row in rows:
            most = 1 if row["clusters"] == "of all" else weak_spots._MOST_OF_CLASS
            with patch.object(weak_spots, "_MOST_OF_CLASS", most):
                nothing, spots = (
                    weak_spots.find_weak_spots(features, np.eye(num_classes)[answers], labels, table, class_names, 0)[
                        "spots"
                    ]
                    for answers in (shuffled, spoilt)
                )
            row["of none"] += bool(nothing)
            row["found"] += any((spot["true"], spot["predicted"]) == (str(weak), str(other)) for spot in spots)
    return rows


def features_of(images: np.ndarray) -> np.ndarray:
    from efficientnet_finetuning.models.backbones import build_backbone
    from efficientnet_finetuning.models.heads import feature_extractor
    from efficientnet_finetuning.models.inference import predict

    return predict(feature_extractor(build_backbone("EfficientNetLite0", SIDE, "imagenet")), images, 64)


def out_of_fold(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    head = make_pipeline(StandardScaler(), PCA(300, random_state=0), LogisticRegression(C=0.003, max_iter=200))
    return cross_val_predict(head, features, labels, cv=5)


if __name__ == "__main__":
    main()
