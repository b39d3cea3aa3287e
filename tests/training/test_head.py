import time

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import HeadParameters as AllHeadParameters
from efficientnet_finetuning.training.head import fit_head, number_of_folds, stratified_folds
from efficientnet_finetuning.training.rules import ENOUGH_TO_CHOOSE_BY


def HeadParameters(**given):  # noqa: N802
    """Parameters of a path whose strength the validation split chooses, unless a test says otherwise."""
    return AllHeadParameters(**{"folds": 0} | given)


def blobs(num_classes: int, count: int, seed: int, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % num_classes
    centres = 3 * np.eye(num_classes, 8)
    features = centres[labels] + noise * generator.standard_normal((count, 8))
    return features.astype(np.float32), np.eye(num_classes, dtype=np.uint8)[labels]


@pytest.mark.parametrize("num_classes", [2, 5])
def test_separable_features_are_separated(num_classes):
    test_features, test_labels = blobs(num_classes, 50, seed=2)
    kernel, bias, path, _ = fit_head(
        *blobs(num_classes, 100, seed=0),
        *blobs(num_classes, 20, seed=1),
        HeadParameters(inverse_regularizations=(1.0, 0.01)),
    )
    assert (kernel.shape, bias.shape) == ((8, num_classes), (num_classes,))
    assert ((test_features @ kernel + bias).argmax(1) == test_labels.argmax(1)).all()
    assert [row["inverse_regularization"] for row in path] == [0.01, 1.0], "from strong to weak"


@pytest.mark.parametrize("class_weight", ["none", "balanced"])
@pytest.mark.parametrize("num_classes", [2, 5])
def test_the_probabilities_are_those_of_scikit_learns_logistic_regression(num_classes, class_weight):
    features, labels = (array[num_classes // 3 :] for array in blobs(num_classes, 61, seed=0, noise=3))
    parameters = HeadParameters(inverse_regularizations=(1.0,), class_weight=class_weight)
    kernel, bias, *_ = fit_head(features, labels, features, labels, parameters)
    logits = features @ kernel + bias
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    # Of two classes scikit-learn fits one logit, the difference, whose penalty is twice that of two.
    regression = LogisticRegression(
        C=2.0 if num_classes == 2 else 1.0, class_weight=None if class_weight == "none" else class_weight, max_iter=5000
    )
    expected = regression.fit(features, labels.argmax(1)).predict_proba(features)
    np.testing.assert_allclose(probabilities, expected, atol=5e-3)


def test_fewer_images_than_features_give_scikit_learns_probabilities_too():
    generator = np.random.default_rng(0)
    features, targets = generator.normal(size=(24, 60)).astype(np.float32), np.arange(24) % 3
    features[-2:] = features[:2]  # two images that are there twice
    labels = np.eye(3, dtype=np.uint8)[targets]
    kernel, bias, *_ = fit_head(features, labels, features, labels, HeadParameters(inverse_regularizations=(0.01,)))
    probabilities = np.exp(features @ kernel + bias) / np.exp(features @ kernel + bias).sum(1, keepdims=True)
    expected = LogisticRegression(C=0.01, max_iter=5000).fit(features, targets).predict_proba(features)
    np.testing.assert_allclose(probabilities, expected, atol=5e-3)


@pytest.mark.parametrize("folds", [0, 5])
def test_the_path_has_accuracies_losses_and_seconds_and_one_row_that_is_kept(folds):
    (features, labels), (others, other_labels) = blobs(3, 60, seed=0, noise=4), blobs(3, 40, seed=1, noise=4)
    began = time.perf_counter()
    parameters = HeadParameters(folds=folds, inverse_regularizations=(1e-3, 1e-2, 0.1, 1.0))
    fitted = fit_head(features, labels, others, other_labels, parameters)
    assert 0 < sum(row["seconds"] for row in fitted.path) < time.perf_counter() - began
    (kept,) = [row for row in fitted.path if row["kept"]]
    assert (kept["val_accuracy"], -kept["val_loss"]) == max((r["val_accuracy"], -r["val_loss"]) for r in fitted.path)
    held_out_labels = labels if folds else other_labels
    for logits, targets, name in (
        (features @ fitted.kernel + fitted.bias, labels, ""),
        (fitted.held_out_logits[: len(held_out_labels)], held_out_labels, "val_"),
    ):
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        assert kept[f"{name}loss"] == pytest.approx(log_loss(targets, probabilities), rel=1e-4)
        assert kept[f"{name}accuracy"] == (logits.argmax(1) == targets.argmax(1)).mean()


@pytest.mark.parametrize(
    ("folds", "views", "num_rows", "num_validation", "expected"),
    [
        ("auto", 1, 90, 0, 5),
        ("auto", 1, 90, ENOUGH_TO_CHOOSE_BY - 1, 5),
        ("auto", 1, 90, ENOUGH_TO_CHOOSE_BY, 0),
        (3, 1, 90, 1000, 3),
        (0, 1, 90, 0, 0),
        (5, 2, 8, 0, 4),
        (5, 1, 2, 0, 2),
        (5, 2, 2, 0, 0),
    ],
)
def test_folds_choose_where_there_are_few_validation_images(folds, views, num_rows, num_validation, expected):
    parameters = HeadParameters(folds=folds, views=views, inverse_regularizations=(1.0,))
    assert number_of_folds(parameters, num_rows, num_validation) == expected


def test_a_few_images_are_learnt_better_the_weaker_the_regularization():
    splits = *blobs(3, 21, seed=0, noise=6), *blobs(3, 6, seed=1)
    path = fit_head(*splits, HeadParameters(inverse_regularizations=(1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0))).path
    losses = [row["loss"] for row in path]
    assert losses == sorted(losses, reverse=True), "a fit that ends too early would break the order"


def test_the_head_that_is_kept_is_the_best_on_validation():
    train, validation = blobs(3, 15, seed=0, noise=3), blobs(3, 300, seed=1, noise=3)
    kernel, bias, path, _ = fit_head(
        *train, *validation, HeadParameters(inverse_regularizations=(1e-6, 1e-3, 1e-2, 0.1, 10.0))
    )
    accuracy = ((validation[0] @ kernel + bias).argmax(1) == validation[1].argmax(1)).mean()
    accuracies = [row["val_accuracy"] for row in path]
    assert len(set(accuracies)) > 1, "or there was nothing to choose"
    assert accuracy == pytest.approx(max(accuracies))


def test_of_equally_accurate_heads_the_one_with_the_lower_loss_is_kept():
    splits = *blobs(3, 60, seed=0), *blobs(3, 30, seed=1)
    kernel, _, path, _ = fit_head(*splits, HeadParameters(inverse_regularizations=(100.0, 0.01, 1.0)))
    assert [row["val_accuracy"] for row in path] == [1, 1, 1]
    best = min(path, key=lambda row: row["val_loss"])["inverse_regularization"]
    again, *_ = fit_head(
        *splits, HeadParameters(inverse_regularizations=tuple(s for s in (0.01, 1.0, 100.0) if s <= best))
    )
    np.testing.assert_array_equal(kernel, again)


def test_the_path_ends_where_weaker_regularization_no_longer_helps():
    train, validation = blobs(3, 15, seed=0, noise=3), blobs(3, 300, seed=1, noise=3)
    strengths = tuple(10.0**power for power in range(-6, 4))
    path = fit_head(*train, *validation, HeadParameters(inverse_regularizations=strengths)).path
    scores = [(row["val_accuracy"], -row["val_loss"]) for row in path]
    assert len(path) < len(strengths)
    assert scores.index(max(scores)) == len(path) - 3


def test_every_strength_of_a_path_is_fitted_as_well_as_alone():
    splits = *blobs(3, 90, seed=0, noise=3), *blobs(3, 300, seed=1, noise=3)
    strengths = (1e-4, 1e-3, 1.1e-3, 1e-3, 0.01, 1.0)
    path = fit_head(*splits, HeadParameters(inverse_regularizations=strengths)).path
    assert [row["inverse_regularization"] for row in path] == [1e-4, 1e-3, 1.1e-3, 0.01, 1.0], "each of them once"
    for row in path:
        alone = HeadParameters(inverse_regularizations=(row["inverse_regularization"],))
        assert fit_head(*splits, alone).path[0]["loss"] == pytest.approx(row["loss"], abs=1e-3)


def test_validation_features_that_are_not_finite_are_refused():
    features, labels = blobs(2, 10, seed=0)
    broken = np.full_like(features, np.inf)
    with pytest.raises(InputError, match="not finite"):
        fit_head(features, labels, broken, labels, HeadParameters(inverse_regularizations=(1.0,)))


def test_features_that_are_not_finite_are_refused():
    features, labels = blobs(2, 10, seed=0)
    features[3, 3] = np.nan
    with pytest.raises(InputError, match=r"not finite.*backbone\.weights"):
        fit_head(features, labels, features, labels, HeadParameters(inverse_regularizations=(1.0,)))


def test_balanced_classes_teach_a_rare_class_that_equal_weights_neglect():
    features, labels = blobs(2, 800, seed=0, noise=3)
    rare = labels[:, 1] == 1
    kept = ~rare | (np.cumsum(rare) <= 20)
    validation = blobs(2, 400, seed=1, noise=3)

    def recall(class_weight: str) -> float:
        parameters = HeadParameters(inverse_regularizations=(1.0,), class_weight=class_weight)
        kernel, bias, *_ = fit_head(features[kept], labels[kept], *validation, parameters)
        predicted = (validation[0] @ kernel + bias).argmax(1)
        return float((predicted[validation[1][:, 1] == 1] == 1).mean())

    assert kept.sum() == 420
    assert recall("none") < 0.3
    assert recall("balanced") > 0.6


def test_folds_are_even_stratified_and_keep_views_and_neighbours_together():
    labels = np.eye(3, dtype=np.uint8)[[0] * 10 + [1] * 7 + [2] * 2]
    folds = stratified_folds(np.tile(labels, (2, 1)), 5, views=2)
    assert (folds[:19] == folds[19:]).all(), "views of an image stay together"
    folds = folds[:19]
    assert [np.bincount(folds[rows], minlength=5).max() for rows in (slice(10), slice(10, 17), slice(17, 19))] == [
        2,
        2,
        1,
    ]
    assert (np.diff(folds[:10]) != 0).sum() == 4, "a fold takes neighbours"
    assert np.ptp(np.bincount(folds, minlength=5)) <= 2, "small classes do not all begin with the first fold"


def test_folds_of_groups_are_whole_even_and_stratified():
    targets = np.repeat(np.arange(4), 50)
    groups = np.array([f"burst {row // 5}" for row in range(200)])
    folds = stratified_folds(np.tile(np.eye(4, dtype=np.uint8)[targets], (2, 1)), 5, views=2, groups=groups)
    assert (folds[:200] == folds[200:]).all()
    assert all(len(np.unique(folds[:200][groups == group])) == 1 for group in groups)
    assert (np.bincount(targets * 5 + folds[:200]) == 10).all()


def test_a_group_of_several_classes_is_in_the_folds_of_its_rarest():
    generator = np.random.default_rng(0)
    targets = (generator.random(1000) < np.repeat(generator.beta(0.3, 2, 100), 10)).astype(int)
    groups = np.repeat(np.arange(100), 10).astype(str)
    folds = stratified_folds(np.eye(2, dtype=np.uint8)[targets], 5, groups=groups)
    assert all(len(np.unique(folds[groups == group])) == 1 for group in groups)
    counts = np.bincount(targets * 5 + folds).reshape(2, 5)
    assert (np.abs(counts / counts.mean(axis=1, keepdims=True) - 1) < 0.25).all()


def test_groups_of_one_image_each_change_no_fold():
    labels = np.eye(3, dtype=np.uint8)[np.random.default_rng(0).integers(0, 3, 47)]
    names = np.random.default_rng(1).permutation(47).astype(str)
    np.testing.assert_array_equal(stratified_folds(labels, 5, groups=names), stratified_folds(labels, 5))


def test_copies_of_an_image_do_not_choose_the_strength_when_their_group_is_known():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(60, 200)).astype(np.float32)
    labels = np.eye(3, dtype=np.uint8)[np.arange(60) % 3]  # nothing can be learnt but by heart
    copies = np.repeat(features, 3, axis=0), np.repeat(labels, 3, axis=0)
    # Far apart in the stored order, so that neighbours alone do not keep them together.
    order = generator.permutation(180)
    train, nothing = [part[order] for part in copies], (features[:0], labels[:0])
    parameters = HeadParameters(folds=5, inverse_regularizations=(10.0,))
    groups = np.repeat(np.arange(60), 3)[order].astype(str)
    fitted = [fit_head(*train, *nothing, parameters, groups=given).path[0]["val_accuracy"] for given in (None, groups)]
    assert fitted[0] > 0.9
    assert fitted[1] < 0.6


def test_training_images_of_one_group_cannot_be_folded():
    features, labels = blobs(3, 20, seed=0)
    parameters = HeadParameters(folds=5, inverse_regularizations=(1.0,))
    with pytest.raises(InputError, match="All training images are in one group"):
        fit_head(features, labels, features[:0], labels[:0], parameters, groups=np.full(20, "one"))


def test_folds_choose_what_scikit_learns_cross_validation_chooses():
    features, labels = blobs(3, 60, seed=0, noise=4)
    strengths = (1e-4, 1e-3, 1e-2, 0.1, 1.0)
    path = fit_head(
        features, labels, features[:3], labels[:3], HeadParameters(inverse_regularizations=strengths, folds=5)
    ).path
    folds = stratified_folds(labels, 5)
    for row in path:
        right = 0
        for fold in range(5):
            regression = LogisticRegression(C=row["inverse_regularization"], max_iter=5000, tol=1e-8)
            regression.fit(features[folds != fold], labels[folds != fold].argmax(1))
            right += (regression.predict(features[folds == fold]) == labels[folds == fold].argmax(1)).sum()
        assert row["val_accuracy"] == pytest.approx(right / 60, abs=0.02), "but for ties"


def test_a_small_validation_split_leaves_the_choice_to_folds():
    train, validation = blobs(3, 60, seed=0, noise=4), blobs(3, 6, seed=1, noise=4)
    strengths = (1e-4, 1e-2, 1.0)
    chosen = {
        folds: fit_head(*train, *validation, HeadParameters(inverse_regularizations=strengths, folds=folds)).path
        for folds in ("auto", 5, 0)
    }
    accuracies = {folds: [row["val_accuracy"] for row in path] for folds, path in chosen.items()}
    assert accuracies["auto"] == accuracies[5] != accuracies[0]


def test_a_class_of_one_image_is_no_fault():
    features, labels = blobs(2, 9, seed=0)
    labels = np.hstack([labels, np.zeros((9, 1), np.uint8)])
    labels[-1] = [0, 0, 1]
    path = fit_head(
        features, labels, features[:1], labels[:1], HeadParameters(inverse_regularizations=(1.0,), folds=5)
    ).path
    assert np.isfinite(path[0]["val_loss"])


def test_the_head_tells_what_it_would_have_said_of_images_it_had_not_seen():
    (features, labels), (others, other_labels) = blobs(3, 60, seed=0, noise=4), blobs(3, 6, seed=1, noise=4)
    two_views = np.concatenate([features, features + 0.1]), np.concatenate([labels, labels])
    parameters = HeadParameters(views=2, folds=5, inverse_regularizations=(1e-3, 1e-2, 0.1))
    fitted = fit_head(*two_views, others, other_labels, parameters)
    kept = next(row for row in fitted.path if row["kept"])
    assert len(fitted.held_out_logits) == 66, "an image counts once, whatever its views"
    right = fitted.held_out_logits[:60].argmax(1) == labels.argmax(1)
    assert right.mean() == pytest.approx(kept["val_accuracy"], abs=0.05)
    assert right.mean() < kept["accuracy"], "each was judged by a head that had not seen it"
    np.testing.assert_allclose(fitted.held_out_logits[60:], others @ fitted.kernel + fitted.bias)
    without_folds = fit_head(*two_views, others, other_labels, parameters.model_copy(update={"folds": 0}))
    assert len(without_folds.held_out_logits) == 6


def test_where_folds_choose_the_validation_images_teach_too():
    (features, labels), (others, other_labels) = blobs(3, 60, seed=0, noise=4), blobs(3, 30, seed=1, noise=4)
    by_folds, by_validation = (
        HeadParameters(folds=folds, inverse_regularizations=(1e-3, 1e-2, 0.1)) for folds in (5, 0)
    )
    everything = np.concatenate([features, others]), np.concatenate([labels, other_labels])
    whole = fit_head(features, labels, others, other_labels, by_folds, use_all=True)
    np.testing.assert_allclose(whole.kernel, fit_head(*everything, others[:0], other_labels[:0], by_folds).kernel)
    assert len(whole.held_out_logits) == 90
    fits = [fit_head(features, labels, others, other_labels, by_validation, use_all=use) for use in (False, True)]
    np.testing.assert_array_equal(fits[0].kernel, fits[1].kernel)


@pytest.mark.parametrize("folds", [0, 5])
def test_held_out_images_are_judged_by_the_average_over_their_mirror_images(folds):
    (features, labels), (others, other_labels) = blobs(3, 60, seed=0, noise=4), blobs(3, 30, seed=1, noise=4)
    parameters = HeadParameters(folds=folds, inverse_regularizations=(1e-2,))
    judged = np.concatenate([features, others]) if folds else others
    mirrored = judged + np.random.default_rng(0).normal(size=judged.shape).astype(np.float32)
    heads = [
        fit_head(features, labels, others, other_labels, parameters, mirrored=given)
        for given in (None, mirrored, 2 * mirrored - judged)
    ]
    for head in heads[1:]:
        np.testing.assert_array_equal(head.kernel, heads[0].kernel)
    plain, averaged, twice_as_far = (head.held_out_logits for head in heads)
    assert np.abs(averaged - plain).max() > 0.1
    np.testing.assert_allclose(averaged, (plain + twice_as_far) / 2, atol=1e-4)
    assert heads[0].path[0]["val_loss"] != heads[1].path[0]["val_loss"], "the strength is chosen by the answers"
