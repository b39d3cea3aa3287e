"""The same command again: what is fresh stays, what is stale says why, and what follows from it is made anew."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

pytestmark = pytest.mark.slow

FROM_TRAINING_ON = {
    "finetune.train_classifier",
    "finetune.evaluate_classifier",
    *(
        f"reporting.{name}"
        for name in (
            "compare",
            "compare_with_before",
            "keep_champion",
            "measure_cost",
            "plot_comparison",
            "plot_confidence",
            "plot_confusion",
            "plot_learning_curves",
            "reach_verdict",
            "write_report",
        )
    ),
}

OF_PREDICTIONS = ("compare_with_before", "plot_confidence", "plot_confusion")


def run(project, *arguments: str) -> tuple[set[str], dict[str, str]]:
    """Names of the fresh nodes, and the reasons of the stale ones."""
    result = project.kedro("run", "--pipelines", "finetune", *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    fresh = set(re.findall(r"fresh  (\S+)", result.stdout, re.MULTILINE))
    return fresh, dict(re.findall(r"stale  (\S+): (.*)$", result.stdout, re.MULTILINE))


@pytest.fixture(scope="module")
def job(trained):
    """A project whose fine-tuning has run, and the names of its nodes."""
    fresh, stale = run(trained)
    return trained, fresh | stale.keys()


def test_the_same_command_again_does_nothing_and_imports_nothing_heavy(job):
    project, nodes = job
    models = project.versions("finetune_model.keras")
    result = project.kedro("run", "--pipelines", "finetune", env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert set(re.findall(r"fresh  (\S+)", result.stdout)) == nodes
    assert "finetune " in result.stdout, "the comparison is shown nevertheless"
    assert project.versions("finetune_model.keras") == models
    imported = {line.rsplit("|", 1)[-1].strip() for line in result.stderr.splitlines()}
    assert not imported & {"keras", "tensorflow", "mlflow"}


def test_a_changed_parameter_recomputes_exactly_what_depends_on_it(job):
    project, nodes = job
    fresh, stale = run(project, "--params", "finetune.training.class_weight=none")
    # The classes are even, so the predictions come out as before.
    expected = FROM_TRAINING_ON - {f"reporting.{name}" for name in OF_PREDICTIONS} | {
        "preprocessing.plot_augmentations"
    }
    assert stale.keys() == expected
    assert fresh == nodes - expected
    assert stale["finetune.train_classifier"] == "finetune.training.class_weight balanced → none"
    assert stale["reporting.plot_comparison"] == "comparison changed: 1 rows added, 1 removed"


def test_going_back_to_earlier_parameters_costs_nothing(job):
    project, nodes = job
    other = project.current("finetune_model.keras")
    fresh, stale = run(project)
    assert (fresh, stale) == (nodes, {})
    first = project.current("finetune_model.keras")
    assert first != other, "what comes after this run uses its model, though it is the older one"
    fresh, stale = run(project, "--params", "finetune.training.class_weight=none")
    assert (fresh, stale) == (nodes, {})
    assert project.current("finetune_model.keras") == other
    damaged = other / "finetune_model.keras"
    damaged.write_bytes(b"damaged")
    run(project)
    assert project.current("finetune_model.keras") == first
    _, stale = run(project, "--params", "finetune.training.class_weight=none")
    assert stale["finetune.train_classifier"] == "its stored result is damaged"
    run(project)  # what the other tests expect


def test_the_runs_of_a_job_are_lined_up_by_what_differs(job):
    project, _ = job
    told = subprocess.run(
        [sys.executable, "-m", "efficientnet_finetuning.runs", "cifar10_sample"],
        cwd=project.path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    header, first, second, *_ = told.splitlines()
    assert header.split()[-3:] == ["seconds", "others", "finetune.training.class_weight"]
    assert re.search(r" (transfer|finetune) \d+\.\d +(balanced|none)$", first)
    assert {first.split()[-1], second.split()[-1]} == {"balanced", "none"}
    version = first.split()[0]
    assert version in project.versions("champion_model.keras")


def test_a_plan_comes_first_and_one_line_a_step(job):
    project, nodes = job
    quiet = project.kedro(
        "run", "--pipelines", "finetune", "--params", "device.verbose=false,evaluation.precision=0.5"
    ).stdout
    lines = [line.split(maxsplit=2)[2] for line in quiet.splitlines() if line[2:3] == ":"]
    assert re.fullmatch(rf"\d+ of {len(nodes)} steps to do, about \d.*", lines[0])
    assert re.fullmatch(
        r" *(transfer|finetune)\.evaluate_classifier and 1 more: evaluation\.precision 0\.95 → 0\.5", lines[1]
    )
    steps = [line for line in lines if line.startswith("[")]
    assert len(steps) == len(nodes)
    assert re.fullmatch(rf"\[ 1/{len(nodes)}\] ingestion.find_images +stored \(\d\d:\d\d\)", steps[0])
    assert re.fullmatch(rf"\[{len(nodes)}/{len(nodes)}\] reporting\.\w+ +\d.* s", steps[-1])
    assert "\r" not in quiet
    assert "\x1b" not in quiet


def test_what_cannot_change_a_result_makes_nothing_stale(job):
    project, nodes = job
    fresh, _ = run(project, "--params", "finetune.training.checkpoint_minutes=1,audit.max_excluded_fraction=0.5")
    assert nodes - fresh == {"ingestion.list_images"}, "the gate judges again, and lets the same pass"


def test_a_photograph_that_was_only_touched_is_looked_at_again_and_nothing_is_learnt_anew(job):
    project, nodes = job
    os.utime(project.path / "photos" / "red" / "0.png")
    fresh, stale = run(project)
    looking = ("find_images", "look_at_images", "list_images", "audit_images")
    assert stale.keys() == {f"ingestion.{name}" for name in looking}
    assert stale["ingestion.look_at_images"] == "raw images changed"
    assert fresh == nodes - stale.keys()


def test_comments_and_docstrings_make_nothing_stale_and_code_does(job):
    project, nodes = job
    file = project.path / "src" / "efficientnet_finetuning" / "training" / "fit.py"
    file.write_text('"""Another docstring."""\n# A comment.\n' + file.read_text().split('"""', 2)[2])
    fresh, _ = run(project)
    assert fresh == nodes
    file.write_text(file.read_text() + "\n_NEW = 1\n")
    _, stale = run(project)
    assert stale.keys() == {
        "finetune.train_classifier",
        "reporting.compare",
        "reporting.plot_comparison",
        "reporting.plot_learning_curves",
        "reporting.reach_verdict",
        "reporting.write_report",
    }, "the model came out as before, after other seconds"
    assert stale["finetune.train_classifier"] == "code of training/fit.py changed"


