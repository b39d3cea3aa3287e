"""Kedro hooks that check the inputs of a run, choose the device, and print the result."""

import logging
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import click
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol, MemoryDataset
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.data.sources import check_dataset, set_folder
from efficientnet_finetuning.device import prepare_process, select_device
from efficientnet_finetuning.errors import InputError, counted, shorten
from efficientnet_finetuning.evaluation.comparison import format_comparison
from efficientnet_finetuning.io.checkpoints import CheckpointsDataset
from efficientnet_finetuning.io.committed import Committed
from efficientnet_finetuning.io.told import WorkersDataset
from efficientnet_finetuning.parameters import DeviceParameters, Parameters
from efficientnet_finetuning.running.configuration import parameters_of

if TYPE_CHECKING:
    from efficientnet_finetuning.cluster.workers import RayWorkers

logger = logging.getLogger(__name__)

_wrapped = partial(fill, width=110, break_on_hyphens=False)


def is_parameter(dataset_name: str) -> bool:
    """Whether an input of a node is a parameter rather than stored data."""
    return dataset_name == "parameters" or dataset_name.startswith("params:")


class RunHooks:
    """Checks before the first node, and results printed after the last."""

    _workers: "RayWorkers | None" = None

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        self._config_loader = context.config_loader
        self._data = context.project_path / "data"

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        parameters = parameters_of(self._config_loader)
        if {"answers", "to_label"} & pipeline.all_outputs():
            _choose_model(parameters, catalog)
        if "extended_model" in pipeline.all_outputs() and parameters.add_class.path is None:
            raise InputError("add_class.path is not given. Name a folder of photographs: --params add_class.path=…")
        _check_inputs(pipeline, catalog)
        # If versions are stored, the run may need to write nothing, so a read-only disk is allowed.
        for dataset in _kept(pipeline.datasets(), catalog):
            if isinstance(dataset, CheckpointsDataset) or not dataset.is_stored:
                dataset.check_place()
        if parameters.backbone.name == "auto" and "params:backbone" in pipeline.inputs():
            raise InputError(
                "backbone.name and preprocessing.image_size are auto, and no recommendation is stored for this job. "
                "Run the same command with --pipelines choose_backbone first."
            )
        self._device: DeviceParameters | None = parameters.device
        prepare_process(parameters.device)
        if "source" in pipeline.all_outputs():
            check_dataset(parameters.dataset)
        # Report a missing GPU before the run starts. Otherwise Keras is imported only when it is needed.
        if parameters.device.accelerator == "gpu" and any("gpu" in node.tags for node in pipeline.nodes):
            self._say_device()
        self._workers = _open_workers(pipeline, catalog, parameters, self._data)

    @hook_impl
    def before_node_run(self, node: Node, catalog: CatalogProtocol) -> None:
        for dataset in _kept(node.outputs, catalog):
            dataset.check_place()
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
        elif "cross_validation_verdict" in pipeline.all_outputs():
            click.echo(_compared(catalog, "cross_validation_"))
        elif "image_issues" in pipeline.all_outputs():
            click.echo(_reviewed(catalog, self._config_loader["globals"]["job"]))
        if "answers" in pipeline.all_outputs():
            click.echo(_answered(catalog["answers"]))
        if "to_label" in pipeline.all_outputs():
            click.echo(_ranked(catalog["to_label"], catalog["to_label_sheet"]))
        if "extended_model" in pipeline.all_outputs():
            click.echo(_extended(catalog))
        if "audit" in pipeline.outputs():
            click.echo(f"\nAll images, and why some are left out: {catalog['image_findings'].path.resolve()}\n")
        if "bundle" in pipeline.outputs():
            click.echo(f"\nBundle: {catalog['bundle'].path.resolve()}\n")


def _choose_model(parameters: Parameters, catalog: CatalogProtocol) -> None:
    """Use the model file that the user gave in the place of the champion."""
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
    """Start workers on other devices and machines if the parameters and the pipeline ask for them."""
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
    counts = answers.loc[answers["answered"], "class_1"].value_counts()
    told = ", ".join(f"{name} {count:,}" for name, count in counts.head(10).items())
    return f"""
{counted(len(answers), "photograph")}: {answers["answered"].sum():,} answered, {unsure.sum():,} too unsure to answer, \
{unreadable.sum():,} could not be read
{told}

Answers: {dataset.path.resolve()} (and .parquet beside it)
"""


def _ranked(table: Committed, sheet: Committed) -> str:
    return f"""
{len(table.load()):,} photographs are ranked. Labels for the first ones would help most.

Ranking:         {table.path.resolve()}
First pictures:  {sheet.path.resolve()}
"""


def _extended(catalog: CatalogProtocol) -> str:
    extension, model = catalog["extension"].load(), catalog["extended_model"].path.resolve()
    unreadable = [f"{name}: {reason}" for name, reason in extension["unreadable"].items()]
    told = f"\n{len(unreadable)} could not be read: {shorten(unreadable, limit=3)}\n" if unreadable else ""
    return f"""
{_wrapped(extension["words"])}
{told}
Model:  {model}
Use it: kedro run --pipelines predict --params predict.model=<that file>,predict.path=<photographs>
        To recognize more images of the new class and lose more of the others: add_class.max_loss=0.02
"""


def _reviewed(catalog: CatalogProtocol, job: str) -> str:
    words = [catalog["label_review"].load()["words"], " ".join(catalog["more_images"].load()["words"])]
    words += [*catalog["weak_spots"].load()["words"], *catalog["shortcuts"].load()["warnings"]]
    told = "\n".join(_wrapped(sentences) for sentences in words)
    return f"""
{told}

Issues: {catalog["image_issues"].path.resolve()}
Next:   make review JOB={job} (look at the images and correct the labels)
"""


def _compared(catalog: CatalogProtocol, prefix: str = "") -> str:
    words = _wrapped(catalog[f"{prefix}verdict"].load()["words"])
    return f"\n{format_comparison(catalog[f'{prefix}comparison'].load())}\n\n{words}\n"


def _outcome(catalog: CatalogProtocol) -> str:
    """The comparison, the verdict, and where to find the report."""
    return f"""{_compared(catalog)}
Report: {catalog["report"].path.resolve()}
Next:   make viz (the pipeline with its figures), make mlflow (all runs)
"""


def _kept(names: Iterable[str], catalog: CatalogProtocol) -> list[Committed | CheckpointsDataset]:
    return [found for name in names if isinstance(found := catalog.get(name), Committed | CheckpointsDataset)]


def _check_inputs(pipeline: Pipeline, catalog: CatalogProtocol) -> None:
    """Stop a run whose inputs are missing or damaged, or whose parameters are missing."""
    known = set(catalog)
    if absent := sorted(name for name in pipeline.inputs() if name.startswith("params:") and name not in known):
        raise InputError(f"This environment lacks {', '.join(absent)}. For seed_parity, add --env seed_recipe.")
    inputs = {name: catalog.get(name) for name in sorted(pipeline.inputs()) if not is_parameter(name)}
    for dataset in inputs.values():
        if isinstance(dataset, Committed) and dataset.is_stored and (damage := dataset.find_damage()):
            raise InputError(f"{damage}. Run the command without --from-nodes, --nodes or --tags to make it again.")
    if missing := [name for name, dataset in inputs.items() if dataset is None or not dataset.exists()]:
        raise InputError(
            f"This run needs {', '.join(missing)}, but this job has not stored it, or not in this version. First run "
            "`kedro run`, or the command without --from-nodes, --nodes or --tags. To use what another job has stored, "
            "give its environment, such as --env folder."
        )
