import itertools
import json
import re
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.evaluation.comparison import wilson_interval
from efficientnet_finetuning.evaluation.verdict import difference_in_words, judge, paired_difference
from efficientnet_finetuning.pipelines.reporting.nodes import reach_verdict


def predictions(correct) -> pd.DataFrame:
    correct = np.asarray(correct, bool)
    return pd.DataFrame({"id": [f"image {row}" for row in range(len(correct))], "correct": correct})


def hits(count: int, of: int = 1000) -> np.ndarray:
    """The first ``count`` of so many images right."""
    return np.arange(of) < count


def test_a_clear_winner_is_named_with_its_lead_and_interval():
    verdict = judge(
        {"transfer": predictions(hits(700)), "finetune": predictions(hits(800))}, {"transfer": 5, "finetune": 60}
    )
    assert verdict["champion"] == "finetune"
    low, high = (100 * end for end in wilson_interval(800, 1000))
    (step,) = verdict["steps"]
    assert (step["only_upper"], step["only_lower"]) == (100, 0)
    # The standard error of a paired difference: sqrt(b + c − (b − c)² / n) / n.
    error = NormalDist().inv_cdf(0.975) * np.sqrt(100 - 100**2 / 1000) / 1000
    assert step["low"] == pytest.approx(0.1 - error, abs=3e-3)
    assert step["high"] == pytest.approx(0.1 + error, abs=3e-3)
    assert verdict["words"] == (
        f"Fine-tuning wins: 80.0 % right ({low:.1f} to {high:.1f}) of 1,000 test images, 10.0 points more than "
        f"transfer ({100 * step['low']:.1f} to {100 * step['high']:.1f})."
    )


def test_where_nothing_can_be_told_the_cheaper_one_is_taken():
    regimes = {"transfer": predictions(hits(700)), "finetune": predictions(hits(703))}
    verdict = judge(regimes, {"transfer": 5, "finetune": 60})
    assert verdict["champion"] == "transfer"
    assert verdict["words"].startswith("Take transfer, the faster one to train: 70.0 % right (67.1 to 72.8) of 1,000 ")
    assert " Fine-tuning gets 0.3 points more than transfer (" in verdict["words"]
    # Of six that differ, all must be on one side.
    assert verdict["words"].endswith(
        "which may be chance: 1,000 test images cannot show a difference below 0.6 points."
    )
    turned = judge(regimes, {"transfer": 60, "finetune": 5})
    assert turned["champion"] == "finetune"
    assert " Transfer gets 0.3 points less than fine-tuning (" in turned["words"]


def test_equal_answers_of_few_images_still_have_an_interval_and_a_limit():
    right = hits(38, 45)
    found = paired_difference(right, right)
    assert found["low"] < -0.05
    assert found["high"] > 0.05
    assert found["detectable"] == pytest.approx(6 / 45)
    regimes = {"transfer": predictions(right), "finetune": predictions(right)}
    words = judge(regimes, {"transfer": 5, "finetune": 60})["words"]
    assert "Fine-tuning gets as many right as transfer (-" in words
    assert words.endswith("): 45 test images cannot show a difference below 13.3 points.")
    assert paired_difference(right[:2], right[:2])["detectable"] is None
    assert paired_difference(right[:6], right[:6])["detectable"] == 1
    two = {regime: table[:2] for regime, table in regimes.items()}
    assert "2 test images cannot show any difference." in judge(two, {"transfer": 5, "finetune": 60})["words"]


def test_what_can_be_shown_depends_on_how_many_answers_differ():
    lower = np.array([True] * 5 + [False] * 5 + [True] * 90)
    upper = np.array([False] * 5 + [True] * 5 + [True] * 90)
    # Of ten fair coins, 9 to 1 has a p-value of 0.02, 8 to 2 of 0.11.
    assert paired_difference(lower, upper)["detectable"] == pytest.approx(0.08)


def test_the_interval_says_what_the_exact_test_says():
    odd = []
    for only_upper, only_lower in itertools.product(range(21), repeat=2):
        kinds = np.repeat([0, 1, 2], [only_upper, only_lower, 60 - only_upper - only_lower])
        found = paired_difference(kinds != 0, kinds != 1)
        assert -1 <= found["low"] <= found["difference"] <= found["high"] <= 1
        if (found["low"] > 0 or found["high"] < 0) != (found["p_value"] < 0.05):
            odd.append((only_upper, only_lower))
    assert sorted(odd) == [(4, 13), (13, 4)]


