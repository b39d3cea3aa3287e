"""Kedro hooks that record a run for MLflow: a parent run per `kedro run`, and a child run per regime."""

import getpass
import logging
import os
import shlex
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from matplotlib.figure import Figure

from efficientnet_finetuning.bundle.receipt import commit_of
from efficientnet_finetuning.io.committed import Committed
from efficientnet_finetuning.models.classifier import TrainedClassifier
from efficientnet_finetuning.parameters import REGIMES
from efficientnet_finetuning.parameters.validation import flatten
from efficientnet_finetuning.running.configuration import parameters_of
from efficientnet_finetuning.running.registry import describe
from efficientnet_finetuning.running.tracking import JOURNALS, Journal
from efficientnet_finetuning.storage import time_of
from efficientnet_finetuning.training.checkpoint import Checkpoints

logger = logging.getLogger(__name__)

Arguments = ParamSpec("Arguments")


def _never_fail(method: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Log an error of a hook and stop recording; the run continues."""

    @wraps(method)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        hooks: Any = args[0]
        if hooks.failed:
            return
        try:
            method(*args, **kwargs)
        except Exception as error:  # for example, the disk may be full
            hooks.failed = True
            logger.warning("The run continues, but it is no longer recorded. %s: %s", type(error).__name__, error)

    return guarded


class TrackingHooks:
    """Records a run for MLflow: a parent run per ``kedro run``, and a child run per regime.

    Runs are addressed by keys, not by MLflow's stack of active runs, because nodes of several regimes may alternate.
    """

    def __init__(self) -> None:
        self._handler = _MetricsHandler(self._log_step)
        self._forget()

    def _forget(self) -> None:
        self.failed = False
        self._journal: Journal | None = None
        self._version = ""
        self._children: dict[str, str] = {}
        self._source: dict[str, str] = {}
        self._node: Node | None = None

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        self._project_path = context.project_path
        self._config_loader = context.config_loader

    @hook_impl
    @_never_fail
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        self._forget()
        self._run_params, self._catalog, self._version = run_params, catalog, run_params["run_id"]
        self._compares = {"champion", "comparison"} <= pipeline.datasets()
        logging.getLogger("efficientnet_finetuning").addHandler(self._handler)
        if any((self._project_path / JOURNALS).glob("*.jsonl")):
            self._open_journal()  # send what an earlier run left

    @hook_impl
    @_never_fail
    def before_node_run(self, node: Node, inputs: dict[str, Any]) -> None:
        if not self._children:
            self._start_parent()
        if node.namespace in REGIMES and node.namespace not in self._children:
            self._start_child(node.namespace, inputs)
        self._node = node

    @hook_impl
    @_never_fail
    def after_dataset_saved(self, dataset_name: str, data: Any, node: Node) -> None:
        dataset = self._catalog[dataset_name]
        if not isinstance(dataset, Committed):
            return
        key = self._key_of(node)
        if isinstance(data, Figure) or dataset_name == "audit" or "08_reporting" in dataset.path.parts:
            self._write("artifact", key, path=self._place(dataset))
        if dataset_name == "comparison":
            rows = data.astype(object).where(data.notna(), None)  # JSON has no NaN
            self._write("table", key, name="comparison.json", data=rows.to_dict("list"))
        elif dataset_name == "cost" or dataset_name.endswith("_metrics"):
            prefix = "cost" if dataset_name == "cost" else "test"
            numbers = {f"{prefix}_{name}": value for name, value in data.items() if isinstance(value, float)}
            self._write("metrics", key, metrics=numbers, step=0)
        elif dataset_name == "champion_model":
            self._write("model", key, path=self._place(dataset), **self._about_champion(data))

    @hook_impl
    @_never_fail
    def after_pipeline_run(self) -> None:
        self._end("FINISHED")

    @hook_impl
    @_never_fail
    def on_pipeline_error(self, error: BaseException) -> None:
        self._end("FAILED" if isinstance(error, Exception) else "KILLED")

    def _open_journal(self) -> Journal:
        if self._journal is None:
            self._parameters = parameters_of(self._config_loader)
            path = self._project_path / JOURNALS / f"{self._version}.jsonl"
            uri = self._parameters.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
            self._journal = Journal(path, {"uri": uri, "experiment": self._parameters.tracking.experiment})
        return self._journal

    def _start_parent(self) -> None:
        self._open_journal()
        names, env = self._run_params.get("pipeline_names") or [], self._run_params.get("env")
        options = (["--pipelines", ",".join(names)] if names else []) + (["--env", str(env)] if env else [])
        tags = {
            "dataset": self._set_name(),
            "save_version": self._version,
            "pipelines": ", ".join(names or ["__default__"]),
            "env": str(env or "local"),
        }
        self._source = {
            "mlflow.user": _user(),
            "mlflow.source.type": "LOCAL",
            "mlflow.source.name": shlex.join(["kedro", "run", *options]),
        }
        if commit := commit_of(self._project_path):
            self._source["mlflow.source.git.commit"] = commit
        began = time_of(self._version)
        assert began is not None
        name = f"{self._set_name()} · {self._parameters.backbone.name} · {began.astimezone():%Y-%m-%d %H:%M}"
        self._children[""] = self._version
        self._start(self._version, name, tags, flatten(self._parameters))

    def _set_name(self) -> str:
        dataset = self._parameters.dataset
        return dataset.name or (self._project_path / str(dataset.path)).resolve().name

    def _start_child(self, regime: str, inputs: dict[str, Any]) -> None:
        key = f"{self._version} {regime}"
        for checkpoints in inputs.values():
            if isinstance(checkpoints, Checkpoints):
                # A resumed training continues in its first MLflow run.
                note = checkpoints.folder / "mlflow_run_key"
                key = note.read_text(encoding="utf-8") if note.is_file() else key
                note.write_text(key, encoding="utf-8")
        # Names without the regime, so that MLflow compares the regimes side by side.
        parameters = flatten(getattr(self._parameters, regime)) | flatten(self._parameters.backbone, "backbone.")
        self._children[regime] = key
        self._start(key, regime, {"regime": regime}, parameters, parent=self._version)

    def _note_data(self) -> None:
        """Log which images the runs used. At the end, because only then the manifest is surely that of this run."""
        manifest = self._catalog["manifest"]
        if not (isinstance(manifest, Committed) and manifest.exists()):
            return
        images = manifest.load()
        about = {
            "name": self._set_name(),
            "digest": manifest.content(),
            "source": self._place(manifest),
            "counts": images.loc[images["split"] != "", "split"].value_counts().to_dict(),
        }
        for key in self._children.values():
            self._write("dataset", key, **about)

    def _note_champion(self, is_finished: bool) -> None:
        """Log the champion's metrics to the parent run, so that runs can be sorted by them."""
        champion = self._catalog["champion"]
        if not (self._compares and isinstance(champion, Committed) and champion.exists()):
            return
        if is_finished or champion.resolve_load_version() == self._version:  # and not of an earlier run
            result = self._champions_result()
            self._start(self._version, "", {"champion": result["regime"]}, {})  # adds the tag
            numbers = {name: value for name, value in result.items() if isinstance(value, float) and value == value}
            metrics = {name if name == "training_seconds" else f"test_{name}": value for name, value in numbers.items()}
            self._write("metrics", self._version, metrics=metrics, step=0)

    def _about_champion(self, champion: TrainedClassifier) -> dict[str, Any]:
        result = self._champions_result()
        predictions = self._catalog[f"{result['regime']}_predictions"].load()
        return describe(self._config_loader["globals"]["job"], self._version, champion, result, predictions)

    def _champions_result(self) -> dict[str, Any]:
        comparison = self._catalog["comparison"].load()
        (result,) = comparison[comparison["regime"] == self._catalog["champion"].load()].to_dict("records")
        return dict(result)

    def _place(self, dataset: Committed) -> str:
        return os.path.relpath(dataset.path, self._project_path)  # relative, because the project may be moved

    def _start(
        self, key: str, name: str, tags: dict[str, str], parameters: dict[str, Any], parent: str | None = None
    ) -> None:
        params = {name: str(value) for name, value in parameters.items()}
        self._write("run", key, name=name, tags=tags | self._source, params=params, parent=parent)

    def _key_of(self, node: Node | None) -> str:
        return self._children.get((node and node.namespace) or "", self._version)

    @_never_fail
    def _log_step(self, metrics: dict[str, float], step: int) -> None:
        if self._children:
            self._write("metrics", self._key_of(self._node), metrics=metrics, step=step)

    def _write(self, op: str, key: str, **event: Any) -> None:
        assert self._journal is not None
        self._journal.write({"op": op, "key": key, "time": int(1000 * time.time())} | event)

    def _end(self, status: str) -> None:
        logging.getLogger("efficientnet_finetuning").removeHandler(self._handler)
        if self._journal is None:
            return
        try:
            if self._children:
                self._note_data()
                self._note_champion(is_finished=status == "FINISHED")
        finally:
            for key in reversed(self._children.values()):
                self._write("end", key, status=status)
            self._journal.close()


class _MetricsHandler(logging.Handler):
    """Logs the metrics that are attached to log records, so training does not depend on MLflow."""

    def __init__(self, log: Callable[[dict[str, float], int], None]) -> None:
        super().__init__(logging.INFO)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "metrics"):
            self._log(record.metrics, getattr(record, "step", 0))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"  # in a container, the user may have no name
