"""Corrections in a real run: what is stale by them, what the manifest says, and what the report says they brought."""

import json
import re

import pandas as pd
import pytest

from efficientnet_finetuning.data.corrections import Decision, replace_decision

pytestmark = pytest.mark.slow

LOOKS = {"ingestion.find_images", "ingestion.look_at_images"}


def run(project, *parameters: str) -> tuple[set[str], set[str], str]:
    """Names of the fresh and of the stale nodes, and all that was said."""
    chosen = ("--params", ",".join(parameters)) if parameters else ()
    result = project.kedro("run", "--pipelines", "transfer", *chosen)
    assert result.returncode == 0, result.stdout + result.stderr
    fresh, stale = (set(re.findall(rf"{state}  ([\w.]+)", result.stdout)) for state in ("fresh", "stale"))
    return fresh, stale, result.stdout


def test_corrections_make_stale_what_they_concern_and_the_report_says_what_they_brought(trained):
    project = trained
    run(project)
    manifest = pd.read_csv(project.newest("manifest.csv"), keep_default_na=False)
    file = project.path / "mended.csv"

    def decide(row, action: str, label: str = "") -> None:
        replace_decision(file, row.id, Decision(row.id, row.sha256, action, label))

    test_image = next(manifest[(manifest["split"] == "test") & (manifest["class_name"] == "red")].itertuples())
    first, second = list(manifest[manifest["split"] == "train"].itertuples())[:2]
    decide(test_image, "label", "blue")
    decide(first, "exclude")
    decide(second, "keep")
    address = "tracking.experiment=http://ada:secret@tracker"
    fresh, stale, output = run(project, "dataset.corrections=mended.csv", address)
    assert fresh >= LOOKS
    assert {"ingestion.read_corrections", "ingestion.list_images", "transfer.fit_head"} <= stale
    after = pd.read_csv(project.newest("manifest.csv"), keep_default_na=False).set_index("id")
    assert after.loc[test_image.id, ["class_name", "corrected"]].tolist() == ["blue", "was red"]
    assert after.loc[first.id, "excluded"] == "corrected: left out by mended.csv"
    change = json.loads(project.newest("change.json").read_text())
    assert change["num_relabelled"] == 1
    assert change["num_images"] == (manifest["split"] == "test").sum()
    report = project.newest("report.html").read_text()
    assert "What changed since the run before" in report
    assert "tracking.experiment=http://…@tracker" in report
    assert "secret" not in report
    told = ["1 image removed", "1 image relabelled", "dataset.corrections None → mended.csv", "corrections changed"]
    told.append("raw images changed")  # they lie in another folder than those of the run before
    assert change["differences"] == told
    assert all(f"<li>{words}</li>" in report for words in told)
    assert "By the current labels" in output.replace("\n", " ")

    file.rename(project.path / "photos" / "mended.csv")
    fresh, stale, _ = run(project, "dataset.corrections=photos/mended.csv")
    assert stale == {"ingestion.read_corrections"}, (
        "the file lies elsewhere, among the photographs too, and says the same"
    )


def test_corrections_that_are_not_there_or_name_no_class_are_refused_with_a_sentence(project):
    output = project.refuses("run", "--params", "dataset.corrections=nowhere.csv")
    assert "dataset.corrections" in output
    assert "stale  " not in output
    file = project.path / "wrong.csv"
    replace_decision(file, "a", Decision("a", "1", "label", "blu"))
    output = project.refuses("run", "--params", "dataset.corrections=wrong.csv")
    assert "line 2 (blu). Did you mean 'blue'?" in output.replace("\n", " ")