def test_a_pinned_version_counts_as_given(job):
    project, nodes = job
    oldest = project.versions("transfer_model.keras")[0]
    fresh, _ = run(project, "--load-versions", f"transfer_model:{oldest}")
    assert fresh == nodes


def test_from_nodes_forces(job):
    project, _ = job
    _, stale = run(project, "--from-nodes", "finetune.evaluate_classifier")
    assert stale == dict.fromkeys(
        FROM_TRAINING_ON - {"finetune.train_classifier", "reporting.measure_cost", "reporting.plot_learning_curves"},
        "you selected it",
    )


def test_new_photographs_are_counted(job):
    project, _ = job
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(project.path / "photos" / "red" / f"new{index}.png")
    _, stale = run(project)
    assert stale["ingestion.find_images"] == "raw images changed"
    assert re.search(r"manifest changed: \d+ rows added", stale["preprocessing.prepare_images"])
    assert "train_images changed" in stale["transfer.extract_features"]
    client = MlflowClient(f"sqlite:///{project.path}/data/08_reporting/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("efficientnet-finetuning")
    version = project.versions("manifest.csv")[-1]
    (parent,) = client.search_runs([experiment.experiment_id], f"tags.save_version = '{version}'")
    (images,) = parent.inputs.dataset_inputs
    assert version in images.dataset.source, "the new manifest, and not the one before it, too"
