"""Which learning rate a sweep suggests, on made-up sweeps."""

import numpy as np
import pytest

from efficientnet_finetuning.training.learning_rate import suggest_learning_rate

RATES = np.geomspace(1e-6, 1, 100)


def sweep(excess, start_loss: float = 1.0) -> list[dict[str, float]]:
    return [
        {"learning_rate": float(rate), "start_loss": start_loss, "excess": float(value)}
        for rate, value in zip(RATES, excess, strict=True)
    ]


def test_where_the_start_can_be_improved_it_is_a_tenth_of_the_rate_of_the_lowest_excess():
    excess = -0.5 * np.exp(-((np.arange(100) - 60) ** 2) / 50)
    assert suggest_learning_rate(sweep(excess), 10) == pytest.approx(RATES[60] / 10)
    excess[:10] = -9
    assert suggest_learning_rate(sweep(excess), 10) == pytest.approx(RATES[60] / 10), "the first ten are not settled"
    assert suggest_learning_rate(sweep(excess)[:5], 10) == pytest.approx(RATES[0] / 10), "unless there are no others"


@pytest.mark.parametrize(("start_loss", "scale"), [(1.0, 1.0), (0.01, 0.1 * np.log(10))])
def test_where_it_cannot_it_is_the_last_rate_before_the_excess_grows_by_a_tenth_of_the_scale(start_loss, scale):
    excess = np.maximum(np.arange(100) - 49, 0) * 0.011 * scale
    excess[20] = -0.049 * scale
    assert suggest_learning_rate(sweep(excess, start_loss), 10) == pytest.approx(RATES[53])
    excess[20] = -0.051 * scale
    assert suggest_learning_rate(sweep(excess, start_loss), 10) == pytest.approx(RATES[20] / 10)
