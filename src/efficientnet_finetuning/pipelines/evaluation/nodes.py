"""Evaluation: test a classifier on the test split."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from efficientnet_finetuning.bundle.explain import show_predictions
from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.evaluation.calibration import judge_threshold
from efficientnet_finetuning.evaluation.metrics import classification_metrics, predictions_table
from efficientnet_finetuning.models.classifier import TrainedClassifier
from efficientnet_finetuning.parameters import EvaluationParameters
from efficientnet_finetuning.workers import Workers


def evaluate_classifier(
    model: TrainedClassifier,
    held_out: dict[str, np.ndarray],
    test_images: Examples,
    class_names: list[str],
    evaluation: EvaluationParameters,
    workers: Workers,
) -> tuple[dict[str, Any], pd.DataFrame, Figure]:
    """Metrics, predictions and a gallery; held-out images choose the confidence threshold."""
    model.check_fits(test_images.images.shape[1], class_names)
    images, labels = test_images.arrays
    logits = model.predict_logits(images, evaluation.batch_size, workers.map_blocks)
    chosen_on, test = (
        predictions_table(*answers, model.class_names, model.temperature)
        for answers in ((held_out["logits"], held_out["labels"], held_out["ids"]), (logits, labels, test_images.ids))
    )
    about = {"class_weight": model.class_weight, "flip": model.flip}
    metrics = classification_metrics(logits, labels, model.class_names, model.temperature)
    threshold = {"threshold": judge_threshold(chosen_on, test, evaluation.precision)}
    return about | metrics | threshold, test, show_predictions(model, images, test)
