"""What a run notes for MLflow: a parent run for each `kedro run`, a child for each regime."""

import logging
import os
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline.node import Node
from matplotlib.figure import Figure

from efficientnet_finetuning.bundle.receipt import commit_of
from efficientnet_finetuning.io.committed import Committed
from efficientnet_finetuning.models.classifier import TrainedClassifier
from efficientnet_finetuning.parameters import REGIMES, Parameters
from efficientnet_finetuning.parameters.validation import flatten
from efficientnet_finetuning.running.configuration import parameters_of
from efficientnet_finetuning.running.registry import describe
from efficientnet_finetuning.running.tracking import JOURNALS, Journal
from efficientnet_finetuning.training.checkpoint import Checkpoints

logger = logging.getLogger(__name__)

Arguments = ParamSpec("Arguments")

# Datasets besides figures that are kept as MLflow artifacts.
_DOCUMENTS = ("comparison", "verdict", "change", "report", "audit", "cost")
_OF_THE_REVIEW = ("image_issues", "label_review", "weak_spots", "shortcuts", "more_images")


def _never_fail(method: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Let a hook's failure cost the record, not the run."""

    @wraps(method)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        hooks: Any = args[0]
        if hooks.failed:
            return
        try:
            method(*args, **kwargs)
        except Exception as error:  # the disk of the journal may be full, to begin with
            hooks.failed = True
            logger.warning("This run is not recorded any further; it goes on. %s: %s", type(error).__name__, error)

    return guarded


class TrackingHooks:
    """Records a run for MLflow: a parent run for each ``kedro run``, a child for each regime.

    Namespaces interleave in Kedro's order, so runs are addressed by keys, never through MLflow's stack of active runs.
    """

    def __init__(self) -> None:
        self._handler = _MetricsHandler(self._log_step)
        self._forget()

    def _forget(self) -> None:
        self.failed = False
        self._journal: Journal | None = None
        self._version = ""
        self._children: dict[str, str] = {}
        self._node: Node | None = None

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        self._project_path = context.project_path
        self._config_loader = context.config_loader

    @hook_impl
    @_never_fail
    def before_pipeline_run(self, run_params: dict[str, Any], catalog: CatalogProtocol) -> None:
        self._forget()
        self._run_params, self._catalog, self._version = run_params, catalog, run_params["run_id"]
        logging.getLogger("efficientnet_finetuning").addHandler(self._handler)
        if any((self._project_path / JOURNALS).glob("*.jsonl")):
            self._open_journal()  # an earlier run has left something to send

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
        key = self._key_of(node)
        dataset = self._catalog[dataset_name]
        is_document = dataset_name in (*_DOCUMENTS, *_OF_THE_REVIEW) or dataset_name.endswith("_metrics")
        if is_document or isinstance(data, Figure):
            assert isinstance(dataset, Committed)
            self._write("artifact", key, path=str(dataset.path))
        if dataset_name == "comparison":
            rows = data.astype(object).where(data.notna(), None)  # JSON has no word for "not a number"
            self._write("table", key, name="comparison.json", data=rows.to_dict("list"))
        elif dataset_name == "cost" or dataset_name.endswith("_metrics"):
            prefix = "cost" if dataset_name == "cost" else "test"
            numbers = {f"{prefix}_{name}": value for name, value in data.items() if isinstance(value, float)}
            self._write("metrics", key, metrics=numbers, step=0)
        elif dataset_name == "champion_model":
            assert isinstance(dataset, Committed)
            self._write("model", key, path=str(dataset.path), **self._about_champion(data))

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
            store = _store(self._parameters, self._project_path)
            self._journal = Journal(self._project_path / JOURNALS / f"{self._version}.jsonl", store)
        return self._journal

    def _start_parent(self) -> None:
        self._open_journal()
        parameters = self._parameters
        tags = {
            "dataset": str(parameters.dataset.name or parameters.dataset.path),
            "save_version": self._version,
            "pipelines": ", ".join(self._run_params.get("pipeline_names") or ["__default__"]),
            "env": str(self._run_params.get("env") or "local"),
            "git_commit": commit_of(self._project_path) or "none",
        }
        self._children[""] = self._version
        self._start(self._version, tags, flatten(parameters), parent=None)

    def _start_child(self, regime: str, inputs: dict[str, Any]) -> None:
        key = f"{self._version} {regime}"
        for checkpoints in inputs.values():
            if isinstance(checkpoints, Checkpoints):
                # A training that goes on goes on in the MLflow run in which it began.
                note = checkpoints.folder / "mlflow_run_key"
                key = note.read_text(encoding="utf-8") if note.is_file() else key
                note.write_text(key, encoding="utf-8")
        # Without the regime's name in front, so that MLflow lines the regimes up.
        parameters = flatten(getattr(self._parameters, regime)) | flatten(self._parameters.backbone, "backbone.")
        self._children[regime] = key
        self._start(key, {"regime": regime}, parameters, parent=self._version)

    def _note_data(self) -> None:
        """Say which images the runs were about: at the end, when the manifest is this run's and no older one."""
        manifest = self._catalog["manifest"]
        if not (isinstance(manifest, Committed) and manifest.exists()):
            return
        images = manifest.load()
        about = {
            "name": str(self._parameters.dataset.name or Path(str(self._parameters.dataset.path)).name),
            "digest": manifest.content(),
            "source": str(manifest.path),
            "counts": images.loc[images["split"] != "", "split"].value_counts().to_dict(),
        }
        for key in self._children.values():
            self._write("dataset", key, **about)

    def _about_champion(self, champion: TrainedClassifier) -> dict[str, Any]:
        regime = self._catalog["champion"].load()
        comparison = self._catalog["comparison"].load()
        (result,) = comparison[comparison["regime"] == regime].to_dict("records")
        predictions = self._catalog[f"{regime}_predictions"].load()
        return describe(self._config_loader["globals"]["job"], self._version, champion, result, predictions)

    def _start(self, key: str, tags: dict[str, str], parameters: dict[str, Any], parent: str | None) -> None:
        params = {name: str(value) for name, value in parameters.items()}
        self._write("run", key, name=key, tags=tags, params=params, parent=parent)

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
        if self._journal is not None:
            if self._children:
                self._note_data()
            for key in reversed(self._children.values()):
                self._write("end", key, status=status)
            self._journal.close()


class _MetricsHandler(logging.Handler):
    """Passes on the metrics that training attaches to its log records, so that training knows no tracker."""

    def __init__(self, log: Callable[[dict[str, float], int], None]) -> None:
        super().__init__(logging.INFO)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "metrics"):
            self._log(record.metrics, getattr(record, "step", 0))


def _store(parameters: Parameters, project_path: Path) -> dict[str, str | None]:
    """MLflow's tracking URI and experiment, and where artifacts go when the store is ours."""
    experiment = parameters.tracking.experiment
    given = parameters.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if given:
        return {"uri": given, "artifact_location": None, "experiment": experiment}
    folder = project_path / "data" / "08_reporting" / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    uri = f"sqlite:///{(folder / 'mlflow.db').as_posix()}"
    return {"uri": uri, "artifact_location": (folder / "artifacts").as_uri(), "experiment": experiment}
