"""Run only the nodes whose stored outputs are out of date, and say why they are.

Each stored version is kept with its recipe: everything that the result depends on. A recipe holds the content of the
inputs, the validated parameters, the code that the node's function calls, the versions of the libraries that compute,
and the files that parameters name.
"""

import logging
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kedro.framework.project import pipelines
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from kedro.runner import SequentialRunner, Task
from pluggy import PluginManager
from pydantic import BaseModel

from efficientnet_finetuning.bundle.photographs import fingerprint as fingerprint_of_photographs
from efficientnet_finetuning.bundle.receipt import commit_of
from efficientnet_finetuning.bundle.stored import descent, folders_of
from efficientnet_finetuning.data.sources import fingerprint
from efficientnet_finetuning.device import cpu_name, device_name, peak_memory, reset_peak_memory
from efficientnet_finetuning.errors import shorten
from efficientnet_finetuning.evaluation.change import changed_images
from efficientnet_finetuning.io.checkpoints import CheckpointsDataset
from efficientnet_finetuning.io.committed import Committed, CSVDataset
from efficientnet_finetuning.io.kedro_internals import is_async
from efficientnet_finetuning.io.told import BeforeDataset, CostsDataset, LineageDataset, RunDataset
from efficientnet_finetuning.parameters import (
    AddClassParameters,
    BackboneParameters,
    DatasetParameters,
    PredictParameters,
)
from efficientnet_finetuning.running.display import Display
from efficientnet_finetuning.running.source_hashes import libraries_of, sources_of
from efficientnet_finetuning.storage import checksum, digest, recipe_of_version

logger = logging.getLogger(__name__)

Recipe = dict[str, Any]

_NO_RECIPE: Recipe = {"parameters": {}, "inputs": {}, "files": {}, "code": {}, "libraries": {}, "versions": {}}
_OF_THE_LINEAGE = ("version", "content", "parameters")


@dataclass
class Step:
    """A node of a run, and whether its stored outputs can be used.

    Attributes:
        number: position in the pipeline, from 1.
        recipe: the recipe of a new result; empty while an input may still change.
        reason: why the stored outputs are out of date; empty if they are up to date or if none are stored.
        version: the stored version that is up to date, or empty.
        seconds: duration of the last execution, or ``None``.
    """

    node: Node
    number: int
    recipe: Recipe = field(default_factory=dict)
    reason: str = ""
    version: str = ""
    seconds: float | None = None

    def judge(self, catalog: CatalogProtocol, forced: bool) -> None:
        """Find an up-to-date stored version and select it in the catalog, or set the reason why there is none.

        With ``forced``, the node runs in any case.
        """
        self.recipe = recipe_of(self.node, catalog)
        for checkpoints in _checkpoints(self.node, catalog):
            checkpoints.key = self.recipe["key"]
        if forced:
            self.reason = "you selected it"
            return
        outputs = [dataset for name in self.node.outputs if isinstance(dataset := catalog[name], Committed)]
        # A version from --load-versions is used, whatever its recipe.
        free = [dataset for dataset in outputs if not dataset.is_pinned]
        self.version, damaged = _sound_version(free, self.recipe["key"])
        for fault in dict.fromkeys(damaged):
            use = "the run uses an older version" if self.version else "it is made again"
            logger.warning("%s, so %s.", fault, use)
        for dataset in free if self.version else ():
            dataset.use(self.version)
        if len(outputs) == len(self.node.outputs) and not free:
            self.version = "pinned"
        if not self.version:
            self.reason = "its stored result is damaged" if damaged else why_stale(self.node, catalog, self.recipe)


