"""A project folder of its own for every file of tests that really run kedro, with a tiny job."""

import fcntl
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from efficientnet_finetuning.storage import versions

ROOT = Path(__file__).parents[2]
CLASSES = ("red", "green", "blue")


def write_photos(folder: Path, images_per_class: int) -> Path:
    """Class folders of noisy images, each class with a colour of its own."""
    generator = np.random.default_rng(0)
    for channel, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for index in range(images_per_class):
            pixels = generator.integers(0, 120, (40, 48, 3), dtype=np.uint8)
            pixels[..., channel] += 120
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


@dataclass
class Project:
    """A copy of the project's configuration with a job of 36 images of 32 px."""

    path: Path

    def kedro(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run kedro in the project, as a user does."""
        return subprocess.run(
            [sys.executable, "-m", "kedro", *arguments],
            cwd=self.path,
            env=os.environ | (env or {}),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def refuses(self, *arguments: str, env: dict[str, str] | None = None) -> str:
        """Run kedro for something that it must refuse with one message and no traceback; returns what it says."""
        result = self.kedro(*arguments, env=env)
        output = result.stdout + result.stderr
        assert result.returncode == 1, output
        assert "Traceback" not in output
        return output

    def versions(self, dataset: str) -> list[str]:
        """Versions of a dataset by its file name, oldest first."""
        (folder,) = self.path.glob(f"data/0*/*/{dataset}")
        return sorted(version.name for version in folder.iterdir())

    def newest(self, dataset: str) -> Path:
        """The newest version's file or folder."""
        (folder,) = self.path.glob(f"data/0*/*/{dataset}")
        return folder / self.versions(dataset)[-1] / dataset

    def current(self, dataset: str) -> Path:
        """The version that whoever names none gets."""
        (folder,) = self.path.glob(f"data/0*/*/{dataset}")
        return folder / versions(folder)[0]


TINY = """
device: {verbose: true}
dataset: {name: null, data_dir: null, path: photos, validation_fraction: 0.25, test_fraction: 0.25}
preprocessing: {image_size: 32}
choose_backbone: {backbones: [EfficientNetLite1], image_sizes: [32, 40], max_images: 20}
baseline: {training: {epochs: 1, batch_size: 8}}
finetune: {training: {epochs: 2, batch_size: 8, unfreeze_from: block7a, class_weight: balanced}}
"""


def make_project(path: Path, parameters: str = TINY) -> Project:
    """Copy the project without its data, give it parameters of its own, and draw its photos."""
    for name in ("conf", "src", "pyproject.toml", ".telemetry"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, path / name, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
        else:
            shutil.copy(source, path / name)
    (path / "conf" / "local" / "parameters.yml").write_text(parameters)
    write_photos(path / "photos", images_per_class=12)
    return Project(path)


@dataclass(frozen=True)
class Finished:
    """A project in which `kedro run` was typed once, what it printed, and a copy from right after it."""

    project: Project
    output: str
    errors: str
    untouched: Path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Made once, by the first of pytest's workers that needs it. test_ladder.py works in it, others in copies."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "finished"
    folder.mkdir(exist_ok=True)
    printed, errors = folder / "printed.txt", folder / "errors.txt"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not printed.exists():
            result = make_project(folder / "project").kedro("run")
            assert result.returncode == 0, result.stdout + result.stderr
            shutil.copytree(folder / "project", folder / "untouched")
            errors.write_text(result.stderr)
            printed.write_text(result.stdout)
    return Finished(Project(folder / "project"), printed.read_text(), errors.read_text(), folder / "untouched")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The tiny job, whose artifacts the tests of a module share."""
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def trained(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The tiny job after `kedro run`. Its folder is another one, so its images are looked at again, but no more."""
    return Project(shutil.copytree(finished.untouched, tmp_path_factory.mktemp("trained") / "project"))
