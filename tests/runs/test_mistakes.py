"""What a user reads after a mistake: one message, no traceback, before anything heavy."""

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("finetune.trainning.epochs=2", ["finetune.trainning", "'training'"]),
        ("finetunne.training.epochs=2", ["finetunne", "'finetune'"]),
        ("backbone.name=EficientNetB0", ["EficientNetB0", "'EfficientNetB0'"]),
        ("finetune.training.unfreeze_from=block9a", ["block9a", "block7a"]),
        ("preprocessing.image_size=16", ["preprocessing.image_size", "32"]),
    ],
)
def test_wrong_parameters_are_named_with_what_was_meant(project, parameters, expected):
    output = project.refuses("run", "--params", parameters)
    assert all(part in output for part in expected)
    assert "Device:" not in output, "nothing heavy was imported"


def test_an_unknown_pipeline_is_named(project):
    assert "'finetune'" in project.refuses("run", "--pipelines", "finetun")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--env", "nosuch"], ["nosuch", "stanford_dogs"]),
        (["--from-nodes", "finetune.train_classifer"], ["finetune.train_classifer", "'finetune.train_classifier'"]),
        (["--to-nodes", "nosuch"], ["nosuch", "make viz"]),
        (["--tags", "tpu"], ["tpu", "gpu and cpu"]),
        (["--namespaces", "finetunes"], ["finetunes"]),
    ],
)
def test_what_is_chosen_and_is_not_there_is_named(project, arguments, expected):
    output = project.refuses("run", *arguments)
    assert all(part in output for part in expected)


def test_two_pipelines_that_both_compare_are_refused(project):
    assert "kedro run" in project.refuses("run", "--pipelines", "finetune,baseline")


def test_starting_in_the_middle_of_nothing_says_what_is_missing(project):
    output = project.refuses("run", "--pipelines", "finetune", "--from-nodes", "finetune.train_classifier")
    assert "finetune_start" in output


def test_an_unknown_set_is_named_with_near_matches(project):
    output = project.refuses("run", "--params", "dataset.path=null,dataset.name=standford_dogs")
    assert "'stanford_dogs'" in output
    assert "Device" not in output, "choosing one imports TensorFlow"


def test_a_folder_that_is_not_there_is_named_before_anything_heavy_is_imported(project):
    output = project.refuses("run", "--params", "dataset.path=nowhere")
    assert f"dataset.path: {project.path / 'nowhere'} does not exist." in output
    assert "Device" not in output, "choosing one imports TensorFlow"


@pytest.mark.parametrize("blocked", ["finetune_model.keras", "finetune_model.keras/.staging", "finetune_checkpoints"])
def test_a_file_in_the_place_of_a_folder_stops_a_run_before_its_first_node(project, blocked):
    file = project.path / "data" / "06_models" / "cifar10_sample" / blocked
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("a file")
    output = project.refuses("run", "--pipelines", "finetune")
    file.unlink()
    assert f"{file} is a file" in " ".join(output.split())
    assert not list(project.path.glob("data/02_intermediate/*/source.json"))


def test_photographs_whose_names_are_no_utf8_are_refused_by_name(project):
    import os

    names = os.fsdecode(b"caf\xe9"), os.fsdecode(b"na\xefve")
    for name in names:
        (project.path / "odd" / name).mkdir(parents=True)
        (project.path / "odd" / name / "1.png").write_bytes((project.path / "photos" / "red" / "1.png").read_bytes())
    output = project.refuses("run", "--pipelines", "ingestion", "--params", "dataset.path=odd")
    assert r"caf\udce9" in output
    assert "Rename them" in output


def test_a_gpu_that_is_not_there_is_an_error_before_any_work(project):
    output = project.refuses("run", "--params", "device.accelerator=gpu", env={"CUDA_VISIBLE_DEVICES": "-1"})
    assert "device.accelerator" in output
    assert "stale  " not in output, "which is what each node says before it runs"


def test_a_failing_run_is_recorded_as_failed(project):
    output = project.refuses("run", "--pipelines", "transfer", "--params", "dataset.max_per_class=1")
    assert "has no image in train" in output
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project.path}/data/08_reporting/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("efficientnet-finetuning")
    newest = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])[0]
    assert newest.info.status == "FAILED"


def test_a_dead_tracking_server_costs_no_record(project):
    result = project.kedro("run", "--pipelines", "ingestion", env={"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})
    assert result.returncode == 0, result.stdout + result.stderr
    assert "MLflow cannot be reached" in result.stdout
    assert "Nothing is lost" in result.stdout
    assert list((project.path / "data" / "08_reporting" / "mlflow" / "journal").glob("*.jsonl"))


@pytest.mark.parametrize("command", [("catalog", "describe-datasets"), ("registry", "list")])
def test_listing_imports_neither_tensorflow_nor_keras(project, command):
    result = project.kedro(*command, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert result.returncode == 0, result.stderr
    imported = {line.rsplit("|", 1)[-1].strip() for line in result.stderr.splitlines()}
    assert "kedro" in imported
    assert not imported & {"keras", "tensorflow", "mlflow"}
