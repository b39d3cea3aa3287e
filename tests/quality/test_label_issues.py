"""Labels that are known to be wrong, among clouds of features."""

import numpy as np
import pandas as pd
import pytest

from efficientnet_finetuning.evaluation.calibration import log_softmax
from efficientnet_finetuning.quality.issues import COLUMNS, image_issues, summarize
from efficientnet_finetuning.quality.judgement import (
    WrongLabels,
    can_be_judged,
    estimate_wrong_labels,
    out_of_sample_logits,
    say_wrong_labels,
    worth_looking_at,
)
from efficientnet_finetuning.quality.label_issues import label_quality_of_classes, overlapping_classes, rank_labels
from efficientnet_finetuning.quality.outliers import directions, likeness, near_duplicates, unlike_any_class


def clouds(num_classes: int, per_class: int, seed: int = 0, channels: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Features around a centre for each class, and labels."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(num_classes), per_class)
    centres = 1.2 * generator.normal(size=(num_classes, channels))
    return (centres[labels] + generator.normal(size=(len(labels), channels))).astype(np.float32), labels


def flipped(labels: np.ndarray, share: float, seed: int = 1) -> np.ndarray:
    generator = np.random.default_rng(seed)
    given, count = labels.copy(), labels.max() + 1
    rows = generator.permutation(len(labels))[: round(share * len(labels))]
    given[rows] = (labels[rows] + generator.integers(1, count, len(rows))) % count
    return given


def no_test(labels: np.ndarray) -> np.ndarray:
    return np.zeros(len(labels), bool)


@pytest.mark.parametrize("share", [0.03, 0.1, 0.25])
def test_the_share_of_wrong_labels_is_estimated_and_half_of_what_is_proposed_is_wrong(share: float) -> None:
    features, truth = clouds(6, 100)
    given = flipped(truth, share)
    logits = out_of_sample_logits(features, given, no_test(given), 6)
    found = estimate_wrong_labels(logits, given)
    assert found.low <= share <= found.high
    probability = found.probability_of(np.exp(log_softmax(logits, found.temperature)), given)
    proposed = np.argsort(-probability)[: worth_looking_at(probability)]
    assert (given != truth)[proposed].mean() >= 0.5
    assert (given != truth)[proposed].sum() >= 0.8 * (given != truth).sum()


def test_a_wrong_label_is_as_likely_as_bayes_has_it() -> None:
    # Of three classes, 0.15 drawn at random are 0.1 wrong: each class gets 0.05.
    given = np.array([[0.6, 0.3, 0.1], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])
    found = WrongLabels(0.1, 0.0, 0.2, 1.0).probability_of(given, np.zeros(3, int))
    assert found == pytest.approx([0.05 * 0.4 / (0.85 * 0.6 + 0.05), 1, 0])


def test_the_interval_ends_where_the_likelihood_has_dropped_as_wilks_has_it() -> None:
    features, truth = clouds(4, 40)
    labels = flipped(truth, 0.1)
    logits = out_of_sample_logits(features, labels, no_test(labels), 4)
    found = estimate_wrong_labels(logits, labels)

    def drop(share: float) -> float:
        """Of the log-likelihood, below its largest, at a share of wrong labels."""
        drawn = [share * 4 / 3, found.share * 4 / 3]
        given = [np.exp(log_softmax(logits, t)[np.arange(160), labels]) for t in np.geomspace(0.25, 2.5, 24)]
        here, best = (max(np.log((1 - c) * part + c / 4).sum() for part in given) for c in drawn)
        return best - here

    assert drop(found.high) > 1.92 > drop(found.high / 1.09)
    assert drop(found.low) < 1.92 < drop(found.low / 1.09)
    nothing = estimate_wrong_labels(np.zeros((3, 3)), np.arange(3))
    assert (nothing.low, nothing.high) == (0, pytest.approx(0.7 * 2 / 3))
    words = say_wrong_labels(WrongLabels(0.05, 0.02, 0.09, 1.0), 7, labels[:0], list("abcd"))
    assert all(shown in words for shown in ("5.0 %", "2.0 %", "9.0 %", "7 image"))


def test_right_labels_are_not_doubted() -> None:
    features, labels = clouds(6, 100)
    logits = out_of_sample_logits(features, labels, no_test(labels), 6)
    found = estimate_wrong_labels(logits, labels)
    assert found.low == 0
    assert found.high < 0.02
    assert "no sign of randomly wrong labels" in say_wrong_labels(found, 0, labels[:0], list("abcdef"))


def test_test_images_have_no_part_in_what_is_said_of_others() -> None:
    features, labels = clouds(4, 30)
    is_test = np.arange(len(labels)) % 3 == 0
    before = out_of_sample_logits(features, labels, is_test, 4)
    changed, others = features.copy(), labels.copy()
    changed[is_test] += 5
    others[is_test] = (others[is_test] + 1) % 4
    after = out_of_sample_logits(changed, others, is_test, 4)
    np.testing.assert_array_equal(after[~is_test], before[~is_test])
    relabelled = out_of_sample_logits(features, others, is_test, 4)
    np.testing.assert_array_equal(relabelled, before)


@pytest.mark.parametrize(("num_classes", "per_class"), [(2, 8), (2, 200), (40, 8)])
def test_the_wrong_ones_come_first(num_classes: int, per_class: int) -> None:
    features, truth = clouds(num_classes, per_class, channels=64)
    given = flipped(truth, 0.05)
    logits = out_of_sample_logits(features, given, no_test(given), num_classes)
    probabilities = np.exp(log_softmax(logits))
    splits = np.full(len(given), "train")
    table = rank_labels(probabilities, given, splits, np.ones(len(given), bool), 0)
    assert len(table) == np.ceil(0.1 * len(given))
    wrong = (given != truth)[table["row"]]
    assert wrong.sum() >= 0.7 * (given != truth).sum()
    assert table["score"].is_monotonic_decreasing
    assert (table["suggested"].to_numpy()[wrong] == truth[table["row"]][wrong]).mean() >= 0.7


def test_a_tenth_of_each_split_is_ranked_and_what_cannot_be_judged_is_not() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(3), 200)
    labels = generator.integers(0, 3, 200)
    splits = np.repeat(["train", "validation", "test"], [120, 50, 30])
    judged = np.arange(200) != np.argmin(probabilities[np.arange(200), labels])
    table = rank_labels(probabilities, labels, splits, judged, 5)
    counts = pd.Series(splits[table["row"]]).value_counts()
    assert (counts >= pd.Series({"train": 12, "validation": 5, "test": 3})).all()
    assert judged[table["row"]].all()


