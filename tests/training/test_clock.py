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
