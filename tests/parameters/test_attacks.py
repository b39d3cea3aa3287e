"""Values that no parameter should have: they are refused by name, whatever they are."""

import os
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters.validation import flatten, validate

CONF = Path(__file__).parents[2] / "conf" / "base"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=2),
    max_leaves=4,
)


def base() -> dict:
    files = sorted(CONF.glob("parameters*.yml"))
    return {name: value for file in files for name, value in yaml.safe_load(file.read_text()).items()}


def places(values: dict, above: tuple = ()) -> list[tuple]:
    """The path of keys to every group and value."""
    found = []
    for name, value in values.items():
        found += [(*above, name), *(places(value, (*above, name)) if isinstance(value, dict) else [])]
    return found


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(place=st.sampled_from(places(base())), value=VALUES)
@example(place=("seed",), value={1: 2})
@example(place=(1,), value=2)
def test_any_value_in_any_place_is_taken_or_refused(place, value):
    raw = base()
    group = raw
    for name in place[:-1]:
        group = group[name]
    group[place[-1]] = value
    with suppress(InputError):
        str(flatten(validate(raw))).encode()


@pytest.mark.parametrize("name", ["path", "corrections"])
def test_a_path_that_is_no_utf8_is_refused_since_no_record_could_hold_it(name):
    raw = base()
    raw["dataset"] |= {"name": None, name: os.fsdecode(b"/photos/caf\xe9")}
    with pytest.raises(InputError, match=rf"dataset\.{name}: '/photos/caf\\udce9' is not valid UTF-8"):
        validate(raw)
