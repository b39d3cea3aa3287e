"""Ingestion: what images there are, whether they are sound, who is in which split."""

import logging
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from efficientnet_finetuning.data.audit import audit, format_audit
from efficientnet_finetuning.data.inspection import inspect_images
from efficientnet_finetuning.data.manifest import build_manifest
from efficientnet_finetuning.data.sources import Source, open_source
from efficientnet_finetuning.evaluation.figures import audit_summary
from efficientnet_finetuning.parameters import AuditParameters, DatasetParameters

logger = logging.getLogger(__name__)


def find_images(dataset: DatasetParameters) -> tuple[Source, list[str]]:
    """Find the raw set; returns it with its class names in the order of the labels."""
    source = open_source(dataset)
    return source, list(source.class_names)


def look_at_images(source: Source, dataset: DatasetParameters, max_megapixels: float, seed: int) -> pd.DataFrame:
    """Open every image once; returns what each is and why it is excluded, if it is."""
    return inspect_images(source, dataset, max_megapixels, seed)


def list_images(
    image_findings: pd.DataFrame,
    class_names: list[str],
    dataset: DatasetParameters,
    audit: AuditParameters,
    seed: int,
) -> pd.DataFrame:
    """Put every sound image into a split; returns the manifest, one row an image."""
    return build_manifest(image_findings, tuple(class_names), dataset, audit, seed)


def audit_images(
    source: Source, manifest: pd.DataFrame, class_names: list[str], dataset: DatasetParameters
) -> tuple[dict[str, Any], Figure]:
    """Sum up what is in the set; returns the report and a picture of it."""
    report = audit(source, manifest, class_names, dataset)
    logger.info("%s", format_audit(report))
    return report, audit_summary(report, manifest)
