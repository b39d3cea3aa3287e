"""From a run to a prediction and to a bundle, really run."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from efficientnet_finetuning.bundle.classifier import Classifier

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def new(trained):
    """Photographs that nobody labelled, one of them broken."""
    folder = trained.path / "new"
    folder.mkdir()
    for name in ("red", "blue"):
        shutil.copy(trained.path / "photos" / name / "3.png", folder / f"={name}.png")
    (folder / "broken.jpg").write_text("no image")
    return folder


def test_the_champion_answers_and_says_what_it_could_not_read(trained, new):
    result = trained.kedro("run", "--pipelines", "predict", "--params", "predict.path=new")
    output = " ".join(result.stdout.split())
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 photographs" in output
    assert "1 could not be read" in output
    answers = pd.read_parquet(trained.newest("answers.csv").with_suffix(".parquet")).set_index("id")
    assert answers.loc["=red.png", "class_1"] == "red"
    assert answers.loc["=blue.png", "class_1"] == "blue"
    assert answers.loc["broken.jpg", "reason"].startswith("undecodable")
    assert "'=red.png" in trained.newest("answers.csv").read_text()
    from_python = Classifier.champion(trained.newest("champion_model.keras").parents[2].name, trained.path / "data")
    pd.testing.assert_frame_equal(from_python.predict(new).set_index("id"), answers, check_exact=False)


def test_the_same_photographs_are_not_classified_again(trained, new):
    command = ("run", "--pipelines", "predict", "--params", "predict.path=new")
    trained.kedro(*command)
    assert "fresh  predict.answer_photographs" in " ".join(trained.kedro(*command).stdout.split(" "))
    shutil.copy(new / "=red.png", new / "another.png")
    result = trained.kedro(*command)
    assert "stale  predict.answer_photographs: photographs changed" in result.stdout


def test_the_threshold_is_that_of_the_report(trained):
    champion = Classifier.load(trained.newest("champion_model.keras"))
    metrics = json.loads(trained.newest("transfer_metrics.json").read_text())
    assert champion.threshold == metrics["threshold"]["confidence"]
    assert champion.temperature == metrics["temperature"]


@pytest.mark.usefixtures("new")
def test_a_file_takes_the_champions_place(trained, tmp_path):
    model = tmp_path / "carried_away.keras"
    shutil.copy(trained.newest("champion_model.keras"), model)
    parameters = f"predict.path=new/=red.png,predict.model={model}"
    result = trained.kedro("run", "--pipelines", "predict", "--params", parameters)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 photograph: " in result.stdout


def test_a_class_is_added_and_used(trained):
    folder = trained.path / "yellow"
    folder.mkdir()
    generator = np.random.default_rng(1)
    for number in range(6):
        pixels = generator.integers(0, 120, (40, 48, 3), dtype=np.uint8) + np.array([120, 120, 0], np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "broken.jpg").write_text("no image")
    result = trained.kedro("run", "--pipelines", "add_class", "--params", "add_class.path=yellow")
    output = " ".join(result.stdout.split())
    assert result.returncode == 0, result.stdout + result.stderr
    assert "The class yellow was added." in output
    assert "1 could not be read: broken.jpg: undecodable" in output
    extension = json.loads(trained.newest("extension.json").read_text())
    assert extension["num_photographs"] == 6
    assert extension["before"] - extension["after"] <= 0.1
    model = trained.newest("extended_model.keras")
    answers = Classifier.load(model).predict([folder / "0.png", trained.path / "photos" / "red" / "3.png"], top=4)
    assert list(answers["class_1"]) == ["yellow", "red"]
    assert "yellow" not in Classifier.load(trained.newest("champion_model.keras")).class_names


@pytest.mark.usefixtures("new")
def test_photographs_are_ranked_for_labelling(trained):
    result = trained.kedro("run", "--pipelines", "choose_next", "--params", "predict.path=new")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "photographs are ranked" in result.stdout
    assert "cannot be read: broken.jpg" in " ".join((result.stdout + result.stderr).split())
    ranked = pd.read_parquet(trained.newest("to_label.csv").with_suffix(".parquet"))
    assert list(ranked.columns) == ["id", "rank", "uncertainty", "likeliest", "probability"]
    assert list(ranked["rank"]) == list(range(1, len(ranked) + 1))
    assert {"=red.png", "=blue.png"} <= set(ranked["id"])
    assert ranked["uncertainty"].is_monotonic_decreasing
    assert "'=red.png" in trained.newest("to_label.csv").read_text()
    assert Image.open(trained.newest("to_label_sheet.png")).size[0] > 300


@pytest.mark.usefixtures("new")
@pytest.mark.parametrize(
    ("pipeline", "parameters", "words"),
    [
        ("predict", "predict.top=3", "predict.path is not given"),
        ("predict", "predict.path=newer", "newer does not exist. Did you mean 'new'"),
        (
            "predict",
            "predict.path=new,predict.model=new/broken.jpg",
            "broken.jpg is not a classifier that this project saved",
        ),
        ("choose_next", "predict.top=3", "predict.path is not given"),
        ("add_class", "add_class.name=yellow", "add_class.path is not given"),
        ("add_class", "add_class.path=nowhere", "nowhere does not exist"),
        ("add_class", "add_class.path=photos/red", "The champion has the class 'red' already"),
        (
            "add_class",
            "add_class.path=photos/red,add_class.max_loss=0",
            "add_class.max_loss: Input should be greater than 0",
        ),
    ],
)
def test_mistakes_are_named_before_anything_is_computed(trained, pipeline, parameters, words):
    output = trained.refuses("run", "--pipelines", pipeline, "--params", parameters)
    assert words in " ".join(output.split())


def test_the_bundle_leaves_with_formats_card_and_receipt(trained):
    result = trained.kedro("run", "--pipelines", "export", "--params", "export.formats=[litert]")
    assert result.returncode == 0, result.stdout + result.stderr
    bundle = trained.newest("bundle")
    files = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert files == {
        "README.md",
        "classifier.json",
        "classifier.keras",
        "classifier.tflite",
        "exports.csv",
        "known_failures.png",
        "receipt.json",
    }
    assert json.loads((bundle / "classifier.json").read_text())["class_names"] == ["blue", "green", "red"]
    metrics = json.loads(trained.newest("transfer_metrics.json").read_text())
    card = (bundle / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: keras\n")
    assert f"{100 * metrics['top1']:.1f} %" in card
    receipt = json.loads((bundle / "receipt.json").read_text())["predicate"]["buildDefinition"]
    assert receipt["externalParameters"]["transfer.head.max_iterations"] == 500
    assert receipt["externalParameters"]["dataset.path"] == "photos"
    lineage = receipt["internalParameters"]["lineage"]
    assert {"champion_model", "transfer_model", "transfer.backbone", "manifest", "source"} <= lineage.keys()
    assert lineage["champion_model"]["version"] == trained.versions("champion_model.keras")[-1]
    command = [sys.executable, "-m", "efficientnet_finetuning.verify", str(bundle), "--data", "data"]
    checked = subprocess.run(command, cwd=trained.path, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "The recomputed metrics are the same." in checked.stdout
    parameters = f"predict.path=photos/red/3.png,predict.model={bundle}"
    answered = trained.kedro("run", "--pipelines", "predict", "--params", parameters)
    assert answered.returncode == 0, answered.stdout + answered.stderr
    assert "red 1" in answered.stdout


def test_an_unknown_format_is_refused(trained):
    output = trained.refuses("run", "--pipelines", "export", "--params", "export.formats=[coreml]")
    assert "export.formats.0" in output
