"""Evaluation: a classifier on the test split, every image exactly once, and what to look at."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.evaluation.calibration import judge_threshold
from efficientnet_finetuning.evaluation.metrics import classification_metrics, predictions_table
from efficientnet_finetuning.evaluation.pictures import gallery, worth_a_look
from efficientnet_finetuning.models.classifier import Classifier
from efficientnet_finetuning.parameters import EvaluationParameters


def evaluate_classifier(
    model: Classifier,
    validation_images: Examples,
    test_images: Examples,
    class_names: list[str],
    evaluation: EvaluationParameters,
) -> tuple[dict[str, Any], pd.DataFrame, Figure]:
    """Metrics, predictions and the images worth a look; the threshold of confidence is chosen on validation."""
    model.check_fits(test_images.images.shape[1], class_names)
    splits = {"validation": validation_images, "test": test_images}
    images = {name: examples.arrays[0] for name, examples in splits.items()}
    logits = model.predict_splits(images, evaluation.batch_size, evaluation.flip)
    validation, test = (
        predictions_table(logits[name], examples.labels, examples.ids, model.class_names, model.temperature)
        for name, examples in splits.items()
    )
    about = {"class_weight": model.class_weight, "flip": evaluation.flip}
    metrics = classification_metrics(logits["test"], test_images.labels, model.class_names, model.temperature)
    threshold = {"threshold": judge_threshold(validation, test, evaluation.precision)}
    return about | metrics | threshold, test, _gallery(model, test_images, test)


def _gallery(model: Classifier, test_images: Examples, predictions: pd.DataFrame) -> Figure:
    from efficientnet_finetuning.models.activation_maps import class_activation_maps

    rows = worth_a_look(predictions)  # whose index is the image's row
    images = test_images.arrays[0][rows.index]
    predicted = rows["predicted"].map(model.class_names.index).to_numpy(int)
    return gallery(images, rows, class_activation_maps(model.model, images, predicted))
