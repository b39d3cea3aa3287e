"""The whole ladder, really run, and what later commands make of its artifacts."""

import base64
import getpass
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import pandas as pd
import pytest
from kedro.io.core import VERSION_FORMAT
from mlflow import MlflowClient
from PIL import Image

from efficientnet_finetuning.evaluation.thumbnails import as_webp
from efficientnet_finetuning.models.classifier import TrainedClassifier

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ladder(finished):
    """`kedro run`, once."""
    return finished.project, finished.output


def tracked_runs(project) -> list:
    client = MlflowClient(f"sqlite:///{project.path}/data/08_reporting/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("efficientnet-finetuning")
    return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])


def test_a_first_run_has_nothing_stored(ladder):
    _, output = ladder
    assert set(re.findall(r"stale  \S+: (.*)$", output, re.MULTILINE)) == {"no result is stored yet"}
    assert "fresh  " not in output
    assert "No earlier run is stored" in output


def test_the_run_ends_with_a_table_of_all_three_regimes(ladder):
    _, output = ladder
    table = output[output.index("regime") :].splitlines()
    assert [line.split()[0] for line in table[1:4]] == ["baseline", "transfer", "finetune"]


def test_the_stored_comparison_counts_the_same_test_images_for_every_regime(ladder):
    project, _ = ladder
    comparison = pd.read_csv(project.newest("comparison.csv"))
    assert list(comparison["regime"]) == ["baseline", "transfer", "finetune"]
    assert (comparison["num_images"] == 9).all()
    assert comparison["top1"].iloc[1] > 0.8, "colours are easy for ImageNet features"


def test_predictions_name_every_test_image_once(ladder):
    project, _ = ladder
    manifest = pd.read_csv(project.newest("manifest.csv"))
    test_ids = list(manifest.loc[manifest["split"] == "test", "id"])
    for regime in ("baseline", "transfer", "finetune"):
        predictions = pd.read_csv(project.newest(f"{regime}_predictions.csv"))
        assert list(predictions["id"]) == test_ids
        metrics = json.loads(project.newest(f"{regime}_metrics.json").read_text())
        assert metrics["top1"] == pytest.approx(predictions["correct"].mean())
        assert metrics["class_weight"] == ("balanced" if regime == "finetune" else "none")
        history = pd.read_csv(project.newest(f"{regime}_history.csv"), keep_default_na=False)
        assert set(history["class_weight"]) == {metrics["class_weight"]}


def test_a_stored_model_predicts_what_the_run_said(ladder):
    project, _ = ladder
    classifier = TrainedClassifier.load(project.newest("finetune_model.keras"))
    predictions = pd.read_csv(project.newest("finetune_predictions.csv"))
    import numpy as np

    images = np.load(project.newest("test_images") / "images.npy")
    predicted = classifier.predict_logits(images).argmax(1)
    assert [classifier.class_names[label] for label in predicted] == list(predictions["predicted"])


def test_every_dataset_of_the_run_is_stored_under_one_version(ladder):
    project, _ = ladder
    stored = {path.parent.name for path in project.path.glob("data/0[2-8]*/folderless/*/*")} | {
        version.name for dataset in project.path.glob("data/0[2-8]*/cifar10_sample/*") for version in dataset.iterdir()
    }
    assert len(stored) == 1
    names = {dataset.name.split(".")[0] for dataset in project.path.glob("data/0[2-8]*/cifar10_sample/*")}
    assert names >= {"source", "manifest", "train_images", "transfer_features", "transfer_head", "baseline_start"}


def test_the_run_ends_with_the_verdict_the_report_and_what_to_do_next(ladder):
    project, output = ladder
    verdict = json.loads(project.newest("verdict.json").read_text())
    assert verdict["champion"] == json.loads(project.newest("champion.json").read_text())
    end = output[output.rindex("regime ") :]
    assert verdict["words"] in " ".join(end.split())
    assert f"Report: {project.newest('report.html')}" in end
    assert "make viz" in end


def test_the_report_shows_this_runs_pictures_and_words(ladder):
    project, _ = ladder
    report = project.newest("report.html").read_text()
    verdict = json.loads(project.newest("verdict.json").read_text())
    pictures = ["comparison_bars", "learning_curves", "confidence_curves", "audit_summary"]
    pictures += [f"{verdict['champion']}_gallery", "sample_grid", "augmentation_grid", "label_sheet", "data_curve"]
    for name in pictures:
        picture = as_webp(Image.open(project.newest(f"{name}.png")))
        assert base64.b64encode(picture).decode() in report, name
    assert "<code>python -m kedro run</code>" in report
    assert "photos: 36 images of 3 classes" in report
    assert "EfficientNetLite0" in report
    assert verdict["words"].replace("<", "&lt;") in report