@pytest.mark.parametrize(
    ("only_upper", "only_lower", "count"),
    [(9, 3, 20), (3, 9, 20), (0, 4, 30), (4, 0, 30), (1, 1, 2), (25, 12, 400), (0, 8, 10), (1, 9, 10), (0, 10, 10)],
)
def test_the_lower_end_is_the_least_difference_that_the_score_test_does_not_reject(only_upper, only_lower, count):
    def z_score(difference: float) -> float:
        def unlikelihood(share: float) -> float:  # of the images that only the lower one gets right
            shares = np.array([share + difference, share, 1 - 2 * share - difference])
            counts = np.array([only_upper, only_lower, count - only_upper - only_lower])
            return -(counts * np.log(np.maximum(shares, 1e-300))).sum()

        bounds = max(-difference, 0), (1 - difference) / 2
        share = minimize_scalar(unlikelihood, bounds=bounds, method="bounded", options={"xatol": 1e-10}).x
        variance = count * (2 * share + difference - difference**2)
        return (only_upper - only_lower - 1 - count * difference) / np.sqrt(variance)

    kinds = np.repeat([0, 1, 2], [only_upper, only_lower, count - only_upper - only_lower])
    low = paired_difference(kinds != 0, kinds != 1)["low"]
    if only_lower == count:
        assert low == -1
    else:
        assert z_score(low) == pytest.approx(NormalDist().inv_cdf(0.975), abs=1e-3)


@pytest.mark.parametrize("count", [2, 20, 45, 200])
def test_the_interval_covers_the_true_difference(count):
    generator = np.random.default_rng(0)
    for only_upper, only_lower in ((0.08, 0.02), (0.2, 0.05)):
        shares = [0.7, only_upper, only_lower, 0.3 - only_upper - only_lower]
        covered = []
        for _ in range(300):
            kind = generator.choice(4, count, p=shares)
            found = paired_difference((kind == 0) | (kind == 2), kind <= 1)
            covered.append(found["low"] <= only_upper - only_lower <= found["high"])
        assert np.mean(covered) > 0.95


def test_a_training_that_kept_its_start_is_told_and_not_compared():
    comparison = pd.DataFrame({"regime": ["transfer", "finetune"], "training_seconds": [5, 60]})
    history = pd.DataFrame({"epoch": [1, 2], "kept": [False, False]})
    tables = {
        f"{regime}_predictions": predictions(hits(right, 45)) for regime, right in (("transfer", 38), ("finetune", 45))
    }
    histories = {"transfer_history": history.assign(kept=True), "finetune_history": history}
    verdict, champion = reach_verdict(comparison, **tables, **histories)
    assert champion == "transfer"
    assert verdict["steps"] == []
    assert verdict["words"] == (
        "Transfer gets 84.4 % right (71.2 to 92.3) of 45 test images. Fine-tuning found nothing better than its start."
    )
    _, champion = reach_verdict(
        comparison[1:], finetune_predictions=tables["finetune_predictions"], finetune_history=history
    )
    assert champion == "finetune"


@pytest.mark.parametrize(
    ("right", "of", "named"), [(41, 46, True), (20, 46, False), (700, 1000, False)], ids=["few", "clear", "many"]
)
def test_where_few_test_images_cannot_tell_cross_validation_is_named(right, of, named):
    comparison = pd.DataFrame({"regime": ["transfer", "finetune"], "training_seconds": [5, 60]})
    tables = {
        "transfer_predictions": predictions(hits(right, of)),
        "finetune_predictions": predictions(hits(42 if of == 46 else 701, of)),
    }
    verdict, _ = reach_verdict(comparison, **tables)
    assert (
        "The same command with --pipelines cross_validation compares the two on all images." in verdict["words"]
    ) == named


