"""The champions of a job as versions of one registered MLflow model, of which one bears the alias ``champion``.

The alias goes to the newest champion, unless that is clearly worse on the same test images.
"""

import logging
import os
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pandas as pd

from efficientnet_finetuning.models.classifier import TrainedClassifier
from efficientnet_finetuning.running.source_hashes import files_of
from efficientnet_finetuning.storage import digest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

logger = logging.getLogger(__name__)

ALIAS = "champion"
_PACKAGE = Path(__file__).parents[1]
# What the code behind `serving` imports to answer. MLflow adds itself.
_LIBRARIES = ("h5py", "keras", "numpy", "pandas", "pillow", "pydantic", "tqdm")


def describe(
    job: str, save_version: str, champion: TrainedClassifier, result: Mapping[str, Any], predictions: pd.DataFrame
) -> dict[str, Any]:
    """What :func:`register` needs besides the file, as JSON.

    Args:
        job: whose champion it is.
        save_version: of the run that made it.
        champion: the classifier.
        result: its row of :func:`~efficientnet_finetuning.evaluation.comparison.compare_regimes`.
        predictions: its answers on the test images, with ``id`` and ``true``.
    """
    return {
        "name": f"efficientnet-finetuning.{job}",
        "tags": {
            "save_version": save_version,
            "regime": str(result["regime"]),
            "test_accuracy": str(result["top1"]),
            "test_accuracy_low": str(result["top1_low"]),
            "test_accuracy_high": str(result["top1_high"]),
            "num_test_images": str(len(predictions)),
            # With their labels: an accuracy on mended labels is another one.
            "test_images": digest(sorted(zip(predictions["id"], predictions["true"], strict=True))),
        },
        "metadata": {
            "class_names": list(champion.class_names),
            "backbone": champion.backbone,
            "image_size": champion.image_size,
        },
        "requirements": [
            f"{name}=={version(name)}" for name in (*_LIBRARIES, os.environ.get("KERAS_BACKEND", "tensorflow"))
        ],
    }


def register(client: "MlflowClient", experiment_id: str, run_id: str, champion: Mapping[str, Any]) -> None:
    """Log a champion to its run, register it, and let it have the alias if it is not worse than who has it.

    Done again, it does only what is missing.

    Args:
        client: of the tracking server, which is the registry, too.
        experiment_id: of the run.
        run_id: of the run that made the champion.
        champion: what :func:`describe` gave, and ``path``, of the classifier's file.
    """
    name, tags = champion["name"], champion["tags"]
    found = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    if not found and not Path(champion["path"]).is_file():
        return  # it has been pruned since
    if found:
        number = str(found[0].version)
    else:
        model = _log(client, experiment_id, run_id, champion)
        _make_registered_model(client, name)
        # By its place, since a local registry would look `models:/…` up in the process-wide store.
        made = client.create_model_version(name, model.artifact_location, run_id, tags, model_id=model.model_id)
        number = str(made.version)
    _move_alias(client, name, number, tags)


def _log(client: "MlflowClient", experiment_id: str, run_id: str, champion: Mapping[str, Any]) -> "LoggedModel":
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    found = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
    model = found[0] if found else client.create_logged_model(experiment_id, "champion", run_id)
    if model.status != LoggedModelStatus.READY:
        with TemporaryDirectory() as folder:
            _save(folder, run_id, model.model_id, champion)
            client.log_model_artifacts(model.model_id, folder)
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return model


def _save(folder: str, run_id: str, model_id: str, champion: Mapping[str, Any]) -> None:
    # Not mlflow.pyfunc.log_model, which goes through a process-wide tracking URI and loads the model to try it.
    from mlflow.models import Model
    from mlflow.pyfunc import save_model

    from efficientnet_finetuning.running import serving

    with TemporaryDirectory() as code:
        save_model(
            folder,
            python_model=serving.__file__,
            artifacts={serving.ARTIFACT: champion["path"]},
            code_paths=[str(_copy_code(serving.__name__, Path(code)))],
            mlflow_model=Model(run_id=run_id, model_id=model_id),
            metadata=champion["metadata"],
            signature=serving.signature(len(champion["metadata"]["class_names"])),
            input_example=serving.example(),
            pip_requirements=champion["requirements"],
        )


def _copy_code(module: str, folder: Path) -> Path:
    """The part of this package that a module needs, since each file is a request to the server."""
    for file in files_of(module):
        copy = folder / file.relative_to(_PACKAGE.parent)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    return folder / _PACKAGE.name


def _make_registered_model(client: "MlflowClient", name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _move_alias(client: "MlflowClient", name: str, number: str, tags: Mapping[str, str]) -> None:
    present = client.get_registered_model(name).aliases.get(ALIAS)
    if present is None:
        outcome, moves = "the first champion", True
    elif str(present) == number:
        return
    else:
        outcome, moves = _compare(tags, client.get_model_version(name, present).tags, f"version {present}")
    if moves:
        client.set_registered_model_alias(name, ALIAS, number)
    logger.info("MLflow: %s version %s is registered: %s", name, number, outcome)


def _compare(new: Mapping[str, str], present: Mapping[str, str], who: str) -> tuple[str, bool]:
    """Whether a new champion takes the alias from the present one.

    Args:
        new: tags of its version.
        present: tags of the version that has the alias.
        who: names that version.

    Returns:
        The reason, for people, and whether it does.
    """
    if present.get("save_version", "") > new["save_version"]:  # it was sent late
        return f"{who}, which was made later, stays the champion", False
    if present.get("test_images") != new["test_images"]:
        return f"the champion from now on, not compared with {who}, whose test images or labels differ", True
    told = f"{_interval(new)}, {who} {_interval(present)} on the same test images"
    if float(new["test_accuracy_high"]) < float(present["test_accuracy_low"]):
        return f"{told}, which stays the champion", False
    return f"the champion from now on: {told}", True


def _interval(tags: Mapping[str, str]) -> str:
    share, low, high = (float(tags[f"test_accuracy{end}"]) for end in ("", "_low", "_high"))
    return f"{share:.1%} ({low:.1%} to {high:.1%})"
