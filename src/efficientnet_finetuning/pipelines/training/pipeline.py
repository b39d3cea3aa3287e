"""start, train_images, validation_images → model, held_out, history: one pipeline, two namespaces."""

from collections.abc import Callable

from kedro.pipeline import Node, Pipeline

from efficientnet_finetuning.models.classifier import TrainedClassifier
from efficientnet_finetuning.pipelines.training.nodes import (
    build_random_start,
    build_seed_start,
    find_learning_rate,
    plot_learning_rates,
    train_classifier,
)


def create_baseline_pipeline() -> Pipeline:
    """Train the network from random weights: what the images alone can teach."""
    return _start("baseline", build_random_start) + _training("baseline", start="baseline.start")


def create_finetune_pipeline() -> Pipeline:
    """Go on from a fitted head, with the backbone or its upper blocks unfrozen."""
    return _training("finetune", start="finetune_start")


def create_learning_rate_pipeline() -> Pipeline:
    """Find the learning rate at which fine-tuning could begin."""
    return Pipeline(
        [
            Node(
                find_learning_rate,
                ["finetune_start", "train_images", "class_names", "params:finetune.training", "params:seed"],
                "learning_rates",
                name="find_learning_rate",
                tags="gpu",
            ),
            Node(
                plot_learning_rates,
                ["learning_rates", "class_names", "params:finetune.training"],
                "learning_rate_curve",
                name="plot_learning_rates",
                tags="cpu",
            ),
        ]
    )


def create_seed_parity_pipeline() -> Pipeline:
    """The Keras example "Image classification via fine-tuning with EfficientNet": its head, then its last block."""
    return (
        _start("seed_frozen", build_seed_start)
        + _training("seed_frozen", start="seed_frozen.start")
        + _training("seed_finetune", start="seed_frozen_model")
    )


def _start(regime: str, build: Callable[..., TrainedClassifier]) -> Pipeline:
    start = Node(
        build,
        [
            "class_names",
            "params:backbone",
            "params:preprocessing",
            "params:device",
            f"params:{regime}.training",
            "params:seed",
        ],
        f"{regime}.start",
        name=build.__name__,
        namespace=regime,
        tags="cpu",
    )
    return Pipeline([start])


def _training(regime: str, start: str) -> Pipeline:
    train = Node(
        train_classifier,
        [
            "start",
            "train_images",
            "validation_images",
            "class_names",
            "params:training",
            "params:evaluation.flip",
            "params:seed",
            "checkpoints",
            "workers",
        ],
        ["model", "held_out", "history"],
        name="train_classifier",
        tags="gpu",
    )
    return Pipeline(
        [train],
        namespace=regime,
        inputs={"start": start}
        | {name: name for name in ("train_images", "validation_images", "class_names", "workers")},
        outputs={name: f"{regime}_{name}" for name in ("model", "held_out", "history")},
        parameters={"seed", "evaluation.flip"},
    )
