"""Ingestion: what images there are, whether they are sound, who is in which split."""

import pandas as pd

from efficientnet_finetuning.data.manifest import build_manifest
from efficientnet_finetuning.data.sources import Source, open_source
from efficientnet_finetuning.parameters import DatasetParameters


def find_images(dataset: DatasetParameters) -> tuple[Source, list[str]]:
    """Find the raw set; returns it with its class names in the order of the labels."""
    source = open_source(dataset)
    return source, list(source.class_names)


def list_images(source: Source, dataset: DatasetParameters, seed: int) -> pd.DataFrame:
    """Look at every image once and put it into a split; returns the manifest, one row an image."""
    return build_manifest(source, dataset, seed)