def test_the_report_says_what_every_stage_has_cost(ladder):
    project, _ = ladder
    report = project.newest("report.html").read_text()
    stages = re.findall(r'<th scope="row">((?:inspecting|preparing|training|evaluating).*?)</th>(.*?)</tr>', report)
    regimes = ("baseline", "transfer", "finetune")
    expected = ["inspecting the images", "preparing the images"]
    expected += [f"{what} {regime}" for what in ("training", "evaluating") for regime in regimes]
    assert [name for name, _ in stages] == expected
    for name, cells in stages:
        seconds, speed, memory, device = re.findall(r">([^<>]+)</td>", cells)
        assert float(seconds) > 0 or name.endswith(("the images", "every image")), "36 small images take no time"
        assert float(speed) > 0
        assert 0.05 < float(memory) < 50
        assert device.startswith(("CPU", "GPU"))


def test_every_stored_json_is_json(ladder):
    project, _ = ladder

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    files = list(project.path.glob("data/0[2-8]*/cifar10_sample/*.json/*/*.json"))
    assert len(files) > 15
    for file in files:
        json.loads(file.read_text(), parse_constant=refuse)


def test_a_stored_model_knows_its_temperature(ladder):
    project, _ = ladder
    for regime in ("baseline", "transfer", "finetune"):
        metrics = json.loads(project.newest(f"{regime}_metrics.json").read_text())
        assert (
            TrainedClassifier.load(project.newest(f"{regime}_model.keras")).temperature == metrics["temperature"] != 1.0
        )


@pytest.mark.parametrize("name", ["sample_grid", "augmentation_grid", "learning_curves", "comparison_bars"])
def test_figures_are_pictures(ladder, name):
    project, _ = ladder
    with Image.open(project.newest(f"{name}.png")) as figure:
        assert len(figure.convert("RGB").getcolors(1 << 24)) > 10


def test_mlflow_holds_a_parent_and_a_child_for_each_regime(ladder):
    project, _ = ladder
    parent, *children = tracked_runs(project)[:4]
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    assert {run.data.tags["regime"] for run in children} == {"baseline", "transfer", "finetune"}
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert parent.data.params["finetune.training.epochs"] == "2"
    assert parent.data.tags["save_version"] == project.versions("manifest.csv")[0]
    assert len(parent.data.tags["manifest_sha256"]) == 64
    client = MlflowClient(f"sqlite:///{project.path}/data/08_reporting/mlflow/mlflow.db")
    finetune = next(run for run in children if run.data.tags["regime"] == "finetune")
    assert [m.step for m in client.get_metric_history(finetune.info.run_id, "val_accuracy")] == [1, 2]
    assert "test_top1" in finetune.data.metrics
    artifacts = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    assert artifacts >= {"comparison.csv", "report.html", "verdict.json", "learning_curves.png", "sample_grid.png"}
    for run in (parent, *children):
        (data,) = run.inputs.dataset_inputs
        assert data.dataset.name == "photos"
        assert json.loads(data.dataset.profile) == {"train": 21, "test": 9, "validation": 6}
    names = [set(run.data.metrics) for run in children]
    assert {"test_top1", "test_macro_f1"} <= set.intersection(*names), "so that MLflow lines them up"
    assert "cost_gflops" in parent.data.metrics
    assert not (project.path / "mlruns").exists()


def test_mlflows_list_of_runs_can_be_read_and_sorted(ladder):
    project, _ = ladder
    parent, *children = tracked_runs(project)[:4]
    began = datetime.strptime(project.versions("manifest.csv")[0], VERSION_FORMAT).replace(tzinfo=UTC).astimezone()
    assert parent.info.run_name == f"photos · EfficientNetLite0 · {began:%Y-%m-%d %H:%M}"
    assert {run.info.run_name for run in children} == {"baseline", "transfer", "finetune"}
    check_champion(parent, project)
    assert {run.info.user_id for run in (parent, *children)} == {getpass.getuser()}
    assert parent.data.tags["mlflow.source.type"] == "LOCAL"
    assert parent.data.tags["mlflow.source.name"] == "kedro run"
    assert "mlflow.source.git.commit" not in parent.data.tags, "the copy is no repository"


