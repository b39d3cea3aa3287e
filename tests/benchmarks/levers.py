"""What each lever of fine-tuning brings, on photographs and on a drawn set far from them.

``python tests/benchmarks/levers.py --data-dir <folder> --append levers.jsonl`` starts every lever from the same
transfer model (Lite0, 96 px) and prints a line for each lever, set and seed: top-1 of transfer and after fine-tuning,
the lowest epoch end against transfer, the loss (plain cross-entropy, whatever the lever trains with) and the seconds of
training; all on validation images, since the test split is for reports alone. At the end comes a table against the
recipe without a lever, seed by seed. What ``--append`` has kept is not measured again; ``--table`` prints it.

Measured: validation top-1 in points, Lite0 at 96 px from a fitted head, one seed (a point of luck is likely), on 2,000
images of CIFAR-10 and on some 2,000 drawn ones (letters, shapes, textures).

Three epochs, against the recipe, on 2,000 and 1,360 other images:

====================================  ========  =====  ====================================================
lever                                 CIFAR-10  drawn  notes
====================================  ========  =====  ====================================================
the recipe: rate 6e-4, decay 0.8          80.5   91.4  the head alone: 70.8, 74.5; first epoch: 73.4, 80.9
rate 3e-4, stage_decay 1                  -0.6   -1.2  first epoch 0.8 below the head alone
rate 3e-4, stage_decay 0.8                -0.6   -3.3
rate 1e-3, stage_decay 0.8                -0.5   -0.2  first epoch 3.8 below the head alone
batch 16, rate 3e-4, stage_decay 0.8      +0.2   -2.4
batch 16, rate 5e-4, stage_decay 0.7      -0.5   -2.2
drop_connect_rate 0                       -0.8   -0.2  first epoch 2.0 below the head alone
label_smoothing 0.1                       +0.1
from block4a, 4 cached views              +0.1         four epochs in four fifths of the time
mixup 0.2                                        -2.0  not kept; -0.9 on CIFAR-10 at rate 3e-4, stage_decay 1
folded BatchNorm left as it is            +0.2         at rate 3e-4, stage_decay 1; a tenth more processor time
biases of folded BatchNorm frozen         +0.1         likewise; not kept, for simplicity
evaluation.flip                           +1.3   +1.6  likewise
tested at 112 px                          -0.8   +2.1  likewise; not kept: images would be stored twice
====================================  ========  =====  ====================================================

Longer trainings, and what was tried for them, on 4,000 and 850 other images, with ``evaluation.flip``; a parameter
counts beside those of the line "three epochs" or "twelve epochs" above it:

====================================  ========  =====  ====================================================
lever                                 CIFAR-10  drawn  notes
====================================  ========  =====  ====================================================
three epochs                              82.3   92.5  84.9 from 4,500 images of CIFAR-10
color_jitter 0.3                          -0.5   +0.2  0.2 with 4,500 images: 0.0
color_jitter 0.3, erasing 0.5             -0.4   +1.3  with 4,500 images -0.6; erasing 0.25 alone: -0.7
weight_decay 0                            -0.1   +0.1  this and the next four: against 82.6, 91.2
label_smoothing 0.1                       -0.3   +1.6  with another seed: -0.8
freeze_batch_norm false                  -11.0  -12.1  with BatchNorm's momentum at 0.9 instead of 0.99: -10.8
64 px for three epochs, then 96 for two   -1.7   -0.1  a quarter more time; not kept
Keras' RandAugment, 2 of factor 0.3       -3.6         six times the time; not kept
twelve epochs                             81.8   95.8  training loss 0.02, 0.01; 86.0 from 4,500 images
color_jitter 0.3                          +0.6
erasing 0.5                               +0.1
color_jitter 0.3, erasing 0.5             +1.6   +1.2  for few images; loss 0.70 → 0.62, 0.16 → 0.10
color_jitter 0.4, erasing 0.8, crops      -0.3         of 50 to 100 % of the image; not kept
crops of 40 to 100 % of the image         +0.1         not kept
cutmix                                    -1.4         on 2,000 other images, without flip; not kept
rate 3e-4                                 +1.3   -0.9  with color_jitter and erasing: +1.3, too
the same three, 4,500 images              -0.5         with drop_connect_rate 0.4, label_smoothing 0.1 too: 0.0
rate 1.5e-3                               -1.2
stage_decay 1                             -0.7         rate 1e-3, batch 64, not folded, 4,500 images: +0.2
the same, no drop connect                  0.0         4,500 images, weight_decay 0.004, a quarter warm-up
mixup 0.2                                  0.0         4,500 images, training loss 0.50; not kept
three runs of four epochs, averaged       +0.5         4,500 images: weights +0.5, logits +0.7; not kept
at 128 px, seven epochs, rate 4e-4        +2.7         the same time; the head alone: +2.0
at 160 px, four epochs, rate 5e-4         +3.0         two thirds of the time; the head alone: +1.2
at 192 px, from block4a, four views       +0.4         4,500 images, six epochs; the head alone: +4.2
at 192 px, six epochs                     +1.7         4,500 images, a third more time
at 224 px, five epochs                    +1.9         4,500 images, half as much time again
BatchNorm's statistics from the images    -8.4   -6.9  of the head alone; not kept
====================================  ========  =====  ====================================================

From scratch (2,000 images of CIFAR-10, eight epochs, 39.0 % of 2,000 others) an exponential average of the weights
brought +0.3 at a momentum of 0.98 and +0.1 at 0.995, after up to +2.7 half-way: a schedule that ends at zero does
the same; not kept.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from sets import SETS, SIDE, Arrays, load_arrays

from efficientnet_finetuning.device import select_device
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import DeviceParameters, HeadParameters, TrainingParameters

# By name: parameters of fine-tuning's `training` group, and the values that take the place of the recipe's.
LEVERS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "rate_1e-4": {"learning_rate": 1e-4},
    "rate_3e-4": {"learning_rate": 3e-4},
    "rate_1e-3": {"learning_rate": 1e-3},
    "batch_16": {"batch_size": 16},
    "batch_64": {"batch_size": 64},
    "no_decay": {"weight_decay": 0.0},
    "smoothing": {"label_smoothing": 0.1},
    "no_drop_connect": {"drop_connect_rate": 0.0},
    "no_head_dropout": {"head_dropout": 0.0},
    "rotation": {"augmentation.rotation": 0.05},
    "contrast": {"augmentation.contrast": 0.2},
    "color_jitter": {"augmentation.color_jitter": 0.3},
    "erasing": {"augmentation.erasing": 0.5},
    "long": {"augmentation.color_jitter": 0.3, "augmentation.erasing": 0.5},
    "no_translation": {"augmentation.translation": 0.0},
    "no_flip": {"augmentation.flip": "none"},
    "from_block6a": {"unfreeze_from": "block6a"},
    "from_block4a": {"unfreeze_from": "block4a"},
    "batch_norm": {"freeze_batch_norm": False},
}
BACKBONE = "EfficientNetLite0"
CONF = Path(__file__).parents[2] / "conf" / "base"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder with the prepared TFDS set cifar10")
    parser.add_argument("--levers", type=names_of(LEVERS), default=list(LEVERS), help="default: all")
    parser.add_argument("--sets", type=names_of(SETS), default=list(SETS), help="default: all")
    parser.add_argument("--seeds", type=int, default=1, help="how many; the table shows means")
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--images", type=int, help="so many of each split at most, for a smoke run")
    parser.add_argument("--cache", type=Path, help="keep the sets' arrays here; empty it when drawn.py changes")
    parser.add_argument("--append", type=Path, help="JSON lines to which each measurement is added")
    parser.add_argument("--table", type=Path, help="print the table of such a file and do nothing else")
    options = parser.parse_args()
    if options.table:
        return say(table(read_rows(options.table)))
    if options.data_dir is None and "cifar10" in options.sets:
        parser.error("--data-dir is needed for cifar10; --sets drawn does without.")
    say(select_device(DeviceParameters()))
    return say(table(measure_all(options)))


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def names_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """A type for argparse: names with commas between them, all of them known."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}. Known: {', '.join(known)}")
        return names

    return parse


