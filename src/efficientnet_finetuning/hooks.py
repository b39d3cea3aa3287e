"""What happens around a run: inputs are checked, a device is chosen, MLflow records, the outcome is said."""

import hashlib
import logging
import os
import subprocess
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import click
import pandas as pd
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from matplotlib.figure import Figure

from efficientnet_finetuning.data.sources import check_dataset
from efficientnet_finetuning.device import prepare_process, select_device
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.evaluation.comparison import format_comparison
from efficientnet_finetuning.parameters import DeviceParameters, Parameters, flatten, validate

logger = logging.getLogger(__name__)

Arguments = ParamSpec("Arguments")


def is_parameter(dataset_name: str) -> bool:
    """Whether a node's input is a parameter rather than stored data."""
    return dataset_name == "parameters" or dataset_name.startswith("params:")


class RunHooks:
    """What is checked and chosen before the first node, and said after the last."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        self._config_loader = context.config_loader

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        inputs = sorted(name for name in pipeline.inputs() if not is_parameter(name))
        if missing := [name for name in inputs if not catalog.exists(name)]:
            raise InputError(
                f"This run starts from {', '.join(missing)}, of which no version is stored yet. Run the nodes that "
                "make them first: the same command without --from-nodes, --nodes or --tags does."
            )
        parameters = validate(self._config_loader["parameters"])
        if "source" in pipeline.all_outputs():
            check_dataset(parameters.dataset)
        self._device: DeviceParameters | None = parameters.device
        prepare_process(parameters.device)
        # A GPU that is not there must not be found out in the middle; otherwise Keras is imported when it is needed.
        if parameters.device.accelerator == "gpu" and any("gpu" in node.tags for node in pipeline.nodes):
            self._say_device()

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        if "gpu" in node.tags:
            self._say_device()

    def _say_device(self) -> None:
        if self._device is not None:
            logger.info("Device: %s", select_device(self._device))
            self._device = None

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        if "comparison" in pipeline.all_outputs():
            click.echo(f"\n{format_comparison(catalog['comparison'].load())}\n")


def _never_fail(method: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Let a hook's failure cost the record, not the run."""

    @wraps(method)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        hooks: Any = args[0]
        if hooks.failed:
            return
        try:
            method(*args, **kwargs)
        except Exception as error:  # a tracking server fails in every way there is
            hooks.failed = True
            logger.warning(
                "MLflow does not record this run any further; training goes on. %s: %s", type(error).__name__, error
            )

    return guarded


