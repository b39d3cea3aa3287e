"""What runs have stored for a job, found without Kedro: its champion and its prepared images."""

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.errors import InputError, near_matches
from efficientnet_finetuning.models.classifier import TrainedClassifier
from efficientnet_finetuning.storage import read_commit, recipe_of_version, versions

CHAMPION = "champion_model.keras"
# Of the images that come with the project: what a plain `kedro run` trains on.
EMBEDDED_JOB = "cifar10_sample"


Ancestor = tuple[str, str, dict[str, Any]]


def newest(dataset: Path) -> Path | None:
    """The file or folder of the version that a run made or used last; ``None`` where nothing is stored."""
    stored = versions(dataset)
    return dataset / stored[0] / dataset.name if stored else None


def folders_of(data: Path, job: str) -> dict[str, Path]:
    """Folders of a job's datasets by their name in the catalog, with underscores in the place of dots."""
    return {folder.name.partition(".")[0]: folder for folder in data.glob(f"0[2-8]_*/{job}/*") if folder.is_dir()}


def descent(folders: Mapping[str, Path], wanted: Iterable[tuple[str, str]]) -> Iterator[Ancestor]:
    """Some versions and all that they were made from, as far as it is stored.

    Args:
        folders: as :func:`folders_of` gives them.
        wanted: names of datasets with a version each.

    Yields:
        The name, the version and its record in ``commit.json``; each version once.
    """
    seen, ahead = set[tuple[str, str]](), list(wanted)
    while ahead:
        name, version = ahead.pop(0)
        folder = folders.get(name.replace(".", "_"))
        if folder is None or (name, version) in seen or not (folder / version).is_dir():
            continue
        seen.add((name, version))
        yield name, version, read_commit(folder / version) or {}
        ahead += recipe_of_version(folder / version).get("versions", {}).items()


def find_champion(job: str, data: Path) -> Path:
    """The file of a job's champion that a run made or used last.

    Args:
        job: as in the environment's ``globals.yml``: ``cifar10_sample``, ``folder``.
        data: the project's folder of that name.

    Raises:
        InputError: none is stored, with the command that makes one.
    """
    return _find(CHAMPION, "champion", command_for(job), job, data / "06_models")


def find_issues(job: str, data: Path) -> Path:
    """The file of the newest issues of a job's images: takes and raises what :func:`find_champion` does."""
    return _find("image_issues.csv", "table of issues", command_for(job, "review"), job, data / "08_reporting")


def command_for(job: str, pipeline: str = "") -> str:
    """The command that runs a job."""
    of_pipeline = f" --pipelines {pipeline}" if pipeline else ""
    return f"kedro run{of_pipeline}" if job == EMBEDDED_JOB else f"kedro run{of_pipeline} --env {job}"


def command_with(job: str, data: Path, pipeline: str, corrections: Path) -> str:
    """The command that runs a job's images once more, with corrections."""
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
        f"No {what} of the job {job!r} is stored in {layer}.{near_matches(job, jobs)} Make one: `{command}`. "
        f"Jobs with a {what}: {', '.join(jobs) or 'none'}."
    )


def prepared_images(job: str, split: str, classifier: TrainedClassifier, data: Path) -> Examples | None:
    """The newest prepared images of a job, memory-mapped.

    Args:
        job: as in :func:`find_champion`.
        split: ``train``, ``validation`` or ``test``.
        classifier: that the images are for.
        data: as in :func:`find_champion`.

    Returns:
        ``None`` where there are none, or where they are of another size or of other classes than the classifier's.
    """
    folder = newest(data / "03_primary" / job / f"{split}_images")
    names = newest(data / "02_intermediate" / job / "class_names.json")
    if folder is None or names is None:
        return None
    stored = Examples.open(folder)
    try:
        classifier.check_fits(stored.images.shape[1], json.loads(names.read_text(encoding="utf-8")))
    except InputError:
        return None
    return stored
