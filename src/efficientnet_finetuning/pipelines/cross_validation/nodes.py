"""Cross-validation: every image is a test image once, for models that did not see it.

Uses the nodes of the pipelines ``transfer`` and ``training`` for each fold, so it may import these two.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd

from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.data.groups import groups_of
from efficientnet_finetuning.errors import InputError, percent
from efficientnet_finetuning.evaluation.comparison import compare_regimes
from efficientnet_finetuning.evaluation.metrics import classification_metrics, predictions_table
from efficientnet_finetuning.evaluation.verdict import judge
from efficientnet_finetuning.models.classifier import TrainedClassifier
from efficientnet_finetuning.parameters import (
    BackboneParameters,
    DatasetParameters,
    DeviceParameters,
    EvaluationParameters,
    HeadParameters,
    PreprocessingParameters,
    TrainingParameters,
)
from efficientnet_finetuning.pipelines.training.nodes import train_classifier
from efficientnet_finetuning.pipelines.transfer.nodes import (
    assemble_classifier,
    build_pretrained_backbone,
    extract_features,
    fit_head,
    fit_start,
)
from efficientnet_finetuning.training.checkpoint import Checkpoints
from efficientnet_finetuning.workers import Workers

logger = logging.getLogger(__name__)

_REGIMES = ("transfer", "finetune")


def predict_folds(
    train_images: Examples,
    validation_images: Examples,
    test_images: Examples,
    manifest: pd.DataFrame,
    class_names: list[str],
    dataset: DatasetParameters,
    backbone: BackboneParameters,
    preprocessing: PreprocessingParameters,
    head: HeadParameters,
    training: TrainingParameters,
    evaluation: EvaluationParameters,
    device: DeviceParameters,
    seed: int,
    checkpoints: Checkpoints | None,
    workers: Workers,
) -> dict[str, np.ndarray]:
    """For each fold of all images, fit the head and fine-tune on the rest, and predict the fold.

    Returns:
        ``transfer`` and ``finetune``: logits ``(N, num_classes)`` of all images, divided by the temperature of their
        model; ``labels``, ``ids`` and ``folds``; and training ``seconds`` ``(folds, 2)``.
    """
    from efficientnet_finetuning.training.head import stratified_folds

    images = _joined(train_images, validation_images, test_images)
    groups = groups_of(manifest, images.ids)
    folds = stratified_folds(images.labels, evaluation.folds, groups=groups)
    if (filled := len(np.unique(folds))) < evaluation.folds:
        raise InputError(
            f"evaluation.folds is {evaluation.folds}, but the images fill only {filled}, because images of one group "
            "stay in one fold. Set fewer folds, or make smaller groups (the audit names the largest)."
        )

    def answers(fold: int) -> dict[str, Any]:
        rest = np.flatnonzero(folds != fold)
        parts = stratified_folds(images.labels[rest], round(1 / dataset.validation_fraction), groups=groups[rest])
        held_out = parts == parts.min()
        learnt = _rows(images, rest[~held_out]), _rows(images, rest[held_out])
        network = build_pretrained_backbone(backbone, preprocessing, device, seed)
        features = extract_features(network, *learnt, head, evaluation.flip, seed, workers)
        fitted_head, said, path = fit_head(features, *learnt, manifest, head)
        frozen = assemble_classifier(
            network, fitted_head, said, class_names, backbone, preprocessing, head, evaluation.flip
        )
        start = fit_start(network, features, *learnt, manifest, class_names, backbone, preprocessing, head)
        tuned, _, history = train_classifier(
            start, *learnt, class_names, training, evaluation.flip, seed, None, workers
        )
        return {
            "logits": [_logits(model, judged[fold], evaluation, workers) for model in (frozen, tuned)],
            "seconds": [float(table["seconds"].sum()) for table in (path, history)],
        }

    judged = [_rows(images, np.flatnonzero(folds == fold)) for fold in range(evaluation.folds)]
    found = []
    for fold, some in enumerate(judged):
        with _quietly():
            said = checkpoints.decide(f"fold-{fold + 1}", lambda: answers(fold)) if checkpoints else answers(fold)  # noqa: B023
        found.append(said)
        hits = [np.mean(np.argmax(logits, 1) == some.labels.argmax(1)) for logits in said["logits"]]
        told = ", ".join(f"{regime} {percent(share)}" for regime, share in zip(_REGIMES, hits, strict=True))
        logger.info("fold %d of %d, %d images: %s", fold + 1, evaluation.folds, len(some), told)
    logits = [np.concatenate([said["logits"][regime] for said in found]) for regime in range(len(_REGIMES))]
    return {
        **{regime: values.astype(np.float32) for regime, values in zip(_REGIMES, logits, strict=True)},
        "labels": np.concatenate([some.labels for some in judged]),
        "ids": np.concatenate([some.ids for some in judged]),
        "folds": np.repeat(np.arange(1, evaluation.folds + 1), [len(some) for some in judged]),
        "seconds": np.array([said["seconds"] for said in found]),
    }


def judge_folds(answers: dict[str, np.ndarray], class_names: list[str]) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Compare the regimes on all images, and recommend one with reasons."""
    labels, ids = answers["labels"], answers["ids"]
    metrics = {regime: classification_metrics(answers[regime], labels, class_names) for regime in _REGIMES}
    tables = {regime: predictions_table(answers[regime], labels, ids, class_names) for regime in _REGIMES}
    histories = {
        regime: pd.DataFrame({"seconds": seconds})
        for regime, seconds in zip(_REGIMES, answers["seconds"].T, strict=True)
    }
    comparison = compare_regimes(metrics, histories)
    return comparison, judge(tables, dict(zip(comparison["regime"], comparison["training_seconds"], strict=True)))


def _logits(
    model: TrainedClassifier, images: Examples, evaluation: EvaluationParameters, workers: Workers
) -> list[list[float]]:
    logits = model.predict_logits(images.arrays[0], evaluation.batch_size, workers.map_blocks) / model.temperature
    as_json: list[list[float]] = logits.astype(float).tolist()
    return as_json


def _joined(*splits: Examples) -> Examples:
    """All images in the order of their ids, so that photographs taken together are neighbours."""
    together = Examples(
        np.concatenate([split.arrays[0] for split in splits]),
        np.concatenate([split.labels for split in splits]),
        np.concatenate([split.ids for split in splits]),
    )
    return _rows(together, np.argsort(together.ids, kind="stable"))


def _rows(examples: Examples, rows: np.ndarray) -> Examples:
    images, labels = examples.arrays
    return Examples(images[rows], labels[rows], examples.ids[rows])


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence the training's log, and so its metrics, in a ``with`` block."""
    package = logging.getLogger("efficientnet_finetuning.training")
    before = package.level
    package.setLevel(logging.WARNING)
    try:
        yield
    finally:
        package.setLevel(before)
