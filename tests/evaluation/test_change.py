"""What has changed since the run before, on made-up answers."""

import json

import pandas as pd
import pytest

from efficientnet_finetuning.evaluation.change import change_since, changed_images


def answers(true: str, predicted: str, first: int = 0) -> pd.DataFrame:
    """One image a letter, by the letter of its class."""
    ids = [f"{first + row}.jpg" for row in range(len(true))]
    return pd.DataFrame({"id": ids, "true": list(true), "predicted": list(predicted)})


def test_both_runs_are_judged_by_the_labels_of_now():
    before = answers("aaaaaaaabb", "aaaaaaabbb")
    now = answers("aaaaaaabbb", "aaaaaaabbb")  # the eighth label was wrong, and the model knew
    change = change_since(before, now)
    assert (change["num_images"], change["num_relabelled"]) == (10, 1)
    assert change["all"]["difference"] == 0, "the run before was right about it, too"
    now = answers("aaaaaaabbb", "aaaaaaaabb")
    change = change_since(before, now)
    assert change["all"]["difference"] == pytest.approx(-0.1)
    assert change["untouched"]["difference"] == 0
    told = "Both runs answered 10 test images. By the current labels, this run gets 10.0 points less than the run"
    assert change["words"].startswith(told)
    assert (
        "Since then, 1 label changed. On the other images it gets as many right as the run before (" in change["words"]
    )
    assert json.loads(json.dumps(change, allow_nan=False)) == change


def test_a_clear_gain_is_no_luck_and_unchanged_labels_are_not_spoken_of():
    change = change_since(answers("a" * 200, "a" * 150 + "b" * 50), answers("a" * 200, "a" * 190 + "b" * 10))
    assert (change["all"]["only_upper"], change["all"]["only_lower"]) == (40, 0)
    assert "this run gets 20.0 points more than the run before (" in change["words"]
    assert "chance" not in change["words"]


def test_images_of_one_run_alone_are_counted_and_not_judged():
    change = change_since(answers("aaaa", "bbbb"), answers("aaaaa", "bbbaa", first=2))
    assert (change["num_images"], change["only_before"], change["only_now"]) == (2, 2, 3)
    assert "(2 only by the run before, 3 only by this one)" in change["words"]


@pytest.mark.parametrize(
    ("before", "words"),
    [
        (None, "No earlier run is stored"),
        (answers("aa", "aa", first=9), "The run before had other test images"),
        (answers("ab", "bb"), "with the same answers"),
    ],
)
def test_where_nothing_can_be_compared_that_is_said(before, words):
    change = change_since(before, answers("ab", "bb"))
    assert change["all"] is None
    assert change["untouched"] is None
    assert words in change["words"]


def test_where_all_labels_have_changed_there_are_no_others():
    change = change_since(answers("aa", "ab"), answers("bb", "bb"))
    assert change["untouched"] is None
    assert change["words"].endswith("Since then, 2 labels changed.")


def test_images_that_came_went_moved_or_have_another_label_are_counted():
    before = pd.DataFrame({"id": list("abcde"), "class_name": list("xxyyy"), "split": ["train"] * 4 + [""]})
    now = pd.DataFrame(
        {"id": list("bcdef"), "class_name": list("yyyyx"), "split": ["train", "test", "", "train", "train"]}
    )
    told = ["2 images added", "2 images removed", "1 image relabelled", "1 image moved to another split"]
    assert list(changed_images(before, now)) == told
    assert list(changed_images(now, now)) == []
