"""What happens around a run: inputs are checked, a device is chosen, MLflow records, the outcome is said."""

import logging
import os
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, ParamSpec

import click
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol, MemoryDataset
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from matplotlib.figure import Figure

from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.bundle.receipt import commit_of
from efficientnet_finetuning.data.sources import check_dataset, set_folder
from efficientnet_finetuning.device import prepare_process, select_device
from efficientnet_finetuning.errors import InputError, shorten
from efficientnet_finetuning.evaluation.comparison import format_comparison
from efficientnet_finetuning.io.committed import Committed
from efficientnet_finetuning.io.told import WorkersDataset
from efficientnet_finetuning.models.classifier import TrainedClassifier
from efficientnet_finetuning.parameter_validation import flatten, validate
from efficientnet_finetuning.parameters import REGIMES, DeviceParameters, Parameters
from efficientnet_finetuning.registry import describe
from efficientnet_finetuning.tracking import JOURNALS, Journal
from efficientnet_finetuning.training.checkpoint import Checkpoints

if TYPE_CHECKING:
    from efficientnet_finetuning.cluster.workers import RayWorkers

logger = logging.getLogger(__name__)

Arguments = ParamSpec("Arguments")

# Datasets besides figures that are kept as MLflow artifacts.
_DOCUMENTS = ("comparison", "verdict", "change", "report", "audit", "cost")
_OF_THE_REVIEW = ("image_issues", "label_review", "weak_spots", "shortcuts", "more_images")


def is_parameter(dataset_name: str) -> bool:
    """Whether a node's input is a parameter rather than stored data."""
    return dataset_name == "parameters" or dataset_name.startswith("params:")


class RunHooks:
    """What is checked and chosen before the first node, and said after the last."""

    _workers: "RayWorkers | None" = None

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        self._config_loader = context.config_loader
        self._data = context.project_path / "data"

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        parameters = validate(self._config_loader["parameters"])
        if {"answers", "to_label"} & pipeline.all_outputs():
            _choose_model(parameters, catalog)
        if "extended_model" in pipeline.all_outputs() and parameters.add_class.path is None:
            raise InputError(
                "add_class.path is not given. Name a folder of photographs: --params add_class.path=<folder>."
            )
        _check_inputs(pipeline, catalog)
        if parameters.backbone.name == "auto" and "params:backbone" in pipeline.inputs():
            raise InputError(
                "backbone.name and preprocessing.image_size are auto, and no recommendation is stored for this job. "
                "Run the same command with --pipelines choose_backbone first."
            )
        self._device: DeviceParameters | None = parameters.device
        prepare_process(parameters.device)
        if "source" in pipeline.all_outputs():
            check_dataset(parameters.dataset)
        # A GPU that is not there must not be found out in the middle; otherwise Keras is imported when it is needed.
        if parameters.device.accelerator == "gpu" and any("gpu" in node.tags for node in pipeline.nodes):
            self._say_device()
        self._workers = _open_workers(pipeline, catalog, parameters, self._data)

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        if "gpu" in node.tags:
            self._say_device()

    def _say_device(self) -> None:
        if self._device is not None:
            logger.info("Device: %s", select_device(self._device))
            self._device = None

    def _dismiss_workers(self) -> None:
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    @hook_impl
    def on_pipeline_error(self) -> None:
        self._dismiss_workers()

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        self._dismiss_workers()
        if "report" in pipeline.all_outputs():
            click.echo(_outcome(catalog))
        elif "image_issues" in pipeline.all_outputs():
            click.echo(_reviewed(catalog, self._config_loader["globals"]["job"]))
        if "answers" in pipeline.all_outputs():
            click.echo(_answered(catalog["answers"]))
        if "to_label" in pipeline.all_outputs():
            click.echo(_ranked(catalog["to_label"], catalog["to_label_sheet"]))
        if "extended_model" in pipeline.all_outputs():
            click.echo(_extended(catalog))


def _choose_model(parameters: Parameters, catalog: CatalogProtocol) -> None:
    """Let a file that the user names take the champion's place where photographs are answered or ranked."""
    if parameters.predict.path is None:
        raise InputError(
            "predict.path is not given. Name the photographs: --params predict.path=<file, folder, glob, or CSV>."
        )
    if (file := parameters.predict.model_file) is not None:
        prepare_process(parameters.device)
        catalog["champion_model"] = MemoryDataset(Classifier.load(file), copy_mode="assign")


