"""Review: every image is judged by models that have not seen it, to find what is wrong with the data."""

import logging
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.data.splits import SPLITS
from efficientnet_finetuning.evaluation.calibration import log_softmax
from efficientnet_finetuning.evaluation.pictures import doubtful_labels
from efficientnet_finetuning.models.inference import KerasModel, predict
from efficientnet_finetuning.parameters import HeadParameters
from efficientnet_finetuning.quality.issues import image_issues, summarize
from efficientnet_finetuning.quality.judgement import (
    can_be_judged,
    estimate_wrong_labels,
    out_of_sample_logits,
    say_wrong_labels,
    worth_looking_at,
)
from efficientnet_finetuning.quality.label_issues import overlapping_classes, rank_labels
from efficientnet_finetuning.quality.outliers import near_duplicates, unlike_any_class

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
) -> Arrays:
    """What the frozen backbone sees of all images: one more pass, over the test images.

    Returns:
        ``features`` float16 ``(N, channels)``, of training, validation and test images in this order, averaged over
        mirror images where those were seen; ``labels`` ``(N,)``, ``ids`` and ``splits``.
    """
    from efficientnet_finetuning.models.heads import feature_extractor

    splits = dict(zip(SPLITS, (train_images, validation_images, test_images), strict=True))
    test = predict(feature_extractor(backbone), test_images.arrays[0], head.batch_size, "features of test", flip=flip)
    seen = np.concatenate([features["train"][: len(train_images)], features["validation"]])
    if len(mirrored := features.get("mirrored", seen[:0])):
        seen[-len(mirrored) :] = (seen[-len(mirrored) :] + mirrored) / 2
    return {
        "features": np.concatenate([seen, test]).astype(np.float16),
        "labels": np.concatenate([images.labels.argmax(1) for images in splits.values()]),
        "ids": np.concatenate([images.ids for images in splits.values()]),
        "splits": np.repeat(SPLITS, [len(images) for images in splits.values()]),
    }


def judge_images(review_features: Arrays, class_names: list[str], head: HeadParameters) -> Arrays:
    """Logits of heads that have not seen the image, row by row as the features."""
    logits = out_of_sample_logits(
        review_features["features"],
        review_features["labels"],
        review_features["splits"] == "test",
        len(class_names),
        head.class_weight,
    )
    return {"logits": logits}


def find_issues(
    judgement: Arrays,
    review_features: Arrays,
    train_images: Examples,
    validation_images: Examples,
    test_images: Examples,
    class_names: list[str],
    seed: int,
) -> tuple[pd.DataFrame, dict[str, Any], Figure]:
    """What may be wrong with the images and their labels: a table, a summary, and pictures of the most doubtful."""
    logits, labels = judgement["logits"], review_features["labels"]
    ids, splits = review_features["ids"], review_features["splits"]
    learnt = splits != "test"
    judged = can_be_judged(labels, learnt)
    wrong = estimate_wrong_labels(logits[judged & learnt], labels[judged & learnt])
    probabilities = np.exp(log_softmax(logits, wrong.temperature))
    num_doubted = worth_looking_at(wrong.probability_of(probabilities, labels)[judged])
    found = {
        "label": rank_labels(probabilities, labels, splits, judged, num_doubted),
        "outlier": unlike_any_class(logits, labels),
        "near_duplicate": near_duplicates(review_features["features"], seed),
    }
    issues = image_issues(found, ids, splits, labels, class_names)
    summary = summarize(issues, num_doubted) | {
        "num_images": len(labels),
        "num_doubted": num_doubted,
        "share_wrong": {"share": wrong.share, "low": wrong.low, "high": wrong.high},
        "overlapping_classes": overlapping_classes(
            probabilities[judged & learnt], labels[judged & learnt], class_names
        ),
        "words": say_wrong_labels(wrong, num_doubted, labels[~judged], class_names),
    }
    logger.info("%s", summary["words"])
    rows = found["label"]["row"].to_numpy()[:_PICTURES]
    images = _images(rows, train_images, validation_images, test_images)
    return issues, summary, doubtful_labels(images, issues.head(len(rows)))


def _images(rows: np.ndarray, *splits: Examples) -> np.ndarray:
    """Some images of all splits, by their rows in training, validation and test images together."""
    ends = np.cumsum([0, *(len(split) for split in splits)])
    where = np.searchsorted(ends, rows, side="right") - 1
    return np.stack([splits[split].arrays[0][row - ends[split]] for split, row in zip(where, rows, strict=True)])