def read_rows(file: Path | None) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file and file.is_file() else []


def measure_all(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each lever, set and seed, from the file where it is there already; the recipe is always among them."""
    recipe = yaml.safe_load((CONF / "parameters_finetune.yml").read_text())["finetune"]["training"]
    recipe["epochs"] = options.epochs or recipe["epochs"]
    levers = list(dict.fromkeys(["recipe", *options.levers]))
    trainings = {lever: with_lever(recipe, LEVERS[lever]) for lever in levers}
    same = {
        "recipe": trainings["recipe"].model_dump_json(),
        "epochs": recipe["epochs"],
        "images": options.images or "all",
    }
    kept, rows = read_rows(options.append), []
    for name in options.sets:
        arrays = load_arrays(name, options.data_dir, options.images, options.cache)
        kernel, bias, transfer = fit_transfer(arrays)
        for seed in range(options.seeds):
            for lever, training in trainings.items():
                what = same | {"set": name, "lever": lever, "overrides": LEVERS[lever], "seed": seed}
                row = next((row for row in kept if what.items() <= row.items()), None)
                if row is None:
                    try:
                        row = what | {"transfer": transfer} | measure(arrays, kernel, bias, transfer, training, seed)
                    except InputError as error:  # it diverged; the other levers have not
                        say(f"{name:<8} {lever:<16} seed {seed}: {error}")
                        continue
                    if options.append:
                        with options.append.open("a") as file:
                            file.write(json.dumps(row) + "\n")
                rows.append(row)
                say(line(row))
    return rows


def with_lever(recipe: dict[str, Any], lever: dict[str, Any]) -> TrainingParameters:
    """The recipe with the values of a lever, whose dotted names lead into groups."""
    raw = json.loads(json.dumps(recipe))
    for name, value in lever.items():
        *groups, last = name.split(".")
        target = raw
        for group in groups:
            target = target.setdefault(group, {})
        target[last] = value
    return TrainingParameters.model_validate(raw)


def fit_transfer(arrays: Arrays) -> tuple[np.ndarray, np.ndarray, float]:
    """Kernel and bias of the head on the frozen backbone, and its top-1 in 0–1."""
    import keras

    from efficientnet_finetuning.models.backbones import build_backbone
    from efficientnet_finetuning.models.inference import predict
    from efficientnet_finetuning.training.head import fit_head

    head = HeadParameters.model_validate(
        yaml.safe_load((CONF / "parameters_transfer.yml").read_text())["transfer"]["head"]
    )
    # Fine-tuning starts from a head on the last feature map.
    extractor = keras.Sequential([build_backbone(BACKBONE, SIDE), keras.layers.GlobalAveragePooling2D()])
    features = {split: predict(extractor, images, head.batch_size) for split, (images, _) in arrays.items()}
    labels = {split: labels for split, (_, labels) in arrays.items()}
    kernel, bias, path, _ = fit_head(
        features["train"], labels["train"], features["validation"], labels["validation"], head
    )
    return kernel, bias, max(row["val_accuracy"] for row in path)


def measure(
    arrays: Arrays, kernel: np.ndarray, bias: np.ndarray, transfer: float, training: TrainingParameters, seed: int
) -> dict[str, float]:
    """Fine-tune from the transfer model; accuracies in 0–1 and the loss are those of the weights that are kept."""
    import keras

    from efficientnet_finetuning.models.backbones import build_backbone
    from efficientnet_finetuning.models.heads import assemble, dense_head
    from efficientnet_finetuning.models.inference import predict
    from efficientnet_finetuning.training.fit import fit

    keras.backend.clear_session()  # or the graphs of all levers pile up
    start = assemble(build_backbone(BACKBONE, SIDE), dense_head(kernel, bias), training.head_dropout)
    began = time.perf_counter()
    model, history, _ = fit(start, BACKBONE, arrays["train"], arrays["validation"], training, seed)
    seconds = time.perf_counter() - began
    images, labels = arrays["validation"]
    logits = predict(model, images, 64)
    chosen = logits[labels.astype(bool)]
    return {
        "accuracy": float((logits.argmax(1) == labels.argmax(1)).mean()),
        "lowest": min(row["val_accuracy"] for row in history) - transfer,
        "loss": float((np.logaddexp.reduce(logits, axis=1) - chosen).mean()),
        "seconds": seconds,
    }


def line(row: dict[str, Any]) -> str:
    return (
        f"{row['set']:<8} {row['lever']:<16} seed {row['seed']}: transfer {100 * row['transfer']:.1f} %, fine-tuned "
        f"{100 * row['accuracy']:.1f} %, lowest epoch {100 * row['lowest']:+.1f} points, loss {row['loss']:.3f}, "
        f"{row['seconds']:.0f} s"
    )


def table(rows: list[dict[str, Any]]) -> str:
    """Means over the seeds; points are differences from the same recipe without a lever, seed by seed."""
    if not rows:
        return "Nothing is measured."
    groups = ["recipe", "set", "epochs", "images"]
    run = [*groups, "seed"]
    measured = pd.DataFrame(rows).drop_duplicates([*run, "lever"], keep="last")
    recipe = measured[measured["lever"] == "recipe"][[*run, "accuracy", "loss", "seconds"]]
    both = measured.merge(recipe, on=run, how="left", suffixes=("", "_recipe"))
    shown = pd.DataFrame(
        {
            **{name: both[name] for name in (*groups, "lever")},
            "seeds": 1,
            "top-1 %": 100 * both["accuracy"],
            "points": 100 * (both["accuracy"] - both["accuracy_recipe"]),
            "lowest": 100 * both["lowest"],
            "loss": both["loss"],
            "seconds": both["seconds"],
            "× recipe": both["seconds"] / both["seconds_recipe"],
        }
    )
    means = dict.fromkeys(shown.columns[6:], "mean")
    grouped = shown.groupby([*groups, "lever"], sort=False).agg({"seeds": "sum", **means})
    return grouped.reset_index().drop(columns="recipe").to_string(index=False, float_format="{:.2f}".format)


if __name__ == "__main__":
    main()
