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
    """Train the network from random weights, without pretraining."""
    return _start("baseline", build_random_start) + _training("baseline", start="baseline.start")


def create_finetune_pipeline() -> Pipeline:
    """Continue from a fitted head, with the backbone or its upper blocks unfrozen."""
    return _training("finetune", start="finetune_start")


def create_learning_rate_pipeline() -> Pipeline:
    """Find the learning rate at which fine-tuning can start."""
    find = Node(
        find_learning_rate,
        ["finetune_start", "train_images", "class_names", "params:finetune.training", "params:seed"],
        "learning_rates",
        name="find_learning_rate",
        tags="gpu",
    )
    plot = Node(
        plot_learning_rates,
        ["learning_rates", "class_names", "params:finetune.training"],
        "learning_rate_curve",
        name="plot_learning_rates",
        tags="cpu",
    )
    return Pipeline([find, plot])


def create_seed_parity_pipeline() -> Pipeline:
    """The Keras example "Image classification via fine-tuning with EfficientNet": its head, then its last block."""
    return (
        _start("seed_frozen", build_seed_start)
        + _training("seed_frozen", start="seed_frozen.start")
        + _training("seed_finetune", start="seed_frozen_model")
    )


def _start(regime: str, build: Callable[..., TrainedClassifier]) -> Pipeline:
    parameters = ("backbone", "preprocessing", "device", f"{regime}.training", "seed")
    inputs = ["class_names", *(f"params:{name}" for name in parameters)]
    start = Node(build, inputs, f"{regime}.start", name=build.__name__, namespace=regime, tags="cpu")
    return Pipeline([start])


def _training(regime: str, start: str) -> Pipeline:
    shared, results = ["train_images", "validation_images", "class_names"], ["model", "held_out", "history"]
    parameters = ["params:training", "params:evaluation.flip", "params:seed"]
    inputs = ["start", *shared, *parameters, "checkpoints", "workers"]
    return Pipeline(
        [Node(train_classifier, inputs, results, name="train_classifier", tags="gpu")],
        namespace=regime,
        inputs={"start": start} | {name: name for name in (*shared, "workers")},
        outputs={name: f"{regime}_{name}" for name in results},
        parameters={"seed", "evaluation.flip"},
    )
