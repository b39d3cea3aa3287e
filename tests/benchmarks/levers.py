"""What each lever of fine-tuning brings, on photographs and on a drawn set far from them.

``python tests/benchmarks/levers.py --data-dir <folder> --append levers.jsonl`` starts every lever from the same
transfer model (Lite0, 96 px) and prints a line for each lever, set and seed: top-1 of transfer and after fine-tuning,
the lowest epoch end against transfer, the loss (plain cross-entropy, whatever the lever trains with) and the seconds of
training; all on validation images, since the test split is for reports alone. At the end comes a table against the
recipe without a lever, seed by seed. What ``--append`` has kept is not measured again; ``--table`` prints it.
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
