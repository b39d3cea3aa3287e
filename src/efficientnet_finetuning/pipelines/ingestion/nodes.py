"""Ingestion: what images there are, whether they are sound, who is in which split."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from efficientnet_finetuning.data.audit import audit, format_audit
from efficientnet_finetuning.data.corrections import read_corrections as read
from efficientnet_finetuning.data.inspection import inspect_images
from efficientnet_finetuning.data.manifest import build_manifest
from efficientnet_finetuning.data.sources import Source, open_source
from efficientnet_finetuning.evaluation.figures import audit_summary
from efficientnet_finetuning.parameters import AuditParameters, DatasetParameters
from efficientnet_finetuning.training.checkpoint import Checkpoints
from efficientnet_finetuning.workers import Workers

logger = logging.getLogger(__name__)


def find_images(dataset: DatasetParameters) -> Source:
    """Find the raw set."""
    return open_source(dataset)


def read_corrections(source: Source, file: str | None) -> tuple[pd.DataFrame, list[str]]:
    """Read what is to be corrected; returns it with all class names in the order of the labels."""
    return read(Path(file).expanduser() if file else None, source.class_names)


def look_at_images(
    source: Source,
    dataset: DatasetParameters,
    max_megapixels: float,
    seed: int,
    checkpoints: Checkpoints | None,
    workers: Workers,
) -> pd.DataFrame:
    """Open every image once; returns what each is and why it is excluded, if it is."""
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
    """Put every sound image into a split; returns the manifest, one row an image."""
    return build_manifest(image_findings, tuple(class_names), dataset, audit, seed, corrections)


def audit_images(
    source: Source,
    manifest: pd.DataFrame,
    class_names: list[str],
    dataset: DatasetParameters,
    corrections: pd.DataFrame,
) -> tuple[dict[str, Any], Figure]:
    """Sum up what is in the set; returns the report and a picture of it."""
    report = audit(source, manifest, class_names, dataset, corrections)
    logger.info("%s", format_audit(report))
    return report, audit_summary(report, manifest)
