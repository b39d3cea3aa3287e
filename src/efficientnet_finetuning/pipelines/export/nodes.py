"""Export: the champion in formats of other programs, checked, in one folder with card and receipt."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from efficientnet_finetuning.bundle.card import model_card
from efficientnet_finetuning.bundle.checks import check_exports, format_checks
from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.bundle.explain import show_predictions
from efficientnet_finetuning.bundle.formats import check_formats, classifier_file, convert
from efficientnet_finetuning.bundle.receipt import as_bytes, make_receipt
from efficientnet_finetuning.data.decode import open_image, upright_rgb
from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.data.sources import Source
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.evaluation.metrics import predictions_table
from efficientnet_finetuning.models.classifier import METADATA_NAME
from efficientnet_finetuning.parameters import ExportParameters
from efficientnet_finetuning.verify import RECEIPT
from efficientnet_finetuning.workers import Workers

logger = logging.getLogger(__name__)

_NUM_PHOTOGRAPHS = 50
_FAILURES = "known_failures.png"


def convert_champion(champion_model: Classifier, train_images: Examples, export: ExportParameters) -> dict[str, bytes]:
    """Convert the champion to the requested formats."""
    check_formats(export.formats)
    return convert(champion_model, train_images.arrays[0], export.formats)


def try_exports(
    exports: dict[str, bytes], champion_model: Classifier, test_images: Examples, source: Source, manifest: pd.DataFrame
) -> pd.DataFrame:
    """Run each format on the test images, and refuse formats with other predictions than the champion."""
    photographs = _photographs(source, manifest, champion_model.background)
    checks = check_exports(exports, champion_model, test_images, photographs)
    logger.info("%s", format_checks(checks))
    if faults := [f"{row['format']}: {row['fault']}" for row in checks.to_dict("records") if row["fault"]]:
        raise InputError(
            "An exported classifier predicts differently from the champion:\n  - "
            + "\n  - ".join(faults)
            + "\nRemove the format from export.formats in conf/base/parameters.yml."
        )
    return checks


def _photographs(source: Source, manifest: pd.DataFrame, background: str) -> list[np.ndarray]:
    """Some original test images, upright RGB."""
    rows = manifest[manifest["split"] == "test"]
    chosen = rows.iloc[np.unique(np.linspace(0, len(rows) - 1, _NUM_PHOTOGRAPHS).astype(int))]
    photographs = []
    for split, part in chosen.groupby("source_split"):
        for image in source.images(str(split), set(part["id"])):
            with image.open() as stream, open_image(stream) as opened:
                photographs.append(np.asarray(upright_rgb(opened, background)))
    return photographs


def show_failures(champion_model: Classifier, test_images: Examples, workers: Workers) -> Figure:
    """The champion's most confident mistakes and least confident hits on the test images."""
    images, labels = test_images.arrays
    logits = champion_model.predict_logits(images, map_blocks=workers.map_blocks)
    names, temperature = champion_model.class_names, champion_model.temperature
    predictions = predictions_table(logits, labels, test_images.ids, names, temperature)
    return show_predictions(champion_model, images, predictions)


def write_bundle(
    champion_model: Classifier,
    champion_metrics: dict[str, Any],
    exports: dict[str, bytes],
    export_checks: pd.DataFrame,
    known_failures: bytes,
    test_images: Examples,
    manifest: pd.DataFrame,
    audit: dict[str, Any],
    lineage: Mapping[str, Mapping[str, Any]],
) -> dict[str, bytes]:
    """Collect the champion in all formats with its card and receipt in one folder."""
    files = {
        **exports,
        "classifier.keras": classifier_file(champion_model),
        METADATA_NAME: champion_model.metadata().encode(),
        "exports.csv": export_checks.to_csv(index=False).encode(),
        _FAILURES: known_failures,
    }
    files["README.md"] = model_card(champion_model, champion_metrics, export_checks, audit, _FAILURES).encode()
    receipt = make_receipt(
        files,
        parameters=_parameters(lineage),
        lineage=lineage,
        manifest=manifest,
        test=test_images,
        metrics=champion_metrics,
        project=Path.cwd(),
    )
    return {**files, RECEIPT: as_bytes(receipt)}


def _parameters(lineage: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Parameters of everything that the model depends on."""
    return {name: value for record in lineage.values() for name, value in record["parameters"].items()}
