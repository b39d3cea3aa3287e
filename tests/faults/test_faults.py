"""Kills, damage, a full disk and two runs at once: nothing is lost and nothing torn is believed.

The short form; ``make soak`` is the long one.
"""

import importlib.util
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kedro.io import DatasetError, Version

from efficientnet_finetuning.io.arrays import ArraysDataset, ExamplesDataset
from efficientnet_finetuning.io.committed import CSVDataset, FigureDataset
from efficientnet_finetuning.io.models import ClassifierDataset, KerasModelDataset

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


def load_driver():
    spec = importlib.util.spec_from_file_location("driver", HERE / "driver.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


driver = load_driver()


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The undisturbed run."""
    return driver.make_reference(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def copy(reference, tmp_path):
    """Makes a project that has stored a part of what the reference has."""
    yield lambda start: reference.copy(tmp_path / "project", start)
    shutil.rmtree(tmp_path / "project", ignore_errors=True)


@pytest.mark.parametrize(
    ("start", "kills"),
    [
        (
            "nothing",
            [
                ("block: after the rename", 3),  # of two splits that are prepared
                (driver.RANDOM, 0),
                (driver.IN_TRAINING, 0),
            ],
        ),
        (
            "before training",
            [
                ("checkpoint: before the rename", 4),
                ("checkpoint: half removed", driver.EPOCHS - 3),  # after the last epoch
                ("dataset: half of a file", 1),  # of the fine-tuned model
            ],
        ),
    ],
)
def test_a_run_that_is_killed_and_typed_again_ends_as_if_nothing_had_happened(reference, copy, start, kills):
    project = copy(start)
    for point, number in kills:
        if number:
            assert driver.launch(project, point, number).wait() == -9, driver.log(project)
        else:
            driver.disturb(project, reference, driver.Fault(point, start), random.Random(0))
        assert list(driver.find_torn(project)) == []
    assert driver.losses(project, reference, len(kills)) == []


STORED = (
    ("train_images", "train_images/images.npy", ExamplesDataset),
    ("validation_images", "commit.json", ExamplesDataset),
    ("transfer_features", "transfer_features/train.npy", ArraysDataset),
    ("transfer_backbone.keras", "transfer_backbone.keras", KerasModelDataset),
    ("transfer_model.keras", "transfer_model.keras", ClassifierDataset),
    ("manifest.csv", "manifest.csv", CSVDataset),
    ("learning_curves.png", "learning_curves.png", FigureDataset),
)


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_flipped_byte_is_noticed_by_whoever_loads_it_and_made_good_by_the_next_run(copy):
    project = copy("all")
    files = {}
    for name, file, kind in STORED:
        path = project.newest(name)
        files[name] = path.parent / file
        flip_a_byte(files[name])
        dataset = kind(filepath=str(path.parents[1]), version=Version(None, None))
        with pytest.raises(DatasetError, match=f"{files[name]} has changed since it was written"):
            dataset.load()
    result = project.kedro(*driver.COMMAND)
    assert result.returncode == 0, result.stdout + result.stderr
    for name, file in files.items():
        # The three splits are one node's, which is stale by the first that is damaged.
        if name != "validation_images":
            assert f"{file} has changed since it was written" in result.stdout
        assert len(project.versions(name)) == 2
    assert "fresh  finetune.train_classifier" in result.stdout, "its inputs came out as they were"
    assert driver.run_again(project) == []
    assert "stale" not in driver.log(project)


def test_two_different_runs_at_once_never_mix(copy):
    assert driver.run_two_different(copy("before training")) == []


def test_the_same_run_twice_at_once_trains_once(reference, copy):
    assert driver.run_two_alike(copy("before training"), reference) == []


def test_a_training_that_diverges_says_where_and_stores_no_model(copy):
    project = copy("before training")
    message = project.refuses(*driver.COMMAND, "--params", "finetune.training.learning_rate=1e9")
    assert all(part in message for part in ("epoch", "step", "learning rate")), message
    assert not list(project.path.glob("data/06*/*/finetune_model.keras/*"))


def test_raw_images_that_cannot_be_written_and_no_network_are_enough(reference, copy):
    project = copy("nothing")
    photos = project.path / "photos"
    shutil.copytree(reference.project.path / "photos", photos)
    for path in (*photos.rglob("*"), photos):
        path.chmod(0o555 if path.is_dir() else 0o444)
    command = ["kedro", "run", "--pipelines", "preprocessing", "--params", f"dataset.path={photos}"]
    command = [sys.executable, "-m", *command]
    if os.geteuid() == 0 and not driver.why_no_small_disk():  # root is stopped by no mode
        command = [*driver.UNSHARE, "sh", "-c", 'mount -o bind,ro "$0" "$0" && exec "$@"', str(photos), *command]
    environment = os.environ | driver.OFFLINE
    result = subprocess.run(command, cwd=project.path, env=environment, capture_output=True, text=True, check=False)
    for path in (photos, *photos.iterdir()):
        path.chmod(0o755)  # or it could not be removed
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_full_disk_is_named_and_costs_nothing_that_was_stored(reference, copy):
    project = copy("nothing")
    if reason := driver.why_no_small_disk():
        pytest.skip(reason)
    result = driver.fill_disk(project, reference, 60_000)
    assert result.returncode == 0, result.stdout + result.stderr