class TrackingHooks:
    """Records a run in MLflow: a parent run for each ``kedro run``, a child for each regime.

    Namespaces interleave in Kedro's order, so runs are addressed by id, never through MLflow's stack of active runs.
    """

    def __init__(self) -> None:
        self._handler = _MetricsHandler(self._log_step)
        self._forget()

    def _forget(self) -> None:
        self.failed = False
        self._parent: str | None = None
        self._children: dict[str, str] = {}
        self._node: Node | None = None

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        self._project_path = context.project_path
        self._config_loader = context.config_loader

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], catalog: CatalogProtocol) -> None:
        self._forget()
        self._run_params, self._catalog = run_params, catalog
        logging.getLogger("efficientnet_finetuning").addHandler(self._handler)

    @hook_impl
    @_never_fail
    def before_node_run(self, node: Node) -> None:
        if self._parent is None:
            self._start_parent()
        if node.namespace and node.namespace not in self._children:
            self._start_child(node.namespace)
        self._node = node

    @hook_impl
    @_never_fail
    def after_dataset_saved(self, dataset_name: str, data: Any, node: Node) -> None:
        run_id = self._run_of(node)
        if run_id is None:
            return
        if isinstance(data, Figure):
            self._client.log_figure(run_id, data, f"{dataset_name}.png")
        elif dataset_name == "comparison":
            self._client.log_table(run_id, data, "comparison.json")
            self._client.log_text(run_id, data.to_csv(index=False), "comparison.csv")
        elif dataset_name == "manifest":
            self._client.set_tag(run_id, "manifest_sha256", _manifest_hash(data))
        elif dataset_name == "audit":
            self._client.log_dict(run_id, data, "audit.json")
        elif dataset_name.endswith("_metrics"):
            self._client.log_dict(run_id, data, "metrics.json")
            scores = {f"test_{name}": value for name, value in data.items() if isinstance(value, float)}
            self._log_metrics(run_id, scores, step=0)

    @hook_impl
    @_never_fail
    def after_pipeline_run(self) -> None:
        self._end("FINISHED")

    @hook_impl
    @_never_fail
    def on_pipeline_error(self, error: BaseException) -> None:
        self._end("FAILED" if isinstance(error, Exception) else "KILLED")

    def _start_parent(self) -> None:
        from mlflow import MlflowClient

        parameters = validate(self._config_loader["parameters"])
        uri, artifact_location = _store(parameters, self._project_path)
        self._client = MlflowClient(uri)
        experiment = self._client.get_experiment_by_name(parameters.tracking.experiment)
        self._experiment_id = (
            experiment.experiment_id
            if experiment
            else self._client.create_experiment(parameters.tracking.experiment, artifact_location)
        )
        self._parameters = parameters
        tags = {
            "dataset": str(parameters.dataset.name or parameters.dataset.path),
            "save_version": self._run_params["run_id"],
            "pipelines": ", ".join(self._run_params.get("pipeline_names") or ["__default__"]),
            "env": str(self._run_params.get("env") or "local"),
            "git_commit": _git_commit(self._project_path),
        }
        if self._catalog.exists("manifest"):
            tags["manifest_sha256"] = _manifest_hash(self._catalog["manifest"].load())
        self._parent = self._start(self._run_params["run_id"], tags, flatten(parameters))

    def _start_child(self, regime: str) -> None:
        tags = {"mlflow.parentRunId": str(self._parent), "regime": regime}
        # Without the regime's name in front, so that MLflow lines the regimes up.
        parameters = flatten(getattr(self._parameters, regime)) | flatten(self._parameters.backbone, "backbone.")
        self._children[regime] = self._start(f"{self._run_params['run_id']} {regime}", tags, parameters)

    def _start(self, name: str, tags: dict[str, str], parameters: dict[str, Any]) -> str:
        from mlflow.entities import Param

        run_id = str(self._client.create_run(self._experiment_id, run_name=name, tags=tags).info.run_id)
        self._client.log_batch(run_id, params=[Param(key, str(value)) for key, value in parameters.items()])
        return run_id

    def _run_of(self, node: Node | None) -> str | None:
        return self._children.get((node and node.namespace) or "", self._parent)

    @_never_fail
    def _log_step(self, metrics: dict[str, float], step: int) -> None:
        if run_id := self._run_of(self._node):
            self._log_metrics(run_id, metrics, step)

    def _log_metrics(self, run_id: str, metrics: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._client.log_batch(run_id, metrics=[Metric(name, value, now, step) for name, value in metrics.items()])

    def _end(self, status: str) -> None:
        logging.getLogger("efficientnet_finetuning").removeHandler(self._handler)
        for run_id in (*self._children.values(), self._parent):
            if run_id is not None:
                self._client.set_terminated(run_id, status)


class _MetricsHandler(logging.Handler):
    """Passes on the metrics that training attaches to its log records, so that training knows no tracker."""

    def __init__(self, log: Callable[[dict[str, float], int], None]) -> None:
        super().__init__(logging.INFO)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "metrics"):
            self._log(record.metrics, getattr(record, "step", 0))


def _store(parameters: Parameters, project_path: Path) -> tuple[str, str | None]:
    """MLflow's tracking URI, and where artifacts go when the store is ours."""
    given = parameters.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if given:
        return given, None
    folder = project_path / "data" / "08_reporting" / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{(folder / 'mlflow.db').as_posix()}", (folder / "artifacts").as_uri()


def _manifest_hash(manifest: pd.DataFrame) -> str:
    return hashlib.sha256(manifest.to_csv(index=False).encode()).hexdigest()


def _git_commit(project_path: Path) -> str:
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=project_path, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return "none"
    return result.stdout.strip()
