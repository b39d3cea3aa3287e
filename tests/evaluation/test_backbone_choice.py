import pandas as pd
import pytest

from efficientnet_finetuning.evaluation.backbone_choice import format_candidates, pareto_front, recommend
from efficientnet_finetuning.evaluation.figures import backbone_front

ROWS = [
    ("Lite0", 96, 0.60, 1.0, 2.0),
    ("Lite1", 96, 0.58, 1.5, 3.0),  # slower and worse
    ("Lite0", 128, 0.70, 2.0, 4.0),
    ("Lite1", 128, 0.70, 3.0, 6.0),  # slower and no better
    ("Lite0", 160, 0.75, 4.0, 8.0),
]


@pytest.fixture
def candidates() -> pd.DataFrame:
    columns = ["backbone", "image_size", "accuracy", "milliseconds", "training_minutes"]
    measured = pd.DataFrame(ROWS, columns=columns).assign(memory_gb=0.5, images=1000, note="")
    left_out = {"backbone": "B0", "image_size": 96, "note": "its weights could not be had"}
    return pd.concat([measured, pd.DataFrame([left_out])], ignore_index=True)


def test_on_the_front_nothing_quicker_is_as_accurate(candidates):
    front = pareto_front(candidates)
    assert front[["backbone", "image_size"]].apply(tuple, axis=1).tolist() == [
        ("Lite0", 96),
        ("Lite0", 128),
        ("Lite0", 160),
    ]
    candidates.loc[3, "milliseconds"] = 2.0
    candidates.loc[3, "accuracy"] = 0.71
    assert pareto_front(candidates)["accuracy"].tolist() == [0.60, 0.71, 0.75], "of equally quick ones the better"


def test_a_table_that_went_through_a_csv_says_the_same(candidates, tmp_path):
    candidates.to_csv(tmp_path / "candidates.csv", index=False)
    read = pd.read_csv(tmp_path / "candidates.csv")
    assert recommend(read, 5) == recommend(candidates, 5)
    assert format_candidates(read) == format_candidates(candidates)


@pytest.mark.parametrize(
    ("minutes", "chosen"), [(2.5, ("Lite0", 96)), (4, ("Lite0", 128)), (5, ("Lite0", 128)), (100, ("Lite0", 160))]
)
def test_the_most_accurate_that_fits_into_the_time_is_recommended(candidates, minutes, chosen):
    recommendation = recommend(candidates, minutes)
    assert (recommendation["backbone"], recommendation["image_size"]) == chosen
    assert recommendation["words"].startswith(f"For {minutes:g} minutes: {chosen[0]} at {chosen[1]} px.")
    assert f" {100 * recommendation['accuracy']:.1f} %" in recommendation["words"]
    assert "standard error" not in recommendation["words"]


def test_of_heads_that_the_sample_cannot_tell_apart_the_one_that_uses_the_time_is_recommended(candidates):
    candidates.loc[3, "accuracy"] = 0.69  # a standard error is 1.4 points
    assert recommend(candidates, 7)["training_minutes"] == 6
    assert "69.0 %" in recommend(candidates, 7)["words"]
    assert "The best head (70.0 %) is within a standard error" in recommend(candidates, 7)["words"]
    candidates.loc[3, "accuracy"] = 0.68
    assert recommend(candidates, 7)["training_minutes"] == 4
    candidates.loc[2, "accuracy"] = 1.0
    assert recommend(candidates, 7)["training_minutes"] == 4, "a perfect head has no standard error"


def test_where_nothing_fits_the_quickest_is_recommended_with_a_way_out(candidates):
    chosen = recommend(candidates, 1)
    assert (chosen["image_size"], chosen["training_minutes"]) == (96, 2)
    assert "60.0 %" in chosen["words"]
    assert "Set finetune.training.time_budget_minutes" in chosen["words"]


def test_table_and_figure_show_every_candidate(candidates):
    lines = format_candidates(candidates).splitlines()
    assert [line[0] for line in lines[1:]] == ["*", " ", "*", " ", "*", " "]
    assert "its weights could not be had" in lines[-1]
    (axes,) = backbone_front(candidates, recommend(candidates, 5)).axes
    assert sorted(text.get_text() for text in axes.texts) == ["128", "128", "160", "96", "96"]
