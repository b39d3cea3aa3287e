"""Measure backbones at several image sizes: accuracy of a head, and cost."""

import logging
import math
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from efficientnet_finetuning.device import seconds_of
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.models.backbones import build_backbone
from efficientnet_finetuning.models.heads import attach_head, feature_extractor
from efficientnet_finetuning.models.inference import predict_batches
from efficientnet_finetuning.parameters import (
    ChoiceParameters,
    HeadParameters,
    SettledTrainingParameters,
    TrainingParameters,
)
from efficientnet_finetuning.training.head import fit_head
from efficientnet_finetuning.training.rules import apply_rules
from efficientnet_finetuning.training.step import compile_for, prepare_network

logger = logging.getLogger(__name__)

Arrays = tuple[np.ndarray, np.ndarray]


def measure_candidates(
    images: Callable[[int], Arrays],
    num_train: int,
    choice: ChoiceParameters,
    head: HeadParameters,
    training: TrainingParameters,
    *,
    groups: np.ndarray | None = None,
    dtype_policy: str = "float32",
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Fit a head on each backbone's features at each size, and estimate the time of fine-tuning.

    Candidates that would exceed the time budget are skipped; their time is estimated from the next smaller size.

    Args:
        images: returns uint8 images ``(N, size, size, 3)`` and one-hot labels ``(N, num_classes)`` for a size in
            pixels.
        num_train: number of images in a training; ``images`` may return fewer.
        choice: backbones, sizes and time budget.
        head: of the head; its strength is chosen by folds.
        training: of the fine-tuning.
        groups: group of each image, ``(N,)``; images of a group stay in one fold.
        dtype_policy: of the backbones.
        seed: of all random numbers.

    Returns:
        One row per candidate: ``backbone``, ``image_size``, cross-validated ``accuracy`` of the head (0–1), ``images``
        used, ``milliseconds`` of a forward pass per image, estimated ``training_minutes`` of features and fine-tuning,
        estimated ``memory_gb`` of a training step, and ``note``: why nothing was measured.

    Raises:
        InputError: no backbone is available.
    """
    settled = apply_rules(training, num_train, 0)
    meter = _Meter(settled, num_train)
    # There are no validation images, so folds choose the strength.
    by_folds = head.model_copy(update={"folds": "auto", "views": 1})
    rows: list[dict[str, Any]] = []
    ruled_out: dict[str, str] = {}
    before: dict[str, dict[str, Any]] = {}
    for size in sorted(choice.image_sizes):
        arrays: Arrays | None = None
        for name in choice.backbones:
            row: dict[str, Any] = {"backbone": name, "image_size": size, "note": ruled_out.get(name, "")}
            rows.append(row)
            measured = before.get(name)  # at another size; the time grows with the pixels
            foreseen = measured["training_minutes"] * (size / measured["image_size"]) ** 2 if measured else 0.0
            if not row["note"] and foreseen > choice.time_budget_minutes:
                row["note"] = f"fine-tuning would take about {foreseen:.0f} minutes"
            if row["note"]:
                continue
            try:
                backbone = build_backbone(name, size, dtype_policy=dtype_policy, seed=seed)
            except InputError as error:
                row["note"] = ruled_out[name] = str(error).split(". ")[0]
                continue
            arrays = arrays or images(size)
            row |= _measure(backbone, name, arrays, groups, by_folds, meter)
            before[name] = row
            logger.info(
                "%s, %d px: head %.1f %%, %.1f ms an image", name, size, 100 * row["accuracy"], row["milliseconds"]
            )
    if not before:
        raise InputError(
            "No backbone of choose_backbone.backbones is available. "
            + "; ".join(f"{name}: {why}" for name, why in ruled_out.items())
        )
    return rows


def _measure(
    backbone: keras.Model, name: str, arrays: Arrays, groups: np.ndarray | None, head: HeadParameters, meter: "_Meter"
) -> dict[str, float]:
    images, labels = arrays
    extractor = feature_extractor(backbone)
    features, milliseconds = _timed_features(extractor, images, head.batch_size)
    nothing = features[:0], labels[:0]
    path = fit_head(features, labels, *nothing, head, groups=groups, quiet=True).path
    network = attach_head(backbone, labels.shape[1], 0.0)
    return {
        "accuracy": max(row["val_accuracy"] for row in path if row["kept"]),
        "images": len(images),
        "milliseconds": milliseconds,
        "training_minutes": meter.minutes(network, name, arrays, milliseconds),
        "memory_gb": step_memory(network, meter.parameters.batch_size) / 1e9,
    }


def _timed_features(extractor: keras.Model, images: np.ndarray, batch_size: int) -> tuple[np.ndarray, float]:
    """Features, and milliseconds per image without the first batch, which compiles the model."""
    batches: list[np.ndarray] = []
    began, timed = time.perf_counter(), 0
    for batch in predict_batches(extractor, images, batch_size):
        if not batches:
            began = time.perf_counter()
        else:
            timed += len(batch)
        batches.append(batch)
    seconds = time.perf_counter() - began
    return np.concatenate(batches), 1000 * seconds / max(timed, 1)


class _Meter:
    """Estimates the time of fine-tuning from the time of a forward pass."""

    def __init__(self, parameters: SettledTrainingParameters, num_train: int) -> None:
        self.parameters = parameters.model_copy(update={"learning_rate": 1e-4, "unfreeze_from": "all"})
        self._num_train = num_train
        self._passes = 0.0

    def minutes(self, network: keras.Model, name: str, arrays: Arrays, milliseconds: float) -> float:
        """Minutes for the features and all epochs."""
        if not self._passes:
            self._passes = _step_milliseconds(network, name, arrays, self.parameters) / milliseconds
            logger.info("a training step takes as long as %.1f forward passes", self._passes)
        passes = 1 + self._passes * self.parameters.epochs
        return passes * self._num_train * milliseconds / 60_000


def _step_milliseconds(network: keras.Model, name: str, arrays: Arrays, parameters: SettledTrainingParameters) -> float:
    """Per image of a training step: the best of three."""
    trained = prepare_network(network, name, parameters)
    compile_for(trained, parameters, 1e-4)
    images, labels = (array[: parameters.batch_size] for array in arrays)
    return 1000 * min(seconds_of(lambda: trained.train_on_batch(images, labels), 3)) / len(images)


def step_memory(network: keras.Model, batch_size: int) -> int:
    """Bytes of a training step: all activations, and a gradient and two moments per weight."""
    activations = sum(
        (2 if "16" in str(layer.compute_dtype) else 4) * math.prod(layer.output.shape[1:]) for layer in network.layers
    )
    return batch_size * activations + 4 * 4 * network.count_params()
