"""Accuracy against time, ours beside the Keras example's: `make bench` prints a table. Nothing here passes or fails.

Both get the same images, weights, size and cores. They run in turns, an epoch or a stage each, and a clock runs for
whoever's turn it is, so that a busy machine is busy for both. Building, compiling and caching count; looking at the
test images to print this table does not, though the example looks at them after every epoch by itself. Ours chooses by
a tenth of the training images, which it does not train on.

Goals on CIFAR-10 (5,000 / 2,000), Lite0, 96 px: the example's final accuracy in ≤ 1/50 of its time; ≥ 20 points more
within its time; with a backbone and a size that it chose by itself, choosing included, ≥ 22 (``--choose``).
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import yaml

ROOT = Path(__file__).parents[2]
CONTESTANTS = ("example", "transfer", "finetune", "budget", "chosen")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="cifar10_sample", help="a TFDS set, or `drawn` for images made by code")
    parser.add_argument("--data-dir", default=str(ROOT / "data" / "01_raw"), help="where the TFDS set lies")
    parser.add_argument("--train", default="train", help="TFDS split")
    parser.add_argument("--test", default="test", help="TFDS split")
    parser.add_argument("--backbone", default="EfficientNetLite0")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--choose", action="store_true", help="let a last run choose its backbone and its size")
    parser.add_argument("--worker", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--minutes", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments)
    else:
        compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    """Run the contestants in turns and print what they reached, and when."""
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTESTANTS}
    quick = (Contestant("transfer", arguments), Contestant("finetune", arguments))
    example = Contestant("example", arguments)
    take_turns(rounds, [example, *quick])
    minutes = rounds["example"][-1]["seconds"] / 60
    for name in ("budget", "chosen") if arguments.choose else ("budget",):
        options = argparse.Namespace(**vars(arguments) | {"minutes": minutes})
        take_turns(rounds, [Contestant(name, options)])
    report(rounds)


def report(rounds: dict[str, list[dict[str, Any]]]) -> None:
    print(f"\n{'who':<10} {'stage':<14} {'seconds':>8} {'test top-1':>11}")  # noqa: T201
    for name, rows in rounds.items():
        for row in rows:
            print(f"{name:<10} {row['stage']:<14} {row['seconds']:>8.1f} {row['top1']:>10.1%}")  # noqa: T201
    final = rounds["example"][-1]
    ours = [row for name, rows in rounds.items() if name != "example" for row in rows if "top1" in row]
    there = min((row["seconds"] for row in ours if row["top1"] >= final["top1"]), default=float("nan"))
    print(f"\nthe example's {final['top1']:.1%} after {final['seconds'] / there:.0f} × less time (goal ≥ 50)")  # noqa: T201
    for name, goal in (("budget", 20), ("chosen", 22)):
        if rounds.get(name):
            points = 100 * (rounds[name][-1]["top1"] - final["top1"])
            print(f"{name}, within the example's time: {points:+.1f} points (goal ≥ {goal})")  # noqa: T201


class Contestant:
    """A process that works while it is its turn."""

    def __init__(self, worker: str, arguments: argparse.Namespace) -> None:
        self.name = worker
        options = {"worker": worker} | {key: value for key, value in vars(arguments).items() if value is not None}
        options.pop("choose")
        command = [sys.executable, __file__]
        command += [f"--{key.replace('_', '-')}={value}" for key, value in (options | {"worker": worker}).items()]
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if worker == "chosen" else subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", f"{self.name} did not start"

    def turn(self) -> dict[str, Any] | None:
        """Let it work until its next result; ``None`` when it has finished."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} died: {self._process.wait()}")
        return json.loads(line)


def take_turns(rounds: dict[str, list[dict[str, Any]]], contestants: list[Contestant]) -> None:
    waiting = list(contestants)
    while waiting:
        for contestant in tuple(waiting):
            row = contestant.turn()
            if row is None:
                waiting.remove(contestant)
            else:
                rounds[contestant.name].append(row)
                print(contestant.name, row, file=sys.stderr, flush=True)  # noqa: T201


