import time

import pytest

from efficientnet_finetuning.training.clock import TimeBudget


def clock(seconds_ago: float, minutes: float = 1.0) -> TimeBudget:
    return TimeBudget(minutes, time.monotonic() - seconds_ago)


def test_the_share_grows_with_the_time_and_ends_at_one():
    assert clock(0).share == pytest.approx(0, abs=0.01)
    assert clock(30).share == pytest.approx(0.5, abs=0.02)
    assert clock(100).share == 1
    assert [clock(seconds).is_up for seconds in (0, 50, 100)] == [False, False, True]


def test_the_last_validation_has_its_time():
    budget = clock(50)
    budget.validation_seconds = 20
    assert budget.is_up


def test_time_that_is_up_stays_up_where_a_validation_is_quicker_than_thought():
    budget = clock(50)
    budget.validation_seconds = 20
    assert budget.is_up
    budget.validation_seconds = 1
    assert budget.is_up


def test_the_seconds_of_earlier_processes_count():
    budget = clock(10)
    budget.go_on(**clock(40).state)
    assert budget.spent == pytest.approx(50, abs=1)
    ended = clock(100)
    assert ended.is_up
    again = clock(0, minutes=10)
    again.go_on(**ended.state)
    assert again.is_up


def test_what_comes_after_the_steps_is_kept_from_their_time():
    budget = TimeBudget(1.0, 0.0, agree=lambda _: 30.0)  # what another rank says
    assert (budget.spent, budget.left, budget.share) == pytest.approx((30, 28.8, 30 / 58.8))
    assert TimeBudget(5.0, 0.0, agree=lambda _: 30.0).left == pytest.approx(5 * 58.8 - 30)
    budget.validation_seconds, budget.refit_seconds = 8.8, 10.0
    assert (budget.left, budget.share) == pytest.approx((10, 0.75))
    budget.refit_seconds = 25.0
    assert (budget.left, budget.share) == (0, 1)
    budget.validation_seconds = 1e6
    assert (budget.left, budget.share) == (0, 1), "longer than all of it"


def test_a_process_that_goes_on_knows_what_the_one_before_it_did():
    budget = TimeBudget(1.0, 0.0, agree=lambda _: 10.0)
    budget.go_on(spent=12.0, validation_seconds=5.0, is_up=False)
    assert budget.state == {"spent": 22.0, "validation_seconds": 5.0, "is_up": False}
    budget.read()
    assert budget.spent == 22
