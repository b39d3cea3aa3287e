import json
import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, classification_report, roc_auc_score

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.evaluation.metrics import (
    classification_metrics,
    confused_pairs,
    confusion,
    predictions_table,
)

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
    assert metrics["top5"] is None, "with three classes it says nothing"
    keys = ("precision", "recall", "f1", "roc_auc", "average_precision", "support")
    assert {name: tuple(row[key] for key in keys) for name, row in metrics["per_class"].items()} == {
        # The image of class a has the second highest probability of a; of b the highest, the third and the fourth.
        "a": pytest.approx((0.5, 1.0, 2 / 3, 2 / 3, 1 / 2, 1)),
        "b": pytest.approx((1.0, 1 / 3, 0.5, 2 / 3, (1 + 1 + 3 / 4) / 3, 3)),
        "c": (0.0, None, None, None, None, 0),
    }
    assert metrics["balanced_accuracy"] == pytest.approx(2 / 3), "of the classes that have images"
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert metrics["macro_roc_auc"] == pytest.approx(2 / 3)
    assert metrics["macro_average_precision"] == pytest.approx((1 / 2 + (1 + 1 + 3 / 4) / 3) / 2)
    assert metrics["weighted_f1"] == pytest.approx((2 / 3 + 3 * 1 / 2) / 4)
    assert metrics["weighted_precision"] == pytest.approx((0.5 + 3 * 1.0) / 4)


def test_metrics_of_many_classes_agree_with_scikit_learn():
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 30, 200)
    logits = generator.normal(size=(200, 40)).astype(np.float32) + 2 * one_hot(targets, 40)
    metrics = classification_metrics(logits, one_hot(targets, 40), [f"class {label}" for label in range(40)])
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    reference = classification_report(
        targets,
        logits.argmax(1),
        labels=range(30),
        target_names=list(metrics["per_class"])[:30],
        output_dict=True,
        zero_division=0.0,
    )
    for name in list(metrics["per_class"])[:30]:
        expected = {key.replace("f1-score", "f1"): value for key, value in reference[name].items()}
        of_class = (targets == int(name.split()[1]), probabilities[:, int(name.split()[1])])
        expected["roc_auc"] = roc_auc_score(*of_class)
        expected["average_precision"] = average_precision_score(*of_class)
        assert metrics["per_class"][name] == pytest.approx(expected)
    for mean in ("macro", "weighted"):
        for name, key in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert metrics[f"{mean}_{name}"] == pytest.approx(reference[f"{mean} avg"][key])


def test_metrics_are_plain_json_even_where_a_class_has_no_images():
    metrics = classification_metrics(LOGITS, one_hot(TARGETS, 3), NAMES)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    of_one_class = classification_metrics(LOGITS, one_hot([1, 1, 1, 1], 3), NAMES)
    assert of_one_class["macro_roc_auc"] is None
    assert json.loads(json.dumps(of_one_class, allow_nan=False)) == of_one_class


def test_top5_counts_the_five_highest_logits_of_many_classes():
    logits = np.tile(np.arange(8, dtype=np.float32), (8, 1))
    metrics = classification_metrics(logits, one_hot(range(8), 8), tuple("abcdefgh"))
    assert metrics["top1"] == 1 / 8
    assert metrics["top5"] == 5 / 8


@pytest.mark.parametrize(("num_classes", "top5"), [(2, None), (6, None), (7, 0.0)])
def test_top5_is_told_from_seven_classes_on(num_classes, top5):
    targets = np.arange(num_classes)
    worst = -one_hot(targets, num_classes).astype(np.float32)
    metrics = classification_metrics(worst, one_hot(targets, num_classes), tuple("abcdefg"[:num_classes]))
    assert (metrics["top1"], metrics["top5"]) == (0.0, top5)


def test_a_classifier_that_always_says_the_same_has_finite_numbers():
    logits = np.tile(np.array([[5.0, 0, 0]], np.float32), (4, 1))
    metrics = classification_metrics(logits, one_hot(TARGETS, 3), NAMES)
    nothing = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "roc_auc": 0.5, "average_precision": 0.75, "support": 3}
    assert metrics["per_class"]["b"] == nothing
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_a_temperature_changes_confidences_and_no_accuracy():
    cold, warm = (classification_metrics(LOGITS, one_hot(TARGETS, 3), NAMES, temperature) for temperature in (1.0, 2.0))
    assert cold["top1"] == warm["top1"]
    assert (cold["temperature"], warm["temperature"]) == (1.0, 2.0)
    assert cold["calibration_error"] == cold["calibration_error_raw"] == warm["calibration_error_raw"]
    assert warm["calibration_error"] != cold["calibration_error"]
    table = predictions_table(LOGITS, one_hot(TARGETS, 3), np.arange(4), NAMES, 2.0)
    roots = np.sqrt(PROBABILITIES)
    assert table["confidence"].to_numpy() == pytest.approx((roots / roots.sum(1, keepdims=True)).max(1), abs=1e-5)


def test_confusion_counts_true_by_predicted_and_names_the_pairs():
    table = predictions_table(LOGITS, one_hot(TARGETS, 3), np.arange(4), NAMES)
    assert confusion(table, NAMES).tolist() == [[1, 0, 0], [1, 1, 1], [0, 0, 0]]
    pairs = confused_pairs(table, 5)
    assert pairs.to_numpy().tolist() == [["b", "a", 1, pytest.approx(1 / 3)], ["b", "c", 1, pytest.approx(1 / 3)]]
    assert len(confused_pairs(table, 1)) == 1
    turned = confusion(table, ("d", *NAMES[::-1]))
    assert turned.dtype == np.int64
    assert turned.tolist() == [[0] * 4, [0] * 4, [0, 1, 1, 1], [0, 0, 0, 1]], "by the names, whoever has no image"
    assert confused_pairs(table[table["correct"]], 5).empty


def test_mistakes_go_by_their_number_then_by_their_share_then_by_name():
    mistakes = [("b", "a", 3), ("a", "b", 5), ("c", "a", 2), ("d", "a", 2), ("e", "a", 2)]
    right = [("b", "b", 1), ("c", "c", 9), ("d", "d", 1), ("e", "e", 1)]
    answers = [pair[:2] for pair in (*mistakes, *right) for _ in range(pair[2])]
    table = pd.DataFrame(answers, columns=["true", "predicted"])
    table["correct"] = table["true"] == table["predicted"]
    found = confused_pairs(table, 5)
    assert found["true"].tolist() == ["a", "b", "d", "e", "c"]
    assert found["num_images"].tolist() == [5, 3, 2, 2, 2]
    assert found["share"].tolist() == pytest.approx([1, 3 / 4, 2 / 3, 2 / 3, 2 / 11])


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
