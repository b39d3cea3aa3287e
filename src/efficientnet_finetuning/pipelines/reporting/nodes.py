"""Reporting: the regimes of a run side by side, which of them to take, and why to trust it."""

from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.bundle.novelty import References, choose_max_distance, directions, distances
from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.evaluation.calibration import choose_threshold
from efficientnet_finetuning.evaluation.comparison import compare_regimes
from efficientnet_finetuning.evaluation.figures import (
    comparison_bars,
    confidence_curves,
    confusion_matrix,
    learning_curves,
)
from efficientnet_finetuning.evaluation.metrics import confusion, predictions_table
from efficientnet_finetuning.evaluation.pictures import disagreement_sheet, disagreements
from efficientnet_finetuning.evaluation.report import Results, render_report
from efficientnet_finetuning.evaluation.verdict import SIGNIFICANT, judge
from efficientnet_finetuning.models.classifier import TrainedClassifier
from efficientnet_finetuning.models.inference import predict_all
from efficientnet_finetuning.parameters import EvaluationParameters

_FEW_TEST_IMAGES = 300
# A photograph is compared with so many training images at most, which travel with the classifier.
_MOST_REFERENCES = 2_000


def compare(**results: Any) -> pd.DataFrame:
    """Tabulate the regimes: ``{regime}_metrics`` and ``{regime}_history`` of each, in order."""
    return compare_regimes(_by_regime(results, "metrics"), _by_regime(results, "history"))


def reach_verdict(comparison: pd.DataFrame, seed: int, **predictions: pd.DataFrame) -> tuple[dict[str, Any], str]:
    """Which regime wins, and whether that is more than luck; returns the reasons and its name."""
    seconds = dict(zip(comparison["regime"], comparison["training_seconds"], strict=True))
    verdict = judge(_by_regime(predictions, "predictions"), seconds, seed)
    undecided = [(step["lower"], step["upper"]) for step in verdict["steps"] if step["p_value"] >= SIGNIFICANT]
    if ("transfer", "finetune") in undecided and verdict["num_images"] < _FEW_TEST_IMAGES:
        verdict["words"] += (
            f" With {verdict['num_images']} test images only large differences can be told: `kedro run --pipelines "
            "cross_validation` judges transfer and finetune on all images."
        )
    return verdict, verdict["champion"]


def keep_champion(
    champion: str,
    evaluation: EvaluationParameters,
    train_images: Examples,
    validation_images: Examples,
    **results: Any,
) -> tuple[Classifier, dict[str, Any]]:
    """The champion, ready for use: it knows from which confidence on, and how far from what it learnt, it may answer.

    Both limits are chosen on held-out images.

    Returns:
        The classifier, and its metrics with the name of its regime.
    """
    model, held_out = results[f"{champion}_model"], results[f"{champion}_held_out"]
    chosen_on = predictions_table(
        held_out["logits"], held_out["labels"], held_out["ids"], model.class_names, model.temperature
    )
    references, held_out_distances = _what_was_learnt(model, train_images, validation_images, evaluation.batch_size)
    trained = {field.name: getattr(model, field.name) for field in fields(TrainedClassifier)}
    ready = Classifier(
        **trained,
        threshold=choose_threshold(chosen_on, evaluation.precision),
        references=references.directions,
        reference_labels=references.labels,
        max_distance=choose_max_distance(held_out_distances),
    )
    return ready, {"regime": champion} | results[f"{champion}_metrics"]


def _what_was_learnt(
    model: TrainedClassifier, train_images: Examples, validation_images: Examples, batch_size: int
) -> tuple[References, np.ndarray]:
    """Some training images to compare photographs with, and how far some validation images lie from them."""
    from efficientnet_finetuning.models.heads import with_features

    splits = {"train": train_images, "validation": validation_images}
    rows = {name: np.unique(np.linspace(0, len(of) - 1, _MOST_REFERENCES).astype(int)) for name, of in splits.items()}
    images = {name: of.arrays[0][rows[name]] for name, of in splits.items()}
    outputs = predict_all(with_features(model.model), images, batch_size, "features of ", flip=model.flip)
    num_classes = len(model.class_names)
    labels = train_images.arrays[1][rows["train"]].argmax(1)
    references = References(directions(outputs["train"][:, num_classes:]), labels)
    held_out = outputs["validation"]
    return references, distances(held_out[:, num_classes:], held_out[:, :num_classes].argmax(1), references)


def plot_comparison(comparison: pd.DataFrame) -> Figure:
    """Accuracies of the regimes as bars."""
    return comparison_bars(comparison)


def plot_learning_curves(**histories: pd.DataFrame) -> Figure:
    """Accuracy and loss of the regimes, from ``{regime}_history`` of each."""
    return learning_curves(_by_regime(histories, "history"))


def plot_confusion(champion: str, class_names: list[str], **predictions: pd.DataFrame) -> Figure:
    """Which classes the champion takes for which."""
    counts = confusion(predictions[f"{champion}_predictions"], class_names)
    return confusion_matrix(counts, class_names, champion)


def plot_confidence(class_names: list[str], **predictions: pd.DataFrame) -> Figure:
    """How far the confidence of each regime can be believed."""
    return confidence_curves(_by_regime(predictions, "predictions"), class_names)


def show_disagreements(test_images: Examples, seed: int, **predictions: pd.DataFrame) -> Figure:
    """Images on which one regime is right and another wrong."""
    rows = disagreements(_by_regime(predictions, "predictions"), seed)
    return disagreement_sheet(test_images.arrays[0][rows["row"]], rows)


def measure_cost(model: TrainedClassifier) -> dict[str, float]:
    """Size of the network, which all regimes share, and its speed on this machine."""
    from efficientnet_finetuning.models.cost import cost_of

    return cost_of(model.model)


def write_report(
    comparison: pd.DataFrame,
    verdict: dict[str, Any],
    audit: dict[str, Any],
    cost: dict[str, float],
    node_costs: dict[str, dict[str, Any]],
    seed: int,
    **results: Any,
) -> str:
    """All of it as one HTML file."""
    return render_report(
        Results(
            comparison=comparison,
            verdict=verdict,
            audit=audit,
            metrics=_by_regime(results, "metrics"),
            predictions=_by_regime(results, "predictions"),
            histories=_by_regime(results, "history"),
            costs=node_costs,
            model_cost=cost,
            figures={name: value for name, value in results.items() if isinstance(value, bytes)},
            seed=seed,
        )
    )


def _by_regime(results: dict[str, Any], kind: str) -> dict[str, Any]:
    suffix = f"_{kind}"
    return {name.removesuffix(suffix): value for name, value in results.items() if name.endswith(suffix)}
