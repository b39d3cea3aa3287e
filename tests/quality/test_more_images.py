import json
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure

from efficientnet_finetuning.evaluation.figures import data_curve
from efficientnet_finetuning.parameters import HeadParameters
from efficientnet_finetuning.quality.more_images import Curves, Judged, judge_parts, sample_curves, value_of_more_images
from efficientnet_finetuning.training import head

pytestmark = pytest.mark.slow

HEAD = HeadParameters(inverse_regularizations=(0.01, 0.1))
NAMES = ["=cat", "NA", "Käfer, rot"]


def clouds(count: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three classes around the corners of a cube in twelve dimensions."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    return (np.eye(3, 12)[labels] + spread * generator.normal(size=(count, 12))).astype(np.float32), labels


def alone(count: int) -> np.ndarray:
    return np.arange(count).astype(str)


def test_images_that_are_learnt_from_slowly_gain_and_easy_ones_do_not():
    gains = {}
    for spread in (0.05, 0.7):
        features, labels = clouds(240, spread)
        found = value_of_more_images(features, labels, NAMES, alone(240), HEAD, seed=0)
        json.dumps(found, allow_nan=False)
        assert [row["images"] for row in found["points"]] == pytest.approx([24, 48, 96, 192], abs=2)
        doubled = found["doubled"]
        assert doubled["low"] <= doubled["accuracy"] <= doubled["high"]
        assert doubled["gain_low"] <= doubled["gain"] <= doubled["gain_high"]
        gains[spread] = doubled["gain"]
        assert isinstance(data_curve(found), Figure)
    assert gains[0.05] < 0.002 < 0.006 < gains[0.7]
    assert "480 instead of 240" in found["words"][0]


def test_a_known_power_law_is_continued():
    sizes = np.array([100.0, 200.0, 400.0, 800.0])
    errors = np.repeat((0.1 + 3 * sizes**-0.5)[:, None], 5, axis=1)
    curves = sample_curves(Judged(sizes, np.arange(5), errors, 5), 1e-8 * np.eye(4), 1000, np.random.default_rng(0))
    assert np.median(curves.at(2000.0)) == pytest.approx(0.1 + 3 * 2000**-0.5, abs=0.004)


def test_curves_are_sampled_by_their_likelihood():
    """Against a sum over the whole grid of shapes and over errors, each weighted by the normal likelihood."""
    sizes, error = np.array([40.0, 80.0, 160.0, 320.0]), np.array([0.46, 0.41, 0.33, 0.31])
    covariance = 0.02**2 * (np.eye(4) + 0.3)
    shapes = np.meshgrid(np.linspace(0, 0.95, 20), np.geomspace(0.05, 2, 20), [0.0, *np.geomspace(0.01, 1, 8)])
    floors, exponents, shifts = (grid.ravel()[:, None] for grid in shapes)
    courses = floors + (1 - floors) * ((sizes / 400 + shifts) / (1 + shifts)) ** -exponents
    errors = np.linspace(0.1, 0.5, 400)
    off = errors[None, :, None] * courses[:, None] - error
    weights = np.exp(-np.einsum("sei,ij,sej->se", off, np.linalg.inv(covariance), off) / 2)
    weights /= weights.sum()

    judged = Judged(sizes, np.arange(7), np.repeat(error[:, None], 7, axis=1), 5)
    curves = sample_curves(judged, covariance, 400, np.random.default_rng(0))
    mean = (weights.sum(0) * errors).sum()
    assert curves.error.mean() == pytest.approx(mean, abs=0.002)
    assert curves.error.std() == pytest.approx(np.sqrt((weights.sum(0) * (errors - mean) ** 2).sum()), rel=0.05)
    for sampled, grid in ((curves.floor, floors), (curves.exponent, exponents), (curves.shift, shifts)):
        assert sampled.mean() == pytest.approx((weights.sum(1) * grid[:, 0]).sum(), rel=0.05)


def test_errors_stay_between_none_and_all():
    for share in (0.0, 1.0):
        judged = Judged(np.array([10.0, 20.0]), np.arange(3), np.full((2, 3), share), 5)
        errors = sample_curves(judged, 0.1 * np.eye(2), 25, np.random.default_rng(0)).error
        assert (errors == share).mean() > 0.1
        assert errors.min() >= 0
        assert errors.max() <= 1


def test_the_class_that_is_hard_gains_most():
    features, labels = clouds(300, 0.3)
    hard = labels == 2
    features[hard] += 0.5 * np.random.default_rng(1).normal(size=(hard.sum(), 12)).astype(np.float32)
    found = value_of_more_images(features, labels, NAMES, alone(300), HEAD, seed=0)
    assert found["classes"][0]["class"] == "Käfer, rot"
    assert {row["class"] for row in found["classes"]} == set(NAMES)


def test_a_group_is_never_on_both_sides():
    """Each photograph lies there five times: one that has learnt a copy knows the answer, whatever the label is."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(40, 60)).repeat(5, axis=0).astype(np.float32)
    labels = generator.integers(0, 2, 40).repeat(5)
    together = np.arange(40).repeat(5)
    leaking = judge_parts(features, labels, 2, np.arange(200), HEAD, np.random.default_rng(0))
    honest = judge_parts(features, labels, 2, together, HEAD, np.random.default_rng(0))
    assert leaking.errors[-1].mean() < 0.1
    assert honest.errors[-1].mean() > 0.3


def test_too_few_images_are_said():
    features, labels = clouds(24, 0.3)
    found = value_of_more_images(features, labels, NAMES, alone(24), HEAD, seed=0)
    assert not found["told"]
    assert "24 images of 3 classes are too few" in found["words"][0]
    assert isinstance(data_curve(found), Figure)


def test_a_class_of_one_image_is_named():
    features, labels = clouds(120, 0.3)
    labels[-1] = 3
    found = value_of_more_images(features, labels, [*NAMES, "unicorn"], alone(120), HEAD, seed=0)
    assert "unicorn" in found["words"][-1]
    json.dumps(found, allow_nan=False)


@pytest.fixture
def fitted(monkeypatch):
    """The parts that heads are fitted on, with their strengths, and the heads, call by call."""
    calls, fit_parts = [], head.fit_parts

    def noting(features, targets, parts, parameters):
        heads = list(fit_parts(features, targets, parts, parameters))
        calls.append((list(parts), heads))
        return heads

    monkeypatch.setattr(head, "fit_parts", noting)
    return calls


def test_parts_grow_evenly_keep_class_shares_and_leave_out_each_image_equally_often(fitted):
    features, labels = clouds(120, 0.5)[0], np.repeat([0, 1, 2], [60, 30, 30])
    pairs = np.arange(120) // 2
    judged = judge_parts(features, labels, 3, pairs, HEAD, np.random.default_rng(0))
    parts = [rows for rows, _ in fitted[1][0]]
    assert judged.repeats == 50
    assert len(parts) == 200, "four sizes, fifty times"
    np.testing.assert_allclose(judged.sizes, np.geomspace(12, 96, 4), rtol=0.03)
    np.testing.assert_array_equal(judged.rows, np.arange(120))
    left_out, off = [], []
    for cut in range(50):
        smaller = parts[4 * cut : 4 * cut + 4]
        for part, larger in pairwise(smaller):
            np.testing.assert_array_equal(part, larger[: len(part)])
        shares = np.bincount(labels[smaller[2]], minlength=3) / len(smaller[2])
        off.append(np.abs(shares - np.bincount(labels) / 120).max())
        left_out.append(np.setdiff1d(np.arange(120), smaller[-1]))
        assert not set(pairs[left_out[-1]]) & set(pairs[smaller[-1]])
        of_class = np.bincount(labels[left_out[-1]], minlength=3) / np.bincount(labels)
        assert np.abs(of_class - 0.2).max() < 0.1
    assert np.mean(off) < 0.05, "by chance it would be 0.08"
    for five in range(0, 50, 5):
        np.testing.assert_array_equal(np.sort(np.concatenate(left_out[five : five + 5])), np.arange(120))
    assert len({tuple(rows) for rows in left_out}) > 40, "folds are drawn anew"
    assert len({tuple(part) for part in parts[::4]}) > 40, "and so are the parts"


def test_errors_are_the_shares_of_heads_that_are_wrong_about_an_image(fitted):
    features, labels = clouds(90, 0.9)
    judged = judge_parts(features, labels, 3, np.arange(90), HEAD, np.random.default_rng(0))
    wrong, times = np.zeros((4, 90)), np.zeros(90)
    parts, heads = fitted[1]
    for place, ((kernel, bias), (_, strength)) in enumerate(zip(heads, parts, strict=True)):
        largest = parts[place - place % 4 + 3][0]
        held_out = np.setdiff1d(np.arange(90), largest)
        times[held_out] += place % 4 == 0
        wrong[place % 4, held_out] += (features[held_out] @ kernel + bias).argmax(1) != labels[held_out]
        assert strength in HEAD.inverse_regularizations
    np.testing.assert_allclose(judged.errors, wrong / times)
    assert 0.05 < judged.errors.mean() < 0.6


def test_the_strength_is_the_one_that_is_right_most_often_about_held_out_images(fitted):
    features, labels = clouds(90, 0.9)
    parameters = HeadParameters(inverse_regularizations=(100.0, 1e-6, 1.0, 0.01))
    judge_parts(features, labels, 3, np.arange(90), parameters, np.random.default_rng(0))
    parts, heads = fitted[0]
    assert [strength for _, strength in parts[:4]] == [1e-6, 0.01, 1.0, 100.0]
    right = np.zeros(4)
    for place, ((rows, _), (kernel, bias)) in enumerate(zip(parts, heads, strict=True)):
        assert len(rows) == 72
        held_out = np.setdiff1d(np.arange(90), rows)
        right[place % 4] += ((features[held_out] @ kernel + bias).argmax(1) == labels[held_out]).mean()
    assert {strength for _, strength in fitted[1][0]} == {parts[right.argmax()][1]}
    assert len(parts) == 4 * (2000 // 90), "about two thousand predictions"


def test_few_images_of_many_classes_begin_with_two_a_class():
    labels = np.arange(60) % 10
    features = np.eye(10, dtype=np.float32)[labels]
    judged = judge_parts(features, labels, 10, np.arange(60), HEAD, np.random.default_rng(0))
    np.testing.assert_allclose(judged.sizes, np.geomspace(20, 48, 4), rtol=0.03)
    assert judged.errors[-1].max() == 0


@pytest.mark.parametrize(("count", "repeats"), [(400, 25), (5000, 5), (5001, 2)])
def test_many_images_are_judged_less_often(count, repeats):
    features, labels = clouds(count, 0.3)
    judged = judge_parts(features[:, :3], labels, 3, np.arange(count), HEAD, np.random.default_rng(0))
    assert judged.repeats == repeats
    assert len(judged.rows) == pytest.approx(count * min(repeats, 5) / 5, abs=3)


def test_a_curve_is_a_power_law_between_its_floor_and_now():
    curves = Curves(np.array([0.2, 0.4]), np.array([0.5, 0.0]), np.array([1.0, 2.0]), np.array([0.0, 1.0]), 100)
    np.testing.assert_allclose(curves.at(100), [0.2, 0.4])
    np.testing.assert_allclose(curves.at(200), [0.2 * (0.5 + 0.5 / 2), 0.4 * (3 / 2) ** -2])
    np.testing.assert_allclose(
        curves.at(np.array([50.0, 100.0])), [[0.2 * (0.5 + 0.5 * 2), 0.2], [0.4 * 0.75**-2, 0.4]]
    )


def curve_at(found, *images: float) -> np.ndarray:
    """Accuracies of the fitted curve."""
    return np.interp(images, *([row[key] for row in found["curve"]] for key in ("images", "accuracy")))


@pytest.fixture(scope="module")
def pairs():
    """A set whose images come in pairs of equals, and what was found in it."""
    features, labels = clouds(60, 0.55)
    features, labels = features.repeat(2, axis=0), labels.repeat(2)
    groups = np.arange(60).repeat(2).astype(str)
    found = value_of_more_images(features, labels, NAMES, groups, HEAD, seed=3)
    codes = np.unique(groups, return_inverse=True)[1]
    return found, judge_parts(features, labels, 3, codes, HEAD, np.random.default_rng(3)), labels


def test_points_have_the_interval_of_groups_and_of_the_choice_of_parts(pairs):
    found, judged, _ = pairs
    error = judged.errors.mean(1)
    by_pairs = judged.errors.reshape(4, 60, 2).mean(2).var(1) / 60
    by_training = 0.3 * error * (1 - error) * (1 / 120 + (1 / judged.sizes - 1 / 120) / judged.repeats)
    half = 1.28 * np.sqrt(by_pairs + by_training)
    for key, expected in {
        "images": judged.sizes,
        "accuracy": 1 - error,
        "low": 1 - error - half,
        "high": 1 - error + half,
    }.items():
        assert [row[key] for row in found["points"]] == pytest.approx(list(expected), rel=1e-5), key


def test_the_curve_goes_from_the_smallest_part_to_twice_the_images(pairs):
    found, judged, _ = pairs
    curve = {key: np.array([row[key] for row in found["curve"]]) for key in found["curve"][0]}
    np.testing.assert_allclose(curve["images"], np.geomspace(judged.sizes[0], 240, 30))
    assert (np.diff(curve["accuracy"]) > 0).all()
    assert (curve["low"] < curve["accuracy"]).all()
    assert (curve["accuracy"] < curve["high"]).all()
    through = np.interp(judged.sizes, curve["images"], curve["accuracy"])
    np.testing.assert_allclose(through, 1 - judged.errors.mean(1), atol=0.03)
    assert found["fit"]["error"] == pytest.approx(1 - curve_at(found, 120)[0], abs=0.005)
    assert 0 <= found["fit"]["floor"] <= 0.95
    assert 0.05 <= found["fit"]["exponent"] <= 2
    assert 0 <= found["fit"]["shift"] <= 1


def test_twice_the_images_have_the_chance_of_one_head_in_their_interval(pairs):
    found, *_ = pairs
    doubled, last = found["doubled"], found["curve"][-1]
    now = 1 - found["fit"]["error"]
    assert doubled["images"] == 240
    assert doubled["accuracy"] == pytest.approx(last["accuracy"], abs=0.005)
    assert doubled["gain"] == pytest.approx(last["accuracy"] - now, abs=0.01)
    chance = 2 * 1.2816 * np.sqrt(0.3 * last["accuracy"] * (1 - last["accuracy"]) / 240)
    expected = np.hypot(last["high"] - last["low"], chance)
    assert doubled["high"] - doubled["low"] == pytest.approx(expected, rel=0.1)


def test_classes_that_differ_by_chance_alone_gain_the_same():
    features, labels = clouds(150, 0.5)
    found = value_of_more_images(features, labels, NAMES, alone(150), HEAD, seed=0)
    now, later = curve_at(found, 150, 300)
    assert len({row["recall"] for row in found["classes"]}) == 3
    for row in found["classes"]:
        assert row["images"] == 50
        assert row["gain"] == pytest.approx(later - now, rel=0.1)
        assert 0 < row["low"] < row["gain"] < row["high"] < 1.25 * row["gain"]
        assert {key: row[key] for key in ("gain", "low", "high")} == {
            key: found["classes"][0][key] for key in ("gain", "low", "high")
        }
    assert found["words"][-1] == "No class clearly gains more than the others from its next 50 images."


def test_a_class_that_makes_all_errors_makes_all_gains():
    features, labels = clouds(600, 0.15)
    hard = labels == 2
    features[hard] += 0.9 * np.random.default_rng(1).normal(size=(hard.sum(), 12)).astype(np.float32)
    found = value_of_more_images(features, labels, NAMES, alone(600), HEAD, seed=0)
    best, *others = found["classes"]
    now, later = curve_at(found, 600, 750)
    assert best["class"] == "Käfer, rot"
    assert best["gain"] == pytest.approx(3 * (later - now), rel=0.2)
    assert best["high"] < 1.6 * best["gain"]
    assert [row["high"] for row in others] == [0, 0]
    assert found["words"][-1] == (
        f"If all classes grow alike, Käfer, rot gains most from its next 50 images: {100 * best['gain']:+.1f} points "
        f"of recall ({100 * best['low']:.1f} to {100 * best['high']:.1f})."
    )


def test_a_class_has_the_recall_of_the_largest_parts(pairs):
    found, judged, labels = pairs
    for row in found["classes"]:
        of_class = labels == NAMES.index(row["class"])
        assert row["recall"] == pytest.approx(1 - judged.errors[-1, of_class].mean())


def test_a_rare_class_gains_more_from_as_many_images():
    features, labels = clouds(600, 0.5)
    rare = labels == 1
    kept = ~rare | (np.cumsum(rare) <= 60)
    found = value_of_more_images(features[kept], labels[kept], NAMES, alone(int(kept.sum())), HEAD, seed=0)
    first = found["classes"][0]
    assert (first["class"], first["images"]) == (NAMES[1], 60)


@pytest.mark.parametrize(
    ("count", "spread", "told"),
    [
        pytest.param(42, 0.7, False, id="wide"),
        pytest.param(60, 0.9, True, id="wide, but a gain"),
        pytest.param(150, 0.3, True, id="narrow, without a gain"),
    ],
)
def test_the_words_say_the_gain_and_whether_it_is_known(count, spread, told):
    features, labels = clouds(count, spread)
    found = value_of_more_images(features, labels, NAMES, alone(count), HEAD, seed=0)
    gain, low, high = (100 * found["doubled"][key] for key in ("gain", "gain_low", "gain_high"))
    assert (low > 0, high - low < 3) == (count == 60, count == 150)
    assert found["told"] == told
    expected = [
        f"Twice as many images ({2 * count} instead of {count}): {gain:+.1f} points of accuracy (80 % interval "
        f"{low:.1f} to {high:.1f}), from the learning curve of a head on the frozen backbone."
    ]
    if not told:
        expected.append("The interval is too wide to tell whether more images would help: there are too few images.")
    assert found["words"][:-1] == expected


@pytest.mark.parametrize(
    ("num_classes", "count", "enough"), [(3, 39, False), (3, 40, True), (12, 59, False), (12, 60, True)]
)
def test_it_takes_five_images_a_class_and_forty_in_all(num_classes, count, enough):
    labels = np.arange(count) % num_classes
    features = np.eye(num_classes, dtype=np.float32)[labels]
    names = [f"class {number}" for number in range(num_classes)]
    found = value_of_more_images(features, labels, names, alone(count), HEAD, seed=0)
    assert bool(found["points"]) == enough
    assert found["num_images"] == count
    if not enough:
        assert found["curve"] == found["classes"] == []
        assert found["fit"] is found["doubled"] is None
        assert found["words"] == [
            f"{count} images of {num_classes} classes are too few to predict the gain from more images. It takes five "
            "of each class and 40 in all."
        ]
