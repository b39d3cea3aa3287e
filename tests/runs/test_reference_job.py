"""The reference job, on a small set with the features of stanford_dogs and a weights file in Keras' own layout."""

import importlib.util
import json
from pathlib import Path

import keras
import pandas as pd
import pytest

from efficientnet_finetuning.models.classifier import TrainedClassifier

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory) -> Path:
    """EfficientNetB0 without its top, as Keras saves it; the architecture takes any size."""
    path = tmp_path_factory.mktemp("weights") / "efficientnetb0_notop.weights.h5"
    keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(64, 64, 3)).save_weights(path)
    return path


@pytest.fixture(scope="module")
def dogs_dir(tmp_path_factory) -> Path:
    spec = importlib.util.spec_from_file_location("tfds_sets", Path(__file__).parents[1] / "data" / "tfds_sets.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("tfds")
    module.write_stanford_dogs(folder, images_per_class_train=4, images_per_class_test=1)
    return folder


def reference_job(project, parameters: str, env: dict[str, str] | None = None):
    return project.kedro("run", "--pipeline", "finetune", "--env", "stanford_dogs", "--params", parameters, env=env)


def test_the_reference_job_runs_on_a_prepared_set_and_local_weights(project, dogs_dir, weights_file):
    (project.path / "conf" / "local" / "parameters.yml").unlink()  # the environment alone decides here
    result = reference_job(
        project,
        f"dataset.data_dir={dogs_dir},dataset.validation_fraction=0.25,backbone.weights={weights_file},"
        # A processor's share of the real thing; set, backbone and classes are the reference job's.
        "preprocessing.image_size=32,finetune.training.epochs=1,finetune.training.unfreeze_from=block7a",
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert {path.parts[-1] for path in (project.path / "data" / "06_models").iterdir()} == {"stanford_dogs"}

    classifier = TrainedClassifier.load(project.newest("finetune_model.keras"))
    assert (classifier.backbone, len(classifier.class_names)) == ("EfficientNetB0", 120)
    metrics = json.loads(project.newest("finetune_metrics.json").read_text())
    assert metrics["num_images"] == 120
    assert len(metrics["per_class"]) == 120
    manifest = pd.read_csv(project.newest("manifest.csv"))
    assert manifest["split"].value_counts().to_dict() == {"train": 360, "validation": 120, "test": 120}
    assert manifest["width"].nunique() > 5, "photographs come in many sizes"


def test_without_set_and_network_it_names_address_folder_and_ways_out(project, tmp_path):
    result = reference_job(
        project,
        f"dataset.data_dir={tmp_path}",
        env={"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"},
    )
    output = result.stdout + result.stderr
    assert result.returncode == 1
    assert "Traceback" not in output
    for part in ("vision.stanford.edu", str(tmp_path), "data_dir", "backbone.weights", "run without --env"):
        assert part in output


def test_without_weights_and_network_it_names_address_folder_and_ways_out(project, dogs_dir, tmp_path):
    result = reference_job(
        project,
        f"dataset.data_dir={dogs_dir}",
        env={"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "KERAS_HOME": str(tmp_path)},
    )
    output = result.stdout + result.stderr
    assert result.returncode == 1
    assert "Traceback" not in output
    for part in ("storage.googleapis.com", str(tmp_path), "backbone.weights", "EfficientNetLite0"):
        assert part in output
    assert "] ingestion.look_at_images" not in output, "no image was looked at in vain"
