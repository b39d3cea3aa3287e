"""Evaluation: a classifier on the test split, every image exactly once."""

from typing import Any

import pandas as pd

from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.evaluation.metrics import classification_metrics, predictions_table
from efficientnet_finetuning.models.classifier import Classifier
from efficientnet_finetuning.parameters import EvaluationParameters


def evaluate_classifier(
    model: Classifier, test_images: Examples, evaluation: EvaluationParameters
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Metrics and predictions of one regime."""
    images, labels = test_images.arrays
    if images.shape[1] != model.image_size or labels.shape[1] != len(model.class_names):
        raise InputError(
            f"The model takes {model.image_size} px images of {len(model.class_names)} classes, the test images have "
            f"{images.shape[1]} px and {labels.shape[1]} classes. Train again, or load versions that belong together "
            "(--load-versions)."
        )
    logits = model.predict_logits(images, evaluation.batch_size)
    metrics = classification_metrics(logits, labels, model.class_names)
    return (
        {"class_weight": model.class_weight} | metrics,
        predictions_table(logits, labels, test_images.ids, model.class_names),
    )
