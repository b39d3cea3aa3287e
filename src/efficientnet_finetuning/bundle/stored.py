"""Find what runs stored for a job, without Kedro: the champion, prepared images and issues."""

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.errors import InputError, naming_unreadable, near_matches
from efficientnet_finetuning.models.classifier import TrainedClassifier
from efficientnet_finetuning.storage import read_commit, versions

CHAMPION = "champion_model.keras"
# Job of a plain `kedro run`, which trains on the images that come with the project.
EMBEDDED_JOB = "cifar10_sample"


Ancestor = tuple[str, str, dict[str, Any]]


def newest(dataset: Path) -> Path | None:
    """The file or folder of the version that a run made or used last; ``None`` if nothing is stored."""
    stored = versions(dataset)
    return dataset / stored[0] / dataset.name if stored else None


def folders_of(data: Path, job: str) -> dict[str, Path]:
    """Folders of a job's datasets by their catalog name, with underscores instead of dots."""
    return {folder.name.partition(".")[0]: folder for folder in data.glob(f"0[2-8]_*/{job}/*") if folder.is_dir()}


def descent(folders: Mapping[str, Path], wanted: Iterable[tuple[str, str]]) -> Iterator[Ancestor]:
    """Yield versions and everything that they were made from, as far as it is stored.

    ``folders`` is of :func:`folders_of`; ``wanted`` names datasets with a version each. Yields the name, the version
    and its record in ``commit.json``; each version once.
    """
    seen, ahead = set[tuple[str, str]](), list(wanted)
    while ahead:
        name, version = ahead.pop(0)
        folder = folders.get(name.replace(".", "_"))
        if folder is None or (name, version) in seen or not (folder / version).is_dir():
            continue
        seen.add((name, version))
        record = read_commit(folder / version) or {}
        yield name, version, record
        ahead += (record.get("recipe") or {}).get("versions", {}).items()


def find_champion(job: str, data: Path) -> Path:
    """The file of the champion that a run of a job made or used last.

    The job is as in the environment's ``globals.yml``, for example ``cifar10_sample`` or ``folder``; ``data`` is the
    project's folder. Raises ``InputError`` with the command that makes a champion if there is none.
    """
    return _find(CHAMPION, "champion", command_for(job), job, data / "06_models")


def find_issues(job: str, data: Path) -> Path:
    """The file of a job's newest issues; has the arguments and errors of :func:`find_champion`."""
    return _find("image_issues.csv", "table of issues", command_for(job, "review"), job, data / "08_reporting")


def command_for(job: str, pipeline: str = "") -> str:
    """The command that runs a job."""
    of_pipeline = f" --pipelines {pipeline}" if pipeline else ""
    return f"kedro run{of_pipeline}" if job == EMBEDDED_JOB else f"kedro run{of_pipeline} --env {job}"


def command_with(job: str, data: Path, pipeline: str, corrections: Path) -> str:
    """The command that runs a job's images again, with corrections."""
    source = newest(data / "02_intermediate" / job / "source.json")
    about = json.loads(source.read_text(encoding="utf-8")) if source else {}
    of_path = [f"dataset.path={about['name']}"] if about.get("kind") == "files" else []
    parameters = ",".join([*of_path, f"dataset.corrections={corrections}"])
    return f"{command_for(job, pipeline)} --params {shlex.quote(parameters)}"


def _find(name: str, what: str, command: str, job: str, layer: Path) -> Path:
    if found := newest(layer / job / name):
        return found
    jobs = sorted({path.parent.parent.parent.name for path in layer.glob(f"*/{name}/*/{name}")})
    raise InputError(
        f"{layer} has no {what} of the job {job!r}.{near_matches(job, jobs)} Make one: `{command}`. "
        f"Jobs with a {what}: {', '.join(jobs) or 'none'}."
    )


def prepared_images(job: str, split: str, classifier: TrainedClassifier, data: Path) -> Examples | None:
    """The newest prepared images of a job's split, memory-mapped.

    ``None`` if they are missing, damaged, or of another size or other classes than the classifier's. The job and
    ``data`` are those of :func:`find_champion`.
    """
    folder = newest(data / "03_primary" / job / f"{split}_images")
    names = newest(data / "02_intermediate" / job / "class_names.json")
    if folder is None or names is None:
        return None
    with suppress(InputError), naming_unreadable(str(names)):
        stored = Examples.open(folder)
        classifier.check_fits(stored.images.shape[1], json.loads(names.read_text(encoding="utf-8")))
        return stored
    return None