def test_a_class_of_one_image_cannot_be_judged_and_is_named() -> None:
    labels = np.array([0, 0, 0, 1, 2, 2])
    learnt = np.array([True, True, True, True, True, False])
    judged = can_be_judged(labels, learnt)
    assert judged.tolist() == [True, True, True, False, False, True]
    assert can_be_judged(labels[[0, 1, 5]], np.array([True, True, False])).tolist() == [True, True, False]
    found = estimate_wrong_labels(np.zeros((3, 3)), labels[:3])
    words = say_wrong_labels(found, 0, labels[~judged], ["a", "lonely", "c"])
    assert words.startswith("There are too few images to tell")
    assert words.endswith("too few images to check their labels: lonely, c.")


@pytest.mark.parametrize("count", [20, 60], ids=["a few", "as many as right ones"])
def test_classes_that_overlap_are_named_also_where_one_has_no_image(count: int) -> None:
    features, labels = clouds(4, 60)
    # No image is of the third class, and all that bear the last label are of the fourth.
    labels = np.where(labels >= 2, labels + 1, labels)
    more, _ = clouds(4, 60 + count)
    features = np.concatenate([features, more[-count:]])
    labels = np.concatenate([labels, np.full(count, 5)])
    probabilities = np.exp(log_softmax(out_of_sample_logits(features, labels, no_test(labels), 6)))
    (first, *_) = overlapping_classes(probabilities, labels, ["a", "b", "nothing", "d", "e", "really e"])
    assert {first["first"], first["second"]} == {"e", "really e"}
    worst = label_quality_of_classes(probabilities, labels, ["a", "b", "nothing", "d", "e", "really e"])
    assert {row["class"] for row in worst[:2]} == {"e", "really e"}
    assert "nothing" not in {row["class"] for row in worst}


def test_images_like_no_class_and_images_that_are_alike_are_found() -> None:
    features, labels = clouds(5, 60)
    alien = np.arange(0, 300, 60)
    features[alien] = np.random.default_rng(9).normal(0, 0.2, (5, 24)) - features.mean(0)
    logits = out_of_sample_logits(features, labels, no_test(labels), 5)
    assert set(unlike_any_class(logits, labels)["row"]) <= set(alien)
    features[7] = features[201] + 1e-3
    near = near_duplicates(features, seed=0)
    assert {(7, 201), (201, 7)} <= set(zip(near["row"], near["neighbour"], strict=True))
    assert near_duplicates(features[:1], seed=0).empty


