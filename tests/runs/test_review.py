"""The pipeline `review` on a folder with known faults, as a user types it."""

import json

import pandas as pd
import pytest

pytestmark = pytest.mark.slow


def test_a_wrong_label_comes_first_and_a_class_of_one_image_is_named(project):
    photos = project.path / "photos"
    for split, numbers in {"train": range(8), "validation": range(8, 10), "test": range(10, 12)}.items():
        for name in ("red", "green", "blue"):
            (photos / split / name).mkdir(parents=True)
            for number in numbers:
                (photos / name / f"{number}.png").rename(photos / split / name / f"{number}.png")
    for name in ("red", "green", "blue"):
        (photos / name).rmdir()
    (photos / "train" / "lonely").mkdir()
    (photos / "train" / "red" / "0.png").rename(photos / "train" / "blue" / "red.png")
    (photos / "train" / "green" / "1.png").rename(photos / "train" / "lonely" / "1.png")
    result = project.kedro("run", "--pipelines", "review")
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    assert "Traceback" not in output
    assert "make review" in output
    issues = pd.read_csv(project.newest("image_issues.csv"), keep_default_na=False)
    labels = issues[issues["kind"] == "label"]
    first = labels.iloc[0]
    assert (first["id"], first["given"], first["suggested"]) == ("train/blue/red.png", "blue", "red")
    assert not labels["id"].str.contains("lonely").any()
    assert "lonely" in json.loads(project.newest("label_review.json").read_text())["words"]
    manifest = pd.read_csv(project.newest("manifest.csv"))
    assert (manifest["split"] == manifest["source_split"]).all()
    again = project.kedro("run", "--pipelines", "review")
    assert "stale" not in again.stdout + again.stderr