def check_champion(run, project) -> None:
    """The run shows the same figures as the stored comparison."""
    comparison = pd.read_csv(project.newest("comparison.csv")).set_index("regime")
    row = comparison.loc[champion := json.loads(project.newest("champion.json").read_text())]
    assert run.data.tags["champion"] == champion
    for name in ("top1", "top1_low", "top1_high", "loss"):
        assert run.data.metrics[f"test_{name}"] == pytest.approx(row[name])
    assert run.data.metrics["training_seconds"] == pytest.approx(row["training_seconds"])


def test_a_run_in_which_only_the_report_is_made_anew_knows_the_champion_too(ladder):
    project, _ = ladder
    shutil.rmtree(project.newest("report.html").parent)
    result = project.kedro("run", "--env", "local")
    assert result.stdout.count("stale  ") == 1, result.stdout + result.stderr
    (*_, run) = tracked_runs(project)
    check_champion(run, project)
    assert run.data.tags["mlflow.source.name"] == "kedro run --env local"
    project.kedro("run", "--pipelines", "ingestion", "--nodes", "ingestion.find_images")
    (*_, run) = tracked_runs(project)
    assert "champion" not in run.data.tags, "it is another run's"
    assert run.data.tags["mlflow.source.name"] == "kedro run --pipelines ingestion"


def test_a_run_that_never_began_a_node_leaves_no_record(ladder):
    project, _ = ladder
    before = len(tracked_runs(project))
    comparison = ("run", "--nodes", "reporting.plot_comparison")
    by_hand = project.newest("comparison.csv").parents[1] / "9999-01-01T00.00.00.000Z" / "comparison.csv"
    by_hand.parent.mkdir()
    by_hand.write_text("")
    unloaded = project.kedro(*comparison)  # the first node's input cannot be loaded
    shutil.rmtree(by_hand.parent)
    assert "No columns to parse" in unloaded.stdout + unloaded.stderr
    stored = project.newest("comparison.csv")
    content = stored.read_text()
    stored.write_text(content.replace("0", "1"))
    assert "its SHA-256 differs" in project.refuses(*comparison)
    stored.write_text(content)
    assert len(tracked_runs(project)) == before


def test_evaluation_can_be_repeated_on_stored_models(ladder):
    project, _ = ladder
    result = project.kedro("run", "--pipelines", "evaluation", "--from-inputs", "test_images")
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(project.versions("comparison.csv")) == 2
    assert len(project.versions("finetune_model.keras")) == 1


def test_from_nodes_goes_on_from_stored_data(ladder):
    project, _ = ladder
    before = len(project.versions("finetune_model.keras"))
    result = project.kedro("run", "--pipelines", "finetune", "--from-nodes", "finetune.train_classifier")
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(project.versions("finetune_model.keras")) == before + 1
    assert len(project.versions("transfer_model.keras")) == 1


def test_the_gpu_tag_runs_the_heavy_nodes_alone(ladder):
    project, _ = ladder
    result = project.kedro("run", "--pipeline", "transfer", "--tags", "gpu")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "transfer.extract_features" in result.stdout
    assert "prepare_images" not in result.stdout


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_run_leaves_with_the_signals_status_and_is_recorded_as_killed(ladder, sent, status):
    project, _ = ladder
    command = [
        sys.executable,
        "-m",
        "kedro",
        "run",
        "--pipelines",
        "baseline",
        "--from-nodes",
        "baseline.train_classifier",
    ]
    process = subprocess.Popen(
        [*command, "--params", "baseline.training.epochs=1000"],
        cwd=project.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Where the tests run in the background of a shell, children would ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "/1000: loss" in line:  # the second of these runs goes on where the first one was stopped
            break
    else:
        pytest.fail("training never began")
    time.sleep(0.5)
    os.kill(process.pid, sent)
    try:
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == status
    assert {run.info.status for run in tracked_runs(project)[-2:]} == {"KILLED"}


def test_the_run_is_quiet(ladder, finished):
    project, output = ladder
    told = [line for line in output.splitlines() if "WARNING" in line]
    assert not [line for line in told if "tensorflow" in line.lower()]
    quiet = ("run", "--nodes", "transfer.extract_features", "--params", "device.verbose=false")
    assert project.kedro(*quiet).stderr == ""
    # What TensorFlow has to say depends on the processor; that it says something, in either of its formats, does not.
    assert re.search(r"^[IWE]\d{4} |: [IWE] (tensorflow|external)/", finished.errors, re.MULTILINE)
