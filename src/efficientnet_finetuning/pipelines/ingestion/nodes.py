"""Ingestion: list images, check them, and assign them to splits."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from efficientnet_finetuning.data.audit import audit, format_audit
from efficientnet_finetuning.data.corrections import read_corrections as read
from efficientnet_finetuning.data.inspection import inspect_images
from efficientnet_finetuning.data.manifest import build_manifest
from efficientnet_finetuning.data.sources import Source
from efficientnet_finetuning.evaluation.figures import audit_summary
from efficientnet_finetuning.parameters import AuditParameters, DatasetParameters
from efficientnet_finetuning.training.checkpoint import Checkpoints
from efficientnet_finetuning.workers import Workers

logger = logging.getLogger(__name__)


def read_corrections(source: Source, file: str | None) -> tuple[pd.DataFrame, list[str]]:
    """Read the corrections, and all class names in the order of the labels."""
    return read(Path(file).expanduser() if file else None, source.class_names)


def look_at_images(
    source: Source,
    dataset: DatasetParameters,
    max_megapixels: float,
    seed: int,
    checkpoints: Checkpoints | None,
    workers: Workers,
) -> pd.DataFrame:
    """Open every image once; return its properties and, if it is excluded, the reason."""
    folder = checkpoints.folder if checkpoints else None
    return inspect_images(source, dataset, max_megapixels, seed, folder, workers.map_blocks)


def list_images(
    image_findings: pd.DataFrame,
    corrections: pd.DataFrame,
    class_names: list[str],
    dataset: DatasetParameters,
    audit: AuditParameters,
    seed: int,
) -> pd.DataFrame:
    """Assign every usable image to a split; return the manifest, one row per image."""
    return build_manifest(image_findings, tuple(class_names), dataset, audit, seed, corrections)


def audit_images(
    source: Source,
    manifest: pd.DataFrame,
    class_names: list[str],
    dataset: DatasetParameters,
    corrections: pd.DataFrame,
) -> tuple[dict[str, Any], Figure]:
    """Summarize the set as a report and a figure."""
    report = audit(source, manifest, class_names, dataset, corrections)
    logger.info("%s", format_audit(report))
    return report, audit_summary(report, manifest)
