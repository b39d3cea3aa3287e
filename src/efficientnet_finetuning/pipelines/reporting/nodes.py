"""Reporting: compare the regimes of a run, choose the champion, and write the report."""

import logging
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.bundle.new_class import features_of
from efficientnet_finetuning.bundle.novelty import References, choose_max_distance, directions, distances
from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.evaluation.calibration import choose_threshold
from efficientnet_finetuning.evaluation.change import change_since
from efficientnet_finetuning.evaluation.comparison import STARTS_FROM, compare_regimes
from efficientnet_finetuning.evaluation.figures import confidence_curves, confusion_matrix, learning_curves
from efficientnet_finetuning.evaluation.metrics import confusion, predictions_table
from efficientnet_finetuning.evaluation.report import Results, render_report
from efficientnet_finetuning.evaluation.verdict import SIGNIFICANT, judge
from efficientnet_finetuning.models.classifier import TrainedClassifier
from efficientnet_finetuning.parameters import EvaluationParameters

logger = logging.getLogger(__name__)

# Outputs of the pipeline `review`, if it ran.
_REVIEW = ("label_review", "weak_spots", "shortcuts", "more_images")
_FEW_TEST_IMAGES = 300
# Images of each split that the champion stores features of: to measure distances, and to add a class later.
_MOST_REFERENCES = 2_000


def compare(**results: Any) -> pd.DataFrame:
    """Tabulate ``{regime}_metrics`` and ``{regime}_history`` of the regimes, in order."""
    return compare_regimes(_by_regime(results, "metrics"), _by_regime(results, "history"))


def reach_verdict(comparison: pd.DataFrame, **results: pd.DataFrame) -> tuple[dict[str, Any], str]:
    """Which regime wins, and whether that is more than luck; returns the reasons and its name."""
    seconds = dict(zip(comparison["regime"], comparison["training_seconds"], strict=True))
    predictions = _by_regime(results, "predictions")
    unchanged = [
        regime
        for regime, history in _by_regime(results, "history").items()
        if STARTS_FROM.get(regime) in predictions and not history["kept"].any()
    ]
    verdict = judge(predictions, seconds, unchanged)
    undecided = [(step["lower"], step["upper"]) for step in verdict["steps"] if step["p_value"] >= SIGNIFICANT]
    if ("transfer", "finetune") in undecided and verdict["num_images"] < _FEW_TEST_IMAGES:
        verdict["words"] += " The same command with --pipelines cross_validation compares the two on all images."
    return verdict, verdict["champion"]


def compare_with_before(
    champion: str, before: Mapping[str, Mapping[str, Any]], **predictions: pd.DataFrame
) -> dict[str, Any]:
    """How the champion's predictions changed since the previous run of its regime."""
    name = f"{champion}_predictions"
    was = before.get(name, {"table": None, "differences": []})
    change = {"regime": champion, "differences": was["differences"]} | change_since(was["table"], predictions[name])
    logger.debug("%s: %s", champion, change["words"])
    return change


def keep_champion(
    champion: str,
    evaluation: EvaluationParameters,
    train_images: Examples,
    validation_images: Examples,
    test_images: Examples,
    **results: Any,
) -> tuple[Classifier, dict[str, Any], dict[str, np.ndarray]]:
    """Make the champion ready for use: it gets a confidence threshold and a distance limit, chosen on held-out images.

    Returns:
        The classifier; its metrics with the name of its regime; and features of some images, from which
        :func:`~efficientnet_finetuning.bundle.new_class.add_class` can add a class later.
    """
    model, held_out = results[f"{champion}_model"], results[f"{champion}_held_out"]
    chosen_on = predictions_table(
        held_out["logits"], held_out["labels"], held_out["ids"], model.class_names, model.temperature
    )
    splits = {"train": train_images, "validation": validation_images, "test": test_images}
    rows = {name: np.unique(np.linspace(0, len(of) - 1, _MOST_REFERENCES).astype(int)) for name, of in splits.items()}
    images = {name: of.arrays[0][rows[name]] for name, of in splits.items()}
    labels = {name: of.arrays[1][rows[name]].argmax(1) for name, of in splits.items()}
    seen = features_of(model, images, evaluation.batch_size)
    references = References(directions(seen["train"].last_map), labels["train"])
    validation = seen["validation"]
    ready = Classifier(
        **{field.name: getattr(model, field.name) for field in fields(TrainedClassifier)},
        threshold=choose_threshold(chosen_on, evaluation.precision),
        references=references.directions,
        reference_labels=references.labels,
        max_distance=choose_max_distance(distances(validation.last_map, validation.logits.argmax(1), references)),
    )
    # The held-out images are the last rows of training and validation images.
    logits = np.full((len(train_images) + len(validation_images), len(model.class_names)), np.nan, np.float32)
    logits[-len(held_out["logits"]) :] = held_out["logits"]
    features = {
        "head_inputs": np.concatenate([seen["train"].head_inputs, validation.head_inputs]),
        "labels": np.concatenate([labels["train"], labels["validation"]]),
        "held_out_logits": logits[np.concatenate([rows["train"], len(train_images) + rows["validation"]])],
        "test_head_inputs": seen["test"].head_inputs,
        "test_labels": labels["test"],
    }
    return ready, {"regime": champion} | results[f"{champion}_metrics"], features


def plot_learning_curves(**histories: pd.DataFrame) -> Figure:
    """Plot accuracy and loss of the regimes, from ``{regime}_history``."""
    return learning_curves(_by_regime(histories, "history"))


def plot_confusion(champion: str, class_names: list[str], **predictions: pd.DataFrame) -> Figure:
    """Plot the champion's confusion matrix."""
    counts = confusion(predictions[f"{champion}_predictions"], class_names)
    return confusion_matrix(counts, class_names, champion)


def plot_confidence(class_names: list[str], **predictions: pd.DataFrame) -> Figure:
    """Plot how reliable the confidence of each regime is."""
    return confidence_curves(_by_regime(predictions, "predictions"), class_names)


def measure_cost(model: TrainedClassifier) -> dict[str, float]:
    """Size of the network, which all regimes share, and its speed on this machine."""
    from efficientnet_finetuning.models.cost import cost_of

    return cost_of(model.model)


def write_report(
    comparison: pd.DataFrame,
    verdict: dict[str, Any],
    change: dict[str, Any],
    audit: dict[str, Any],
    cost: dict[str, float],
    node_costs: Mapping[str, dict[str, Any]],
    test_images: Examples,
    lineage: Mapping[str, Mapping[str, Any]],
    run: Mapping[str, Any],
    seed: int,
    **results: Any,
) -> str:
    """Write the report as one HTML file."""
    return render_report(
        Results(
            comparison=comparison,
            verdict=verdict,
            change=change,
            audit=audit,
            metrics=_by_regime(results, "metrics"),
            predictions=_by_regime(results, "predictions"),
            images=test_images.images,
            histories=_by_regime(results, "history"),
            costs=node_costs,
            model_cost=cost,
            run=run,
            parameters={name: value for of in lineage.values() for name, value in of["parameters"].items()},
            review={name: results[name] for name in _REVIEW if name in results},
            figures={name: value for name, value in results.items() if isinstance(value, bytes)},
            seed=seed,
        )
    )


def _by_regime(results: dict[str, Any], kind: str) -> dict[str, Any]:
    suffix = f"_{kind}"
    return {name.removesuffix(suffix): value for name, value in results.items() if name.endswith(suffix)}
