import numpy as np
import pytest

from efficientnet_finetuning.quality.multiple_tests import holm


def test_p_values_are_corrected_as_holm_has_it_and_stay_in_their_order():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.3, 0.9]) == pytest.approx([1, 0.9, 1])
    assert holm([0.9, 0.8]).tolist() == [1, 1]
    assert holm([0.2]) == pytest.approx([0.2])
    assert len(holm([])) == 0


def test_a_corrected_p_value_is_what_the_steps_down_say():
    p_values = np.random.default_rng(0).uniform(0, 0.1, 20)
    for level in (0.01, 0.05, 0.2):
        rejected = set()
        for step, place in enumerate(np.argsort(p_values)):
            if p_values[place] * (20 - step) > level:
                break
            rejected.add(place)
        assert set(np.flatnonzero(holm(p_values) <= level)) == rejected
