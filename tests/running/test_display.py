"""What a user sees: on a terminal a bar and lines above it, in a file lines alone."""

import io
import logging
import os
import pty
import sys
import time

import pytest
from kedro.pipeline import Node

from efficientnet_finetuning.running.display import Display, plan_lines, spell
from efficientnet_finetuning.running.incremental import Step

EPOCH = {"metrics": {"epoch": 2, "epochs": 6, "val_accuracy": 0.831}}


def step(number: int, name: str, **about) -> Step:
    return Step(Node(lambda: 1, None, name, name=name), number, **about)


STEPS = [
    step(1, "look", version="2026-01-02T03.04.05.678Z"),
    step(2, "train", reason="epochs 3 → 6", seconds=200.0),
    step(3, "evaluate", seconds=4.0),
]


def test_the_plan_says_how_much_there_is_to_do_and_why_once():
    assert list(plan_lines(STEPS)) == ["2 of 3 steps to do, about 3 min 24 s", "  train: epochs 3 → 6"]
    assert list(plan_lines([STEPS[0]] * 2)) == ["Nothing to do: the results of 2 steps are stored."]
    assert list(plan_lines([step(1, "look"), step(2, "train")])) == ["2 steps to do"], "a first run needs no reasons"
    same = [step(1, "one", reason="seed 1 → 2"), step(2, "two", reason="seed 1 → 2")]
    assert list(plan_lines(same))[1:] == ["  one and 1 more: seed 1 → 2"]
    slower = step(3, "three", reason="seed 1 → 2", seconds=9.0)
    assert list(plan_lines([*same, slower]))[1:] == ["  three and 2 more: seed 1 → 2"], "the slowest is named"


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.44, "0.4 s"), (48, "48 s"), (59.7, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations_are_spelt_for_people(seconds, told):
    assert spell(seconds) == told


@pytest.fixture
def package():
    """The package's logger and the handlers of the root, as logging.yml sets them up."""
    root, package = logging.getLogger(), logging.getLogger("efficientnet_finetuning")
    before = root.handlers[:], package.level
    package.setLevel(logging.INFO)
    yield package
    root.handlers[:], level = before
    package.setLevel(level)


def run(stream, package, between=lambda: None) -> None:
    logging.getLogger().handlers[:] = [logging.StreamHandler(stream)]
    display = Display(stream=stream)
    with display.of(STEPS):
        for one in STEPS:
            with display.during(one):
                if one.node.name == "train":
                    package.info("epoch 2/6: loss 0.5", extra=EPOCH)
                    package.warning("mind the labels")
                    between()


def test_a_file_gets_lines_alone_and_few_epochs(package):
    file = io.StringIO()
    run(file, package)
    lines = file.getvalue().splitlines()
    assert "epoch" not in "".join(lines[2:]), "an epoch that follows another line within half a minute is no news"
    assert [line.split()[0] for line in lines] == ["2", "train:", "[1/3]", "mind", "[2/3]", "[3/3]"]
    assert "stored (2026-01-02" in lines[2]


def test_a_terminal_gets_a_bar_with_the_last_epoch_and_no_other_bar(package, monkeypatch):
    main, terminal = pty.openpty()
    monkeypatch.setenv("COLUMNS", "120")
    seen = []

    def between():
        seen.append(sys.stdout.isatty())
        print("printed by a library")  # noqa: T201
        time.sleep(0.3)  # the bar is drawn ten times a second

    with os.fdopen(terminal, "w") as stream:
        run(stream, package, between)
        handler = logging.getLogger().handlers[0]
        assert handler.stream is stream
        time.sleep(0.1)
        shown = os.read(main, 1 << 20).decode()
    os.close(main)
    assert seen == [False], "Keras and tqdm draw bars where they see a terminal"
    assert "[2/3] train, epoch 2/6, validation 83.1 %" in shown
    assert "about 3 min" in shown
    for line in ("mind the labels", "printed by a library", "[3/3] evaluate"):
        assert line in shown
