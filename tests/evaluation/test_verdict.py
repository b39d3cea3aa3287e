import json
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.evaluation.verdict import judge, paired_difference
from efficientnet_finetuning.pipelines.reporting.nodes import reach_verdict


def predictions(correct) -> pd.DataFrame:
    correct = np.asarray(correct, bool)
    return pd.DataFrame({"id": [f"image {row}" for row in range(len(correct))], "correct": correct})


def hits(count: int, of: int = 1000) -> np.ndarray:
    """The first ``count`` of so many images right."""
    return np.arange(of) < count


def test_a_clear_winner_is_named_with_its_lead_and_interval():
    verdict = judge(
        {"transfer": predictions(hits(700)), "finetune": predictions(hits(800))}, {"transfer": 5, "finetune": 60}, 0
    )
    assert verdict["champion"] == "finetune"
    assert verdict["words"].startswith("finetune wins: finetune +10.0 points over transfer, 95 % interval ")
    assert verdict["words"].endswith("p < 0.001.")
    (step,) = verdict["steps"]
    assert (step["only_upper"], step["only_lower"]) == (100, 0)
    # The standard error of a paired difference: sqrt(b + c − (b − c)² / n) / n.
    error = NormalDist().inv_cdf(0.975) * np.sqrt(100 - 100**2 / 1000) / 1000
    assert step["low"] == pytest.approx(0.1 - error, abs=2e-3)
    assert step["high"] == pytest.approx(0.1 + error, abs=2e-3)


def test_where_nothing_can_be_told_the_cheaper_one_is_taken():
    regimes = {"transfer": predictions(hits(700)), "finetune": predictions(hits(703))}
    verdict = judge(regimes, {"transfer": 5, "finetune": 60}, 0)
    assert verdict["champion"] == "transfer"
    assert verdict["words"].startswith("Take transfer: no measurable difference between transfer and finetune")
    assert "so the cheaper one is taken: transfer" in verdict["words"]
    assert judge(regimes, {"transfer": 60, "finetune": 5}, 0)["champion"] == "finetune"


@pytest.mark.parametrize(
    ("right", "of", "named"), [(41, 46, True), (20, 46, False), (700, 1000, False)], ids=["few", "clear", "many"]
)
def test_where_few_test_images_cannot_tell_cross_validation_is_named(right, of, named):
    comparison = pd.DataFrame({"regime": ["transfer", "finetune"], "training_seconds": [5, 60]})
    tables = {
        "transfer_predictions": predictions(hits(right, of)),
        "finetune_predictions": predictions(hits(42 if of == 46 else 701, of)),
    }
    verdict, _ = reach_verdict(comparison, 0, **tables)
    assert ("cross_validation` judges transfer and finetune on all images." in verdict["words"]) == named


def test_a_worse_step_of_the_ladder_is_not_climbed_but_the_next_one_may_be():
    regimes = {
        "baseline": predictions(hits(500)),
        "transfer": predictions(hits(300)),
        "finetune": predictions(hits(900)),
    }
    verdict = judge(regimes, {"baseline": 70, "transfer": 5, "finetune": 60}, 0)
    assert verdict["champion"] == "finetune"
    assert "finetune +40.0 points over baseline" in verdict["words"]
    assert [(step["lower"], step["upper"]) for step in verdict["steps"]] == [
        ("baseline", "transfer"),
        ("transfer", "finetune"),
    ]


def test_one_regime_alone_is_the_champion_of_nothing():
    verdict = judge({"transfer": predictions(hits(3, 4))}, {"transfer": 5}, 0)
    assert verdict["champion"] == "transfer"
    assert "nothing to compare" in verdict["words"]
    assert verdict["steps"] == []


@pytest.mark.parametrize("right", [[True], [False, False]])
def test_equal_regimes_of_few_images_give_finite_numbers(right):
    verdict = judge(
        {"transfer": predictions(right), "finetune": predictions(right)}, {"transfer": 5, "finetune": 60}, 0
    )
    assert verdict["steps"][0]["p_value"] == 1.0
    assert json.loads(json.dumps(verdict, allow_nan=False)) == verdict


def test_the_p_value_is_mcnemars_exact_one():
    lower = np.array([True] * 2 + [False] * 8 + [True] * 90)
    upper = np.array([False] * 2 + [True] * 8 + [True] * 90)
    # Two or fewer, or eight or more, of ten fair coins.
    assert paired_difference(lower, upper, 0)["p_value"] == pytest.approx(2 * (1 + 10 + 45) / 2**10)


@pytest.mark.parametrize(("only_lower", "only_upper"), [(2, 8), (8, 2), (5, 5), (0, 1), (300, 420)])
def test_the_p_value_is_scipys(only_lower, only_upper):
    lower = np.array([True] * only_lower + [False] * only_upper + [True] * 90)
    upper = np.array([False] * only_lower + [True] * only_upper + [True] * 90)
    expected = binomtest(only_upper, only_lower + only_upper).pvalue
    assert paired_difference(lower, upper, 0)["p_value"] == pytest.approx(expected)


def test_regimes_of_different_images_are_not_compared():
    with pytest.raises(InputError, match="transfer, finetune are about different test images"):
        judge(
            {"transfer": predictions(hits(3, 4)), "finetune": predictions(hits(3, 5))},
            {"transfer": 5, "finetune": 60},
            0,
        )