def _sound_version(outputs: Sequence[Committed], key: str) -> tuple[str, list[str]]:
    """The last used undamaged version that all outputs have with this recipe, or empty; and the damage of others."""
    versions = [dataset.made_by(key) for dataset in outputs]
    damaged: list[str] = []
    for version in (name for name in (versions or [[]])[0] if all(name in others for others in versions)):
        damage = next((fault for dataset in outputs if (fault := dataset.of(version).find_damage())), "")
        if not damage:
            return version, damaged
        damaged.append(damage)
    return "", damaged + [fault for dataset in outputs if dataset.is_stored and (fault := dataset.find_damage())]


class IncrementalRunner(SequentialRunner):
    """Kedro's sequential runner, which skips nodes whose stored outputs are up to date.

    A node is checked before the run starts if no node before it must run. Otherwise it is checked when its turn comes.
    If a recomputed input has the same content as before, the node is skipped as well.
    """

    def __init__(self, *, forced: bool = False, is_async: bool = False, display: Display | None = None) -> None:
        """Create a runner. ``forced`` runs all selected nodes; ``is_async`` loads and saves in threads."""
        super().__init__(is_async=is_async)
        self._forced = forced
        self._display = display or Display()

    def __repr__(self) -> str:
        # Kedro-Viz stores node times only for runners with this representation.
        return "<kedro.runner.sequential_runner.SequentialRunner object, incremental>"

    def _run(
        self,
        pipeline: Pipeline,
        catalog: CatalogProtocol,
        hook_manager: PluginManager | None = None,
        run_id: str | None = None,
    ) -> None:
        steps = plan(pipeline, catalog, self._forced)
        with self._display.of(steps):
            for step in steps:
                if not step.recipe:
                    step.judge(catalog, self._forced)
                with self._display.during(step):
                    if not step.version:
                        _tell_of_the_run(step.node, catalog)
                        _tell_outputs(step.node, catalog, step.recipe)
                        Task(step.node, catalog, is_async(self), hook_manager, run_id).execute()
                _give_up_checkpoints(step.node, catalog, was_made=not step.version)


def plan(pipeline: Pipeline, catalog: CatalogProtocol, forced: bool = False) -> list[Step]:
    """The nodes in execution order. A node is checked here if none of its inputs is recomputed."""
    steps, changing = [], set[str]()
    for number, node in enumerate(pipeline.nodes, 1):
        step = Step(node, number)
        if not changing.intersection(node.inputs):
            step.judge(catalog, forced)
        if not step.version:
            changing.update(node.outputs)
            step.seconds = next((cost["seconds"] for cost in _costs_of(node, catalog)), None)
        steps.append(step)
    return steps


def _tell_outputs(node: Node, catalog: CatalogProtocol, recipe: Recipe) -> None:
    cost = _meter(node)
    for name in node.outputs:
        if isinstance(dataset := catalog[name], Committed):
            dataset.recipe, dataset.cost = recipe, cost


def _meter(node: Node) -> Callable[[], dict[str, Any]]:
    """Start measuring the cost of a node, including the time to load its inputs and to store its outputs."""
    reset_peak_memory()
    began = time.monotonic()

    def read() -> dict[str, Any]:
        device = device_name() if "gpu" in node.tags else cpu_name()
        return {"seconds": time.monotonic() - began, "peak_memory_gb": peak_memory() / 1e9, "device": device}

    return read


def _tell_of_the_run(node: Node, catalog: CatalogProtocol) -> None:
    for name in node.inputs:
        if isinstance(dataset := catalog[name], CostsDataset):
            dataset.value = dict(_costs(catalog))
        elif isinstance(dataset, LineageDataset):
            stored = {each: of for each in node.inputs if isinstance(of := catalog[each], Committed)}
            lineage = _lineage(stored).items()
            dataset.value = {each: {key: record[key] for key in _OF_THE_LINEAGE} for each, record in lineage}
        elif isinstance(dataset, BeforeDataset):
            dataset.value = dict(_before(node.inputs, catalog))
        elif isinstance(dataset, RunDataset):
            dataset.value = _about_run(catalog[node.outputs[0]])


