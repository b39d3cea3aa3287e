"""start, train_images, validation_images → model, history: one pipeline, two namespaces."""

from kedro.pipeline import Node, Pipeline

from efficientnet_finetuning.pipelines.training.nodes import build_random_start, train_classifier


def create_baseline_pipeline() -> Pipeline:
    """Train the network from random weights: what the images alone can teach."""
    start = Node(
        build_random_start,
        [
            "class_names",
            "params:backbone",
            "params:preprocessing",
            "params:device",
            "params:baseline.training",
            "params:seed",
        ],
        "baseline.start",
        name="build_random_start",
        namespace="baseline",
        tags="cpu",
    )
    return Pipeline([start]) + _training("baseline", start="baseline.start")


def create_finetune_pipeline() -> Pipeline:
    """Go on from the transfer model, with the backbone or its upper blocks unfrozen."""
    return _training("finetune", start="transfer_model")


def _training(regime: str, start: str) -> Pipeline:
    train = Node(
        train_classifier,
        ["start", "train_images", "validation_images", "class_names", "params:training", "params:seed", "checkpoints"],
        ["model", "history"],
        name="train_classifier",
        tags="gpu",
    )
    return Pipeline(
        [train],
        namespace=regime,
        inputs={"start": start} | {name: name for name in ("train_images", "validation_images", "class_names")},
        outputs={"model": f"{regime}_model", "history": f"{regime}_history"},
        parameters={"seed"},
    )
