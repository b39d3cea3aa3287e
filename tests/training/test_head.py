import numpy as np
import pytest

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import HeadParameters
from efficientnet_finetuning.training.head import fit_head


def blobs(num_classes: int, count: int, seed: int, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % num_classes
    centres = 3 * np.eye(num_classes, 8)
    features = centres[labels] + noise * generator.standard_normal((count, 8))
    return features.astype(np.float32), np.eye(num_classes, dtype=np.uint8)[labels]


@pytest.mark.parametrize("num_classes", [2, 5])
def test_separable_features_are_separated(num_classes):
    test_features, test_labels = blobs(num_classes, 50, seed=2)
    kernel, bias, path = fit_head(
        *blobs(num_classes, 100, seed=0),
        *blobs(num_classes, 20, seed=1),
        HeadParameters(inverse_regularizations=(1.0, 0.01)),
    )
    assert (kernel.shape, bias.shape) == ((8, num_classes), (num_classes,))
    assert ((test_features @ kernel + bias).argmax(1) == test_labels.argmax(1)).all()
    assert [row["inverse_regularization"] for row in path] == [0.01, 1.0], "from strong to weak"


def test_two_classes_have_the_probabilities_of_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    features, labels = blobs(2, 60, seed=0, noise=3)
    kernel, bias, _ = fit_head(features, labels, features, labels, HeadParameters(inverse_regularizations=(1.0,)))
    logits = features @ kernel + bias
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = LogisticRegression(max_iter=500).fit(features, labels.argmax(1)).predict_proba(features)
    np.testing.assert_allclose(probabilities, expected, atol=1e-3)


def test_the_head_that_is_kept_is_the_best_on_validation():
    train, validation = blobs(3, 15, seed=0, noise=3), blobs(3, 300, seed=1, noise=3)
    kernel, bias, path = fit_head(
        *train, *validation, HeadParameters(inverse_regularizations=(1e-6, 1e-3, 1e-2, 0.1, 10.0))
    )
    accuracy = ((validation[0] @ kernel + bias).argmax(1) == validation[1].argmax(1)).mean()
    accuracies = [row["val_accuracy"] for row in path]
    assert len(set(accuracies)) > 1, "or there was nothing to choose"
    assert accuracy == pytest.approx(max(accuracies))


def test_of_equally_good_heads_the_most_regularized_is_kept():
    splits = *blobs(3, 60, seed=0), *blobs(3, 30, seed=1)
    kernel, _, path = fit_head(*splits, HeadParameters(inverse_regularizations=(100.0, 0.01, 1.0)))
    strongest, _, _ = fit_head(*splits, HeadParameters(inverse_regularizations=(0.01,)))
    assert [row["val_accuracy"] for row in path] == [1, 1, 1]
    np.testing.assert_array_equal(kernel, strongest)


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
        kernel, bias, _ = fit_head(features[kept], labels[kept], *validation, parameters)
        predicted = (validation[0] @ kernel + bias).argmax(1)
        return float((predicted[validation[1][:, 1] == 1] == 1).mean())

    assert kept.sum() == 420
    assert recall("none") < 0.3
    assert recall("balanced") > 0.6