def _about_run(output: Committed) -> dict[str, Any]:
    command = f"{Path(sys.argv[0]).name} {shlex.join(sys.argv[1:])}"
    # The address of a server may hold a password.
    command = re.sub(r"://[^/\s]*@", "://…@", command)
    return {"command": command, "version": output.resolve_save_version(), "commit": commit_of(Path.cwd())}


def _before(names: Iterable[str], catalog: CatalogProtocol) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in names:
        if isinstance(dataset := catalog[name], CSVDataset) and (older := dataset.before()):
            was, now = (_lineage({name: each}) for each in (older, dataset))
            yield name, {"table": older.load(), "differences": list(_lineage_differences(was, now, catalog))}


def _lineage_differences(was: Mapping[str, Any], now: Mapping[str, Any], catalog: CatalogProtocol) -> Iterator[str]:
    """Causes of a difference between two lineages, as far as the stored data still shows them."""
    both = [name for name in was.keys() & now.keys() if was[name]["code"] and now[name]["code"]]
    if "manifest" in both:
        manifests = [catalog["manifest"].of(lineage["manifest"]["version"]) for lineage in (was, now)]
        if not any(manifest.find_damage() for manifest in manifests):
            yield from changed_images(*(manifest.load() for manifest in manifests))
    was_made, is_made = (
        {part: {k: v for name in both for k, v in lineage[name][part].items()} for part in _NO_RECIPE} | {"inputs": {}}
        for lineage in (was, now)
    )
    yield from _differences(was_made, is_made, catalog)


def _lineage(stored: Mapping[str, Committed]) -> dict[str, dict[str, Any]]:
    """``version``, ``content`` and recipe of all ancestors of some datasets, in the versions that were recorded."""
    jobs = {dataset.folder.parent.parent for dataset in stored.values()}  # data/<layer>/<job>/<dataset>/<version>
    folders = {name: path for job in jobs for name, path in folders_of(job.parents[1], job.name).items()}
    wanted = [(name, str(dataset.resolve_load_version())) for name, dataset in stored.items()]
    found: dict[str, dict[str, Any]] = {}
    for name, version, record in descent(folders, wanted):
        content = record.get("content") or digest(record.get("files"))
        found.setdefault(name, _NO_RECIPE | (record.get("recipe") or {}) | {"version": version, "content": content})
    return found


def _costs(catalog: CatalogProtocol) -> Iterator[tuple[str, dict[str, Any]]]:
    """Costs of all nodes of the project, because stored inputs of this run had a cost too."""
    for node in {node.name: node for pipeline in pipelines.values() for node in pipeline.nodes}.values():
        if costs := _costs_of(node, catalog):
            yield node.name, max(costs, key=lambda cost: cost["seconds"])  # of the output that was stored last


def _costs_of(node: Node, catalog: CatalogProtocol) -> list[dict[str, Any]]:
    stored = (dataset for name in node.outputs if isinstance(dataset := catalog[name], Committed))
    return [cost for dataset in stored if (record := dataset.commit_record()) and (cost := record.get("cost"))]


def _give_up_checkpoints(node: Node, catalog: CatalogProtocol, was_made: bool) -> None:
    """Delete checkpoints once the outputs are stored, including those that an interrupted run left behind."""
    if not was_made and any(
        isinstance(output := catalog[name], Committed) and output.is_pinned for name in node.outputs
    ):
        return  # the pinned version may be unrelated to these checkpoints
    for dataset in _checkpoints(node, catalog):
        dataset.remove()


def _checkpoints(node: Node, catalog: CatalogProtocol) -> Iterator[CheckpointsDataset]:
    for name in node.inputs:
        if isinstance(dataset := catalog[name], CheckpointsDataset):
            yield dataset


