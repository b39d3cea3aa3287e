"""The champions of a job as versions of one registered MLflow model; the best one has the alias ``champion``.

A new champion takes the alias unless it is clearly worse on the same test images.
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

from efficientnet_finetuning.errors import percent
from efficientnet_finetuning.models.classifier import TrainedClassifier
from efficientnet_finetuning.running.source_hashes import files_of
from efficientnet_finetuning.storage import digest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

logger = logging.getLogger(__name__)

ALIAS = "champion"
_PACKAGE = Path(__file__).parents[1]
# The libraries that `serving` needs. MLflow adds itself.
_LIBRARIES = ("h5py", "keras", "numpy", "pandas", "pillow", "pydantic", "tqdm")


def describe(
    job: str, save_version: str, champion: TrainedClassifier, result: Mapping[str, Any], predictions: pd.DataFrame
) -> dict[str, Any]:
    """The description of a champion that :func:`register` needs, as JSON.

    ``save_version`` is that of its run, ``result`` its row of
    :func:`~efficientnet_finetuning.evaluation.comparison.compare_regimes`, ``predictions`` has ``id`` and ``true`` of
    the test images.
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
            # Including the labels: accuracies on corrected labels cannot be compared with earlier ones.
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
    """Log a champion to its run, register it, and give it the alias unless it is worse than the current champion.

    ``champion`` is the result of :func:`describe` with the ``path`` of the classifier's file. A second call does only
    what is still missing.
    """
    name, tags = champion["name"], champion["tags"]
    found = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    if not found and not Path(champion["path"]).is_file():
        return  # the file has been pruned since
    if found:
        number = str(found[0].version)
    else:
        model = _log(client, experiment_id, run_id, champion)
        _make_registered_model(client, name)
        # By location, because a local registry would look up `models:/…` in the process-wide store.
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
    # Not mlflow.pyfunc.log_model, which uses a process-wide tracking URI and loads the model as a test.
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
    """Copy only the modules that a module needs, because each file is a separate request to the server."""
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
        outcome, moves = "it is the first champion", True
    elif str(present) == number:
        return
    else:
        outcome, moves = _compare(tags, client.get_model_version(name, present).tags, f"version {present}")
    if moves:
        client.set_registered_model_alias(name, ALIAS, number)
    logger.info("MLflow: registered %s version %s; %s", name, number, outcome)


def _compare(new: Mapping[str, str], present: Mapping[str, str], who: str) -> tuple[str, bool]:
    """The reason why a new champion takes the alias or not, and whether it does. Arguments: tags of both versions."""
    if present.get("save_version", "") > new["save_version"]:  # the record arrived late
        return f"{who} is newer and stays the champion", False
    if present.get("test_images") != new["test_images"]:
        return f"it is the new champion, without comparison: {who} has other test images or labels", True
    told = f"it gets {_interval(new)}, {who} {_interval(present)} of the same test images right"
    if float(new["test_accuracy_high"]) < float(present["test_accuracy_low"]):
        return f"{who} stays the champion: {told}", False
    return f"it is the new champion: {told}", True


def _interval(tags: Mapping[str, str]) -> str:
    share, low, high = (float(tags[f"test_accuracy{end}"]) for end in ("", "_low", "_high"))
    return f"{percent(share)} ({percent(low)} to {percent(high)})"