def _open_workers(
    pipeline: Pipeline, catalog: CatalogProtocol, parameters: Parameters, data: Path
) -> "RayWorkers | None":
    """Workers on other devices and machines, where there are to be some and something for them to do."""
    if parameters.device.workers == 1 or "workers" not in pipeline.inputs():
        return None
    from efficientnet_finetuning.cluster.workers import RayWorkers

    named = [parameters.dataset.path or set_folder(parameters.dataset), Path(parameters.backbone.weights)]
    paths = [path.absolute() for path in (path.expanduser() for path in named) if path.exists()]
    workers = RayWorkers(parameters.device, parameters.cluster, data, paths)
    found = catalog["workers"]
    assert isinstance(found, WorkersDataset)
    found.value = workers
    return workers


def _answered(dataset: Committed) -> str:
    answers = dataset.load()
    unreadable = answers["reason"] != ""
    unsure = ~answers["answered"] & ~unreadable
    counts = answers.loc[~unreadable, "class_1"].value_counts()
    told = ", ".join(f"{name} {count:,}" for name, count in counts.head(10).items())
    return f"""
{len(answers):,} photographs: {answers["answered"].sum():,} answered, {unsure.sum():,} not sure enough, \
{unreadable.sum():,} could not be read
{told}

Answers: {dataset.path.resolve()} (and .parquet beside it)
"""


def _ranked(table: Committed, sheet: Committed) -> str:
    return f"""
{len(table.load()):,} photographs are ranked: the first are those whose labels would help most.

Label first: {table.path.resolve()} (from the top)
The first:   {sheet.path.resolve()}
"""


def _extended(catalog: CatalogProtocol) -> str:
    extension, model = catalog["extension"].load(), catalog["extended_model"].path.resolve()
    unreadable = [f"{name}: {reason}" for name, reason in extension["unreadable"].items()]
    told = f"\n{len(unreadable)} could not be read: {shorten(unreadable, limit=3)}\n" if unreadable else ""
    return f"""
{fill(extension["words"], 110)}
{told}
Model:  {model}
Use it: kedro run --pipelines predict --params predict.model=<that file>,predict.path=<photographs>
        To recognize more of the class at the cost of the others: add_class.max_loss=0.02
"""


def _reviewed(catalog: CatalogProtocol, job: str) -> str:
    words = [catalog["label_review"].load()["words"], " ".join(catalog["more_images"].load()["words"])]
    words += [*catalog["weak_spots"].load()["words"], *catalog["shortcuts"].load()["warnings"]]
    told = "\n".join(fill(sentences, 110) for sentences in words)
    return f"""
{told}

Issues: {catalog["image_issues"].path.resolve()}
Next:   make review JOB={job} (look at them and mend the labels)
"""


def _outcome(catalog: CatalogProtocol) -> str:
    """What a user wants to know when all is done."""
    words = fill(catalog["verdict"].load()["words"], 110)
    return f"""
{format_comparison(catalog["comparison"].load())}

{words}

Report: {catalog["report"].path.resolve()}
Next:   make viz (the lineage with its pictures), make mlflow (the runs)
"""


def _check_inputs(pipeline: Pipeline, catalog: CatalogProtocol) -> None:
    """Refuse to start from what is not stored, or not as it was written, and without parameters."""
    known = set(catalog)
    if absent := sorted(name for name in pipeline.inputs() if name.startswith("params:") and name not in known):
        raise InputError(
            f"This run needs {', '.join(absent)}, which this environment does not give. For seed_parity there is --env "
            "seed_recipe."
        )
    inputs = {name: catalog.get(name) for name in sorted(pipeline.inputs()) if not is_parameter(name)}
    for dataset in inputs.values():
        if isinstance(dataset, Committed) and dataset.list_versions() and (damage := dataset.find_damage()):
            raise InputError(f"{damage}. The same command without --from-nodes, --nodes or --tags makes it anew.")
    if missing := [name for name, dataset in inputs.items() if dataset is None or not dataset.exists()]:
        raise InputError(
            f"This run starts from {', '.join(missing)}, of which no version is stored yet. Run what makes them "
            "first: `kedro run`, or the same command without --from-nodes, --nodes or --tags. What another job has "
            "stored needs its environment, such as --env folder."
        )


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
            self._parameters = validate(self._config_loader["parameters"])
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