def recipe_of(node: Node, catalog: CatalogProtocol) -> Recipe:
    """Everything that the outputs of a node depend on, as JSON.

    Returns:
        ``parameters``, ``inputs`` (hashes of their content), ``files``, ``code`` and ``libraries``; ``key``, a hash of
        these; and ``versions`` of the inputs, for messages only.
    """
    datasets = {name: catalog[name] for name in node.inputs}
    given = {name: dataset.load() for name, dataset in datasets.items() if name.startswith("params:")}
    stored = {name: dataset for name, dataset in datasets.items() if isinstance(dataset, Committed)}
    plain = {name.removeprefix("params:"): value for name, value in given.items()}
    recipe = {
        "parameters": dict(sorted(leaf for item in plain.items() for leaf in _parameters(*item))),
        "inputs": {name: dataset.content() for name, dataset in stored.items()},
        "files": dict(_files(given)),
        "code": sources_of(node.func),
        "libraries": libraries_of(node.func),
    }
    # Ignore null values, so that a new parameter with the default null keeps stored results valid.
    told = {part: {name: value for name, value in of.items() if value is not None} for part, of in recipe.items()}
    versions = {name: dataset.resolve_load_version() for name, dataset in stored.items()}
    return recipe | {"key": digest(told), "versions": versions}


def _parameters(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, BaseModel):  # parameters marked with exclude=True do not change the result
        value = value.model_dump(mode="json")
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _parameters(f"{name}.{key}", inner)
    else:
        yield name, str(value) if isinstance(value, Path) else value


def _files(given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    corrections = given.get("params:dataset.corrections")
    if corrections and (file := Path(corrections).expanduser()).is_file():
        yield "corrections", checksum(file)
    for group in given.values():
        if isinstance(group, DatasetParameters):
            yield "raw images", fingerprint(group)
        if isinstance(group, BackboneParameters) and Path(group.weights).is_file():
            yield "backbone weights", checksum(Path(group.weights))
        if isinstance(group, PredictParameters | AddClassParameters) and group.path:
            yield "photographs", fingerprint_of_photographs(group.path)
        if isinstance(group, PredictParameters) and group.model_file:
            yield "model", checksum(group.model_file)


def why_stale(node: Node, catalog: CatalogProtocol, recipe: Recipe) -> str:
    """Why the last stored outputs of a node are out of date; empty if none are stored."""
    for name in node.outputs:
        dataset = catalog[name]
        if not isinstance(dataset, Committed):
            return f"{name} is not stored"
        if dataset.is_pinned or not dataset.is_stored:
            continue
        before = recipe_of_version(dataset.folder)
        if before and (reasons := list(_differences(before, recipe, catalog))):
            return shorten(reasons, limit=3)
    return ""


def _differences(before: Recipe, now: Recipe, catalog: CatalogProtocol) -> Iterator[str]:
    for name, was, is_ in _changed(before["parameters"], now["parameters"]):
        yield f"{name} {was} → {is_}"
    for name, was, is_ in _changed(before["inputs"], now["inputs"]):
        if was and is_:
            yield f"{name} changed{_lines_changed(name, before['versions'].get(name), catalog)}"
        else:
            yield f"{name} is {'a new' if is_ else 'no longer an'} input"
    for name, _, _ in _changed(before["files"], now["files"]):
        yield f"{name} changed"
    for name, _, _ in _changed(before["code"], now["code"]):
        yield f"code of {name} changed"
    for name, was, is_ in _changed(before["libraries"], now["libraries"]):
        yield f"{name} {was} → {is_}"


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            yield name, before.get(name), now.get(name)


def _lines_changed(name: str, version: str | None, catalog: CatalogProtocol) -> str:
    """How many rows of a CSV table were added and removed, if both versions still exist."""
    dataset = catalog[name]
    if not isinstance(dataset, Committed) or version is None:
        return ""
    now = dataset.path
    before = now.parents[1] / version / now.name
    if now.suffix != ".csv" or not before.is_file():
        return ""
    old, new = (set(path.read_text(encoding="utf-8").splitlines()) for path in (before, now))
    return f": {len(new - old):,} rows added, {len(old - new):,} removed"
