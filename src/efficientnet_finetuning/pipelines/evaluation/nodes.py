"""Evaluation: a classifier on the test split, every image exactly once."""

from typing import Any

import pandas as pd

from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.evaluation.metrics import classification_metrics, predictions_table
from efficientnet_finetuning.models.classifier import Classifier
from efficientnet_finetuning.parameters import EvaluationParameters


def evaluate_classifier(
    model: Classifier, test_images: Examples, class_names: list[str], evaluation: EvaluationParameters
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Metrics and predictions of one regime."""
    images, labels = test_images.arrays
    model.check_fits(images.shape[1], class_names)
    logits = model.predict_logits(images, evaluation.batch_size, evaluation.flip)
    metrics = classification_metrics(logits, labels, model.class_names)
    return (
        {"class_weight": model.class_weight, "flip": evaluation.flip} | metrics,
        predictions_table(logits, labels, test_images.ids, model.class_names),
    )
