"""What training costs beside stock Keras: `make bench-training` prints a table. Nothing here passes or fails.

Goals: an epoch from block7a ≥ 3.5 ×, from block6a ≥ 1.5 × as fast as Keras with the same layers frozen; folding
≥ 1.05 ×; the head's path ≤ 20 % of the extraction, and 120 classes × 12,000 images in ≤ 2 minutes.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from efficientnet_finetuning.device import prepare_process
from efficientnet_finetuning.parameters import DeviceParameters, HeadParameters, SettledTrainingParameters

SIZE, IMAGES, BATCH, CLASSES = 224, 128, 32, 10
ROUNDS = 3


def main() -> None:
    prepare_process(DeviceParameters())
    for name in ("EfficientNetLite0", "EfficientNetB0"):
        for unfreeze_from, goal in (("all", "≥ 1.05"), ("block6a", "≥ 1.5"), ("block7a", "≥ 3.5")):
            stock, ours = alternating(stock_epoch(name, unfreeze_from), our_epoch(name, unfreeze_from))
            row(f"epoch, {name} from {unfreeze_from}", IMAGES / ours, "images/s", stock / ours, goal)
    one, several = alternating(our_epoch("EfficientNetLite0", "all", 1), our_epoch("EfficientNetLite0", "all", 4))
    row("4 steps per execution against 1, Lite0", IMAGES / several, "images/s", one / several, "is it worth it?")
    extraction, path = alternating(extraction_seconds, lambda: path_seconds(4500, 500, 10))
    row("head's path, 10 classes × 4,500 at 96 px", path, "s", path / extraction, "≤ 0.20 of the extraction")
    row("head's path, 120 classes × 12,000", path_seconds(12_000, 1_200, 120), "s", 0, "≤ 120 s")


def row(what: str, value: float, unit: str, ratio: float, goal: str) -> None:
    print(f"{what:<44} {value:>8.1f} {unit:<9} {ratio:>8.2f}   goal {goal}", flush=True)  # noqa: T201


def alternating(*measures: Callable[[], float]) -> list[float]:
    """The best of each in seconds, measured in turns, since other users of the machine come and go."""
    rounds = [[measure() for measure in measures] for _ in range(ROUNDS)]
    return [min(column) for column in zip(*rounds, strict=True)]


def start(name: str):
    from efficientnet_finetuning.models.backbones import build_backbone
    from efficientnet_finetuning.models.heads import attach_head

    return attach_head(build_backbone(name, SIZE, "none"), CLASSES, 0.2)


def data(count: int = IMAGES) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
    return images, np.eye(CLASSES, dtype=np.float32)[generator.integers(0, CLASSES, count)]


def stock_epoch(name: str, unfreeze_from: str) -> Callable[[], float]:
    """Keras' own fit on the network as it is, the same layers frozen."""
    import keras

    from efficientnet_finetuning.models.freezing import unfreeze

    model = start(name)
    unfreeze(model, name, unfreeze_from, freeze_batch_norm=True)
    model.compile(
        keras.optimizers.Adam(1e-5), keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    images, labels = data()
    model.fit(images[:BATCH], labels[:BATCH], batch_size=BATCH, verbose=0)  # compiles

    def epoch() -> float:
        began = time.perf_counter()
        model.fit(images, labels, batch_size=BATCH, verbose=0)
        return time.perf_counter() - began

    return epoch


def our_epoch(name: str, unfreeze_from: str, steps_per_execution: int = 1) -> Callable[[], float]:
    """What fit does in an epoch after the first: folded, and above the freeze point alone."""
    from efficientnet_finetuning.models.freezing import split
    from efficientnet_finetuning.training.activations import cache_activations
    from efficientnet_finetuning.training.batches import Batches
    from efficientnet_finetuning.training.step import compile_for, prepare_network

    options = {"epochs": 1, "batch_size": BATCH, "learning_rate": 1e-5, "unfreeze_from": unfreeze_from}
    parameters = SettledTrainingParameters.model_validate(options | {"keep": "last"})
    network = prepare_network(start(name), name, parameters)
    inputs, labels = data()
    if unfreeze_from != "all":
        frozen, network = split(network, name, unfreeze_from)
        inputs = cache_activations(frozen, inputs, Path(tempfile.mkdtemp()) / "activations")
    compile_for(network, parameters, 1e-5)
    network.steps_per_execution = steps_per_execution
    batches = Batches(inputs, labels, BATCH, shuffle_seed=0)
    network.fit(batches, verbose=0)

    def epoch() -> float:
        began = time.perf_counter()
        network.fit(batches, shuffle=False, verbose=0)
        return time.perf_counter() - began

    return epoch


def extraction_seconds() -> float:
    """Features of 4,500 training and 500 validation images."""
    from efficientnet_finetuning.models.backbones import build_backbone
    from efficientnet_finetuning.models.heads import feature_extractor
    from efficientnet_finetuning.models.inference import predict

    images = np.random.default_rng(0).integers(0, 256, (5000, 96, 96, 3), np.uint8)
    extractor = feature_extractor(build_backbone("EfficientNetLite0", 96, "imagenet"))
    began = time.perf_counter()
    predict(extractor, images, 64)
    return time.perf_counter() - began


def path_seconds(count: int, validation: int, classes: int) -> float:
    """The path of regularization, on features of noise whose classes overlap."""
    from efficientnet_finetuning.training.head import fit_head

    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, count + validation)
    # As features are: positive, of uneven scale, correlated, and not quite separable.
    scales = np.exp(generator.normal(0, 1, 1280))
    centres = generator.normal(0, 0.25, (classes, 1280))
    mixing = generator.normal(0, 1, (64, 1280)) / 8
    features = centres[labels] + generator.normal(0, 1, (len(labels), 64)) @ mixing
    features += generator.normal(0, 1, features.shape)
    features = (np.maximum(features, 0) * scales).astype(np.float32)
    one_hot = np.eye(classes, dtype=np.uint8)[labels]
    strengths = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 1.0)
    began = time.perf_counter()
    fit_head(
        features[:count],
        one_hot[:count],
        features[count:],
        one_hot[count:],
        HeadParameters(inverse_regularizations=strengths),
    )
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