def test_the_hundredth_that_looks_least_like_a_class_is_named_with_its_place() -> None:
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(300, 4)), generator.integers(0, 4, 300)
    expected = [(row[label] + max(row)) / 2 for row, label in zip(logits, labels, strict=True)]
    assert likeness(logits, labels) == pytest.approx(expected)
    table = unlike_any_class(logits, labels)
    assert table["row"].tolist() == np.argsort(expected)[:3].tolist()
    assert table["score"].tolist() == pytest.approx([1, 299 / 300, 298 / 300])


def test_near_duplicates_are_those_that_all_pairs_show() -> None:
    features = np.random.default_rng(0).normal(size=(2_100, 6)).astype(np.float32)
    features[[3, 2_050]], features[700] = features[1_001], features[2] + 0.01
    points = directions(features, seed=0).astype(float)
    distances = 1 - points @ points.T
    np.fill_diagonal(distances, np.inf)
    nearest = np.maximum(distances.min(1), 0)
    near = near_duplicates(features, seed=0).set_index("row")
    assert set(near.index) == set(np.flatnonzero(nearest < 0.13 * np.median(nearest)))
    assert {2, 3, 700, 1_001, 2_050} <= set(near.index)
    assert near["score"].to_numpy() == pytest.approx(1 - nearest[near.index] / np.median(nearest), abs=1e-3)
    assert near["score"].is_monotonic_decreasing
    assert distances[near.index, near["neighbour"]] == pytest.approx(nearest[near.index], abs=1e-5)
    nothing = near_duplicates(features[:1], seed=0)
    assert nothing.dtypes.astype(str).str.rstrip("0123456789").to_dict() == {
        "row": "int",
        "neighbour": "int",
        "score": "float",
    }
    wide = np.random.default_rng(1).normal(size=(300, 200))
    wide[5] = wide[6] + 1e-3
    pd.testing.assert_frame_equal(near_duplicates(wide, seed=1), near_duplicates(wide, seed=1), check_exact=True)
    np.testing.assert_array_equal(directions(wide, seed=1), directions(wide, seed=1))


@pytest.mark.parametrize("num_classes", [2, 12])
def test_classes_are_told_with_the_share_of_their_labels_that_is_right(num_classes: int) -> None:
    labels = np.repeat(np.arange(num_classes), 10)
    looks = labels.copy()
    looks[:2], looks[10] = 1, 0
    probabilities = np.full((len(labels), num_classes), 0.05 / (num_classes - 1))
    probabilities[np.arange(len(labels)), looks] = 0.95
    names = [f"class {label}" for label in range(num_classes)]
    worst = label_quality_of_classes(probabilities, labels, names)
    assert len(worst) == min(num_classes, 10)
    assert worst[0] == {"class": "class 0", "quality": pytest.approx(0.8, abs=0.02), "images": 10}
    assert worst[1] == {"class": "class 1", "quality": pytest.approx(0.9, abs=0.02), "images": 10}
    (pair,) = overlapping_classes(probabilities, labels, names)
    assert pair == {"first": "class 0", "second": "class 1", "images": 3}
    looks[1], looks[10] = 0, 1
    probabilities = np.where(np.eye(num_classes)[looks] > 0, 0.95, 0.05 / (num_classes - 1))
    (pair,) = overlapping_classes(probabilities, labels, names)
    assert pair["images"] == 1


def test_all_issues_make_one_table() -> None:
    ids, splits = np.array(["NA", "b,1", "ü"]), np.array(["train", "test", "train"])
    found = {
        "label": pd.DataFrame({"row": [2, 0], "score": [0.9, 0.4], "suggested": [0, 1], "probability": [0.8, 0.3]}),
        "near_duplicate": pd.DataFrame({"row": [1], "score": [0.99], "neighbour": [2]}),
        "dark": pd.DataFrame({"row": [0], "score": [0.7]}),
    }
    issues = image_issues(found, ids, splits, np.array([0, 1, 1]), ["cat", "dog"])
    assert tuple(issues.columns) == COLUMNS
    assert issues["id"].tolist() == ["ü", "NA", "b,1", "NA"]
    assert issues["neighbour"].tolist() == ["", "", "ü", ""]
    assert issues.loc[0, ["given", "suggested", "probability"]].tolist() == ["dog", "cat", 0.8]
    summary = summarize(issues, num_doubted=1)
    assert summary["pairs"] == [{"given": "dog", "suggested": "cat", "images": 1}]
    assert {"kind": "label", "split": "train", "images": 1} in summary["kinds"]