class Clock:
    """Runs while it is this process' turn."""

    def __init__(self) -> None:
        self._seconds, self._since = 0.0, 0.0

    def wait(self) -> None:
        """Until it is this process' turn."""
        sys.stdin.readline()
        self._since = time.monotonic()

    def report(self, stage: str, top1: Callable[[], float]) -> None:
        """Tell a result, which is judged off the clock, and wait for the next turn."""
        self._seconds += time.monotonic() - self._since
        row = {"stage": stage, "seconds": round(self._seconds, 1), "top1": round(top1(), 4)}
        self._say(row)
        self.wait()

    def end(self) -> None:
        """Tell that there is nothing more to come."""
        self._say(None)

    def _say(self, row: dict[str, Any] | None) -> None:
        print(json.dumps(row), flush=True)  # noqa: T201


def work(arguments: argparse.Namespace) -> None:
    """A contestant's own process."""
    from efficientnet_finetuning.device import prepare_process
    from efficientnet_finetuning.parameters import DeviceParameters

    prepare_process(DeviceParameters())
    train, test = load(arguments, None if arguments.worker == "chosen" else arguments.size)
    import keras  # noqa: F401  # what everybody pays before any work, whoever's turn it is

    print("ready", flush=True)  # noqa: T201
    clock = Clock()
    clock.wait()
    (example if arguments.worker == "example" else ours)(arguments, train, test, clock)
    clock.end()


def example(arguments: argparse.Namespace, train: Any, test: Any, clock: Clock) -> None:
    from keras_example import run_example

    from efficientnet_finetuning.models.backbones import build_backbone

    backbone = build_backbone(arguments.backbone, arguments.size, arguments.weights)
    run_example(
        backbone,
        train,
        test,
        lambda stage, model: clock.report(stage, lambda: top1(lambda images: model.predict(images, verbose=0), test)),
    )


def ours(arguments: argparse.Namespace, train: Any, test: Any, clock: Clock) -> None:
    """The frozen transfer, and from there the fine-tuning of conf/base, or one that fits into a time."""
    from efficientnet_finetuning.parameters import TrainingParameters
    from efficientnet_finetuning.training.fit import fit

    began = time.monotonic()
    training = TrainingParameters(**parameters("finetune", "training"))
    held_out = np.arange(len(train[1])) % 10 == 0
    train, validation = ([array[rows] for array in train] for rows in (~held_out, held_out))
    backbone, size, stage = arguments.backbone, arguments.size, ""
    if arguments.worker == "chosen":
        with redirect_stdout(sys.stderr):  # Keras says there what it downloads, and rows go to standard output
            backbone, size = choose(train, arguments.minutes, began)
        stage = f"{backbone.removeprefix('EfficientNet')} {size} px, "
        train, validation = ((resized(images, size), labels) for images, labels in (train, validation))

    def judge(model: Any) -> Callable[[], float]:
        return lambda: top1(answers(model, backbone, size), (resized(test[0], size), test[1]))

    is_transfer = arguments.worker == "transfer"
    start = transfer(train, validation, backbone, size, arguments.weights, as_start=not is_transfer)
    if is_transfer:
        clock.report("transfer", judge(start))
        return
    if arguments.worker != "finetune":
        left = arguments.minutes - (time.monotonic() - began) / 60
        training = training.model_copy(update={"time_budget_minutes": left})
    model, rows, _ = fit(start, backbone, train, validation, training, 42)
    clock.report(f"{stage}{len(rows)} epochs", judge(model))


