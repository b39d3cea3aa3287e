import itertools

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from efficientnet_finetuning.evaluation.ranking import area_under_roc, average_precision, roc_curve


@pytest.mark.parametrize("decimals", [1, 8], ids=["ties", "no ties"])
def test_areas_agree_with_scikit_learn(decimals):
    generator = np.random.default_rng(0)
    positive = generator.random(300) < 0.2
    scores = np.round(generator.random(300) + 0.3 * positive, decimals)
    assert area_under_roc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))
    assert average_precision(scores, positive) == pytest.approx(average_precision_score(positive, scores))


@pytest.mark.parametrize("scores", [[0.9, 0.7, 0.4, 0.1], [0.9, 0.9, 0.4, 0.1], [0.9, 0.4, 0.1, 0.1]], ids=str)
def test_areas_of_every_order_of_four_images_agree_with_scikit_learn(scores):
    for kinds in itertools.product([False, True], repeat=4):
        positive = np.array(kinds)
        if 0 < positive.sum() < 4:
            assert area_under_roc(np.array(scores), positive) == pytest.approx(roc_auc_score(positive, scores))
            expected = average_precision_score(positive, scores)
            assert average_precision(np.array(scores), positive) == pytest.approx(expected)


def test_the_curve_goes_from_nothing_to_everything():
    curve = roc_curve(np.array([0.2, 0.9, 0.9, 0.1]), np.array([True, True, False, False]))
    assert curve.to_dict("list") == {
        "threshold": [np.inf, 0.9, 0.2, 0.1],
        "true_positives": [0, 1, 2, 2],
        "false_positives": [0, 1, 1, 2],
    }


def test_without_images_of_both_kinds_there_is_no_area():
    scores = np.array([0.1, 0.2])
    assert area_under_roc(scores, np.array([True, True])) is None
    assert area_under_roc(scores, np.array([False, False])) is None
    assert average_precision(scores, np.array([False, False])) is None
    assert average_precision(scores, np.array([True, True])) == 1
