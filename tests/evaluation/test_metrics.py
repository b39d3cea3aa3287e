import json
import math

import numpy as np
import pytest

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.evaluation.metrics import classification_metrics, predictions_table

NAMES = ("a", "b", "c")
# Softmax of log-probabilities is the probabilities, whatever is added to a row.
PROBABILITIES = np.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1]])
LOGITS = (np.log(PROBABILITIES) + np.array([[0], [100], [-100], [3]])).astype(np.float32)
TARGETS = np.array([0, 1, 1, 1])


def one_hot(targets, num_classes: int) -> np.ndarray:
    return np.eye(num_classes, dtype=np.uint8)[np.asarray(targets)]


def test_metrics_of_four_images_agree_with_the_hand():
    metrics = classification_metrics(LOGITS, one_hot(TARGETS, 3), NAMES)
    assert metrics["num_images"] == 4
    assert metrics["loss"] == pytest.approx(-math.log(0.5 * 0.2 * 0.3 * 0.7) / 4, abs=1e-5)
    assert metrics["top1"] == 0.5
    assert metrics["top5"] == 1.0
    assert metrics["per_class"] == {"a": 1.0, "b": pytest.approx(1 / 3), "c": None}
    assert metrics["balanced_accuracy"] == pytest.approx(2 / 3), "of the classes that have images"


def test_metrics_are_plain_json_even_where_a_class_has_no_images():
    metrics = classification_metrics(LOGITS, one_hot(TARGETS, 3), NAMES)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_top5_counts_the_five_highest_logits_of_many_classes():
    logits = np.tile(np.arange(8, dtype=np.float32), (8, 1))
    metrics = classification_metrics(logits, one_hot(range(8), 8), tuple("abcdefgh"))
    assert metrics["top1"] == 1 / 8
    assert metrics["top5"] == 5 / 8


@pytest.mark.parametrize("num_classes", [2, 5])
def test_top5_is_1_with_five_classes_or_fewer(num_classes):
    targets = np.arange(num_classes)
    worst = -one_hot(targets, num_classes).astype(np.float32)
    metrics = classification_metrics(worst, one_hot(targets, num_classes), tuple("abcde"[:num_classes]))
    assert (metrics["top1"], metrics["top5"]) == (0.0, 1.0)


def test_equal_logits_are_ranked_like_argmax_and_so_agree_with_the_predictions():
    logits = np.zeros((8, 8), np.float32)
    labels = one_hot(range(8), 8)
    metrics = classification_metrics(logits, labels, tuple("abcdefgh"))
    assert (metrics["top1"], metrics["top5"]) == (1 / 8, 5 / 8)
    assert metrics["loss"] == pytest.approx(math.log(8))
    assert predictions_table(logits, labels, np.arange(8), tuple("abcdefgh"))["correct"].mean() == metrics["top1"]


def test_logits_that_are_not_numbers_are_refused():
    logits = np.full((4, 8), np.nan, np.float32)
    with pytest.raises(InputError, match="not finite"):
        classification_metrics(logits, one_hot([4, 5, 6, 7], 8), tuple("abcdefgh"))


def test_predictions_have_a_row_an_image_in_the_order_of_the_ids():
    table = predictions_table(LOGITS, one_hot(TARGETS, 3), np.array(["z", "y", "x", "w"]), NAMES)
    assert list(table) == ["id", "true", "predicted", "correct", "confidence", "true_probability"]
    assert table["id"].tolist() == ["z", "y", "x", "w"]
    assert table["true"].tolist() == ["a", "b", "b", "b"]
    assert table["predicted"].tolist() == ["a", "c", "a", "b"]
    assert table["correct"].tolist() == [True, False, False, True]
    assert table["confidence"].to_numpy() == pytest.approx([0.5, 0.7, 0.6, 0.7], abs=1e-5)
    assert table["true_probability"].to_numpy() == pytest.approx([0.5, 0.2, 0.3, 0.7], abs=1e-5)