def choose(train: Any, minutes: float, began: float) -> tuple[str, int]:
    """Backbone and size as the pipeline `choose_backbone` recommends them, within what is left of the time."""
    import pandas as pd

    from efficientnet_finetuning.evaluation.backbone_choice import format_candidates, recommend
    from efficientnet_finetuning.parameters import ChoiceParameters, HeadParameters, TrainingParameters
    from efficientnet_finetuning.training.candidates import measure_candidates

    given = yaml.safe_load((ROOT / "conf" / "base" / "parameters.yml").read_text(encoding="utf-8"))["choose_backbone"]
    choice = ChoiceParameters(**given | {"time_budget_minutes": minutes})
    rows = np.random.default_rng(0).permutation(len(train[1]))[: choice.max_images]
    candidates = pd.DataFrame(
        measure_candidates(
            lambda size: (resized(train[0][rows], size), train[1][rows]),
            len(train[1]),
            choice,
            HeadParameters(**parameters("transfer", "head")),
            TrainingParameters(**parameters("finetune", "training")),
        )
    )
    spent = (time.monotonic() - began) / 60
    chosen = recommend(candidates, minutes - spent)
    report = f"{format_candidates(candidates)}\n{chosen['words']} Choosing took {60 * spent:.0f} s."
    print(report, file=sys.stderr, flush=True)  # noqa: T201
    return chosen["backbone"], chosen["image_size"]


def transfer(
    train: Any, validation: Any, backbone: str, size: int, weights: str = "imagenet", *, as_start: bool = False
) -> Any:
    """The head of conf/base on the frozen backbone, or what fine-tuning starts from: from pixels to logits."""
    from efficientnet_finetuning.models.backbones import build_backbone
    from efficientnet_finetuning.models.heads import assemble, dense_head, feature_extractor
    from efficientnet_finetuning.models.inference import predict
    from efficientnet_finetuning.parameters import HeadParameters
    from efficientnet_finetuning.training.head import fit_head

    head_parameters = HeadParameters(**parameters("transfer", "head"))
    network = build_backbone(backbone, size, weights)
    images = np.concatenate([train[0], validation[0]])
    features = predict(feature_extractor(network), images, head_parameters.batch_size)
    if as_start:
        features = features[:, -network.output_shape[-1] :]
    kernel, bias, *_ = fit_head(
        features[: len(train[1])],
        train[1],
        features[len(train[1]) :],
        validation[1],
        head_parameters,
        use_all=not as_start,
    )
    return assemble(network, dense_head(kernel, bias), head_parameters.head_dropout)


def answers(model: Any, backbone: str, size: int) -> Callable[[np.ndarray], np.ndarray]:
    """A model's logits as evaluation computes them, mirror images included."""
    from efficientnet_finetuning.models.classifier import TrainedClassifier

    class_names = tuple("x" * model.output_shape[-1])
    return TrainedClassifier(model, class_names, backbone, size, "", "", flip=True).predict_logits


def parameters(regime: str, group: str) -> dict[str, Any]:
    text = (ROOT / "conf" / "base" / f"parameters_{regime}.yml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)[regime][group]
    return found


def top1(predict: Callable[[np.ndarray], np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> float:
    return float((predict(test[0]).argmax(1) == test[1].argmax(1)).mean())


def load(arguments: argparse.Namespace, size: int | None) -> tuple[Any, Any]:
    """Training and test images as uint8 arrays of the size, or as they are, with one-hot labels."""
    if arguments.set == "drawn":
        from drawn import drawn_arrays

        splits = drawn_arrays(size or 224)
        images, labels = (np.concatenate(parts) for parts in zip(splits["train"], splits["validation"], strict=True))
        # They come class after class, and the example does not shuffle.
        order = np.random.default_rng(0).permutation(len(images))
        return (images[order], labels[order]), splits["test"]
    import tensorflow_datasets as tfds

    def rows(split: str) -> Iterator[tuple[np.ndarray, int]]:
        for example in tfds.as_numpy(builder.as_dataset(split=split)):
            yield example["image"], int(example["label"])

    builder = tfds.builder(arguments.set, data_dir=arguments.data_dir)
    num_classes = builder.info.features["label"].num_classes
    splits = []
    for split in (arguments.train, arguments.test):
        images, labels = zip(*rows(split), strict=True)
        images = np.stack(images) if size is None else resized(images, size)
        splits.append((images, np.eye(num_classes, dtype=np.uint8)[list(labels)]))
    return splits[0], splits[1]


def resized(images: Any, size: int) -> np.ndarray:
    from PIL import Image

    whole = (Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC) for image in images)
    return np.stack([np.asarray(image) for image in whole])


if __name__ == "__main__":
    main()
