"""Review: find problems in the data with models that did not see the image in question."""

import logging
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.data.groups import groups_of
from efficientnet_finetuning.data.splits import SPLITS
from efficientnet_finetuning.evaluation.figures import data_curve
from efficientnet_finetuning.evaluation.pictures import doubtful_labels, weak_spot_sheet
from efficientnet_finetuning.models.inference import KerasModel, predict
from efficientnet_finetuning.parameters import HeadParameters
from efficientnet_finetuning.quality import shortcuts, weak_spots
from efficientnet_finetuning.quality.image_properties import measure_properties
from efficientnet_finetuning.quality.issues import find_issues as issues_of
from efficientnet_finetuning.quality.judgement import out_of_sample_logits
from efficientnet_finetuning.quality.more_images import value_of_more_images
from efficientnet_finetuning.workers import Workers

logger = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]
_PICTURES = 16


def collect_features(
    backbone: KerasModel,
    features: Arrays,
    train_images: Examples,
    validation_images: Examples,
    test_images: Examples,
    head: HeadParameters,
    flip: bool,
    workers: Workers,
) -> Arrays:
    """Collect features of all images; only test images need another pass.

    Returns:
        ``features`` float16 ``(N, channels)`` of training, validation and test images, averaged over mirror images if
        known; ``labels`` ``(N,)``, ``ids`` and ``splits``.
    """
    from efficientnet_finetuning.models.heads import feature_extractor

    splits = dict(zip(SPLITS, (train_images, validation_images, test_images), strict=True))
    test = predict(
        feature_extractor(backbone),
        test_images.arrays[0],
        head.batch_size,
        "features of test",
        flip=flip,
        map_blocks=workers.map_blocks,
    )
    seen = np.concatenate([features["train"][: len(train_images)], features["validation"]])
    if len(mirrored := features.get("mirrored", seen[:0])):
        seen[-len(mirrored) :] = (seen[-len(mirrored) :] + mirrored) / 2
    return {
        "features": np.concatenate([seen, test]).astype(np.float16),
        "labels": np.concatenate([images.labels.argmax(1) for images in splits.values()]),
        "ids": np.concatenate([images.ids for images in splits.values()]),
        "splits": np.repeat(SPLITS, [len(images) for images in splits.values()]),
    }


def judge_images(
    review_features: Arrays, manifest: pd.DataFrame, class_names: list[str], head: HeadParameters
) -> Arrays:
    """Logits of heads that did not see the image, in the order of the features."""
    logits = out_of_sample_logits(
        review_features["features"],
        review_features["labels"],
        review_features["splits"] == "test",
        len(class_names),
        groups_of(manifest, review_features["ids"]),
        head.class_weight,
    )
    return {"logits": logits}


def find_value_of_more_images(
    review_features: Arrays, manifest: pd.DataFrame, class_names: list[str], head: HeadParameters, seed: int
) -> tuple[dict[str, Any], Figure]:
    """Predict what a head would gain from more images, without test images; and plot the curve."""
    rows = review_features["splits"] != "test"
    found = value_of_more_images(
        review_features["features"][rows].astype(np.float32),
        review_features["labels"][rows],
        class_names,
        groups_of(manifest, review_features["ids"][rows]),
        head,
        seed,
    )
    logger.debug("%s", found["words"][0])
    return found, data_curve(found)


def measure_images(
    manifest: pd.DataFrame, train_images: Examples, validation_images: Examples, test_images: Examples
) -> pd.DataFrame:
    """Brightness, sharpness, size and similar properties of every image."""
    return measure_properties(manifest, dict(zip(SPLITS, (train_images, validation_images, test_images), strict=True)))


def find_issues(
    judgement: Arrays,
    review_features: Arrays,
    image_properties: pd.DataFrame,
    train_images: Examples,
    validation_images: Examples,
    test_images: Examples,
    class_names: list[str],
    seed: int,
) -> tuple[pd.DataFrame, dict[str, Any], Figure]:
    """List possible problems of images and labels: a table, a summary, and pictures of the most doubtful."""
    issues, summary = issues_of(
        judgement["logits"], **review_features, properties=image_properties, class_names=class_names, seed=seed
    )
    logger.debug("%s", summary["words"])
    first = issues[issues["kind"] == "label"].head(_PICTURES)
    rows = pd.Series(np.arange(len(review_features["ids"])), review_features["ids"])[first["id"]].to_numpy()
    images = _images(rows, train_images, validation_images, test_images)
    return issues, summary, doubtful_labels(images, first)


def find_shortcuts(manifest: pd.DataFrame, image_properties: pd.DataFrame, seed: int) -> dict[str, Any]:
    """Test whether properties that have nothing to do with the object reveal its class."""
    found = shortcuts.find_shortcuts(manifest, image_properties, seed)
    for warning in found["warnings"]:
        logger.warning("%s", warning)
    return found


def find_weak_spots(
    judgement: Arrays,
    review_features: Arrays,
    image_properties: pd.DataFrame,
    train_images: Examples,
    validation_images: Examples,
    test_images: Examples,
    class_names: list[str],
    seed: int,
) -> tuple[dict[str, Any], Figure]:
    """Find groups of similar images that are often misclassified, with pictures."""
    ids = review_features["ids"]
    found = weak_spots.find_weak_spots(
        review_features["features"].astype(np.float32),
        judgement["logits"],
        review_features["labels"],
        image_properties.set_index("id").loc[ids].reset_index(),
        class_names,
        seed,
    )
    rows = np.flatnonzero(np.isin(ids, [id_ for spot in found["spots"] for id_ in spot["examples"]]))
    images = _images(rows, train_images, validation_images, test_images)
    return found, weak_spot_sheet(dict(zip(ids[rows], images, strict=True)), found["spots"])


def _images(rows: np.ndarray, *splits: Examples) -> np.ndarray:
    """Images by their rows in training, validation and test images together."""
    ends = np.cumsum([0, *(len(split) for split in splits)])
    where = np.searchsorted(ends, rows, side="right") - 1
    images = [splits[split].arrays[0][row - ends[split]] for split, row in zip(where, rows, strict=True)]
    return np.stack(images) if images else splits[0].arrays[0][:0]
