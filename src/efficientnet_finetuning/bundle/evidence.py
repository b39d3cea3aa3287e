"""Recompute a bundle's metrics: run its classifier on the test images that its receipt names."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.bundle.receipt import fingerprint_of_examples
from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.device import without_native_output
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.evaluation.metrics import classification_metrics


def find_test_images(data: Path, fingerprint: str) -> Examples | None:
    """Stored test images with this fingerprint, of any job and version; ``None`` if there are none."""
    for folder in sorted(data.glob("03_primary/*/test_images/*/test_images"), reverse=True):
        with suppress(InputError):  # damaged
            test = Examples.open(folder)
            if fingerprint_of_examples(test) == fingerprint:
                return test
    return None


def measure(classifier_file: Path, test: Examples) -> dict[str, Any]:
    """Metrics of a stored classifier on prepared test images."""
    images, labels = test.arrays
    with without_native_output():
        classifier = Classifier.load(classifier_file)
        logits = classifier.predict_logits(images)
    return classification_metrics(logits, labels, classifier.class_names, classifier.temperature)