def test_a_worse_step_of_the_ladder_is_not_climbed_but_the_next_one_may_be():
    regimes = {
        "baseline": predictions(hits(500)),
        "transfer": predictions(hits(300)),
        "finetune": predictions(hits(900)),
    }
    verdict = judge(regimes, {"baseline": 70, "transfer": 5, "finetune": 60})
    assert verdict["champion"] == "finetune"
    assert "40.0 points more than training from scratch" in verdict["words"]
    assert [(step["lower"], step["upper"]) for step in verdict["steps"]] == [
        ("baseline", "transfer"),
        ("transfer", "finetune"),
    ]


def test_the_words_have_a_lead_and_its_interval_from_the_winners_side():
    regimes = {"baseline": hits(500), "transfer": hits(800), "finetune": hits(803)}
    seconds = {"baseline": 70, "transfer": 5, "finetune": 60}
    verdict = judge({regime: predictions(right) for regime, right in regimes.items()}, seconds)
    assert verdict["champion"] == "transfer"
    for other in ("training from scratch", "Fine-tuning"):
        assert other in verdict["words"], "what it beats and what it may not beat"
    kept = judge({"transfer": predictions(hits(800)), "finetune": predictions(hits(700))}, seconds)
    assert kept["champion"] == "transfer"
    (step,) = kept["steps"]
    lead = ["10.0", f"{-100 * step['high']:.1f}", f"{-100 * step['low']:.1f}"]
    assert re.findall(r"[0-9]+\.[0-9]", kept["words"])[-3:] == lead
    assert "more" in kept["words"]


@pytest.mark.parametrize(
    ("difference", "sign", "words"),
    [
        (0.1, 1, "10.0 points more than it (-2.0 to 30.0), which may be chance"),
        (0.005, 1, "0.5 points more than it (-2.0 to 30.0), which may be chance"),
        (0.1, -1, "10.0 points less than it (-30.0 to 2.0), which may be chance"),
    ],
)
def test_an_interval_counts_more_as_positive_and_less_as_negative(difference, sign, words):
    found = {"difference": difference, "low": -0.02, "high": 0.3, "p_value": 0.2}
    turned = {"difference": -difference, "low": -0.3, "high": 0.02, "p_value": 0.2}
    assert difference_in_words(found, "it", sign) == words
    assert difference_in_words(turned, "it", -sign) == words
    assert difference_in_words(found, "it") == difference_in_words(found, "it", 1)


def test_one_regime_alone_is_the_champion_of_nothing():
    verdict = judge({"transfer": predictions(hits(3, 4))}, {"transfer": 5})
    assert verdict["champion"] == "transfer"
    assert "nothing to compare" in verdict["words"]
    assert verdict["steps"] == []


@pytest.mark.parametrize("right", [[True], [False, False]])
def test_equal_regimes_of_few_images_give_finite_numbers(right):
    verdict = judge({"transfer": predictions(right), "finetune": predictions(right)}, {"transfer": 5, "finetune": 60})
    assert verdict["steps"][0]["p_value"] == 1.0
    assert json.loads(json.dumps(verdict, allow_nan=False)) == verdict


def test_the_p_value_is_mcnemars_exact_one():
    lower = np.array([True] * 2 + [False] * 8 + [True] * 90)
    upper = np.array([False] * 2 + [True] * 8 + [True] * 90)
    # Two or fewer, or eight or more, of ten fair coins.
    assert paired_difference(lower, upper)["p_value"] == pytest.approx(2 * (1 + 10 + 45) / 2**10)


@pytest.mark.parametrize(("only_lower", "only_upper"), [(2, 8), (8, 2), (5, 5), (0, 1), (300, 420)])
def test_the_p_value_is_scipys(only_lower, only_upper):
    lower = np.array([True] * only_lower + [False] * only_upper + [True] * 90)
    upper = np.array([False] * only_lower + [True] * only_upper + [True] * 90)
    expected = binomtest(only_upper, only_lower + only_upper).pvalue
    assert paired_difference(lower, upper)["p_value"] == pytest.approx(expected)


def test_regimes_of_different_images_are_not_compared():
    with pytest.raises(InputError, match="transfer, finetune are for different test images"):
        judge(
            {"transfer": predictions(hits(3, 4)), "finetune": predictions(hits(3, 5))},
            {"transfer": 5, "finetune": 60},
        )
