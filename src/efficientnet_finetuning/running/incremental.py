"""Running only what is stale, and saying why: every stored version knows the recipe that it was made by.

A recipe is all that a node's result depends on: the content of its inputs, its validated parameters, the code that is
reached from its function, the versions of the libraries that compute, and the files that parameters point to.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from efficientnet_finetuning.data.sources import fingerprint
from efficientnet_finetuning.device import cpu_name, device_name, peak_memory, reset_peak_memory
from efficientnet_finetuning.errors import shorten
from efficientnet_finetuning.io.checkpoints import CheckpointsDataset
from efficientnet_finetuning.io.committed import Committed, CSVDataset
from efficientnet_finetuning.io.told import BeforeDataset, CostsDataset, LineageDataset
from efficientnet_finetuning.parameters import (
    AddClassParameters,
    BackboneParameters,
    DatasetParameters,
    PredictParameters,
)
from efficientnet_finetuning.running.source_hashes import libraries_of, sources_of
from efficientnet_finetuning.storage import checksum, digest, read_commit

logger = logging.getLogger(__name__)

Recipe = dict[str, Any]


class IncrementalRunner(SequentialRunner):
    """Kedro's sequential runner that leaves out the nodes whose stored outputs are what it would make.

    Each node is judged when its turn comes, by the content of its inputs: where an input was made anew and came out
    as before, what follows from it is still fresh.
    """

    def __init__(self, *, forced: bool = False, is_async: bool = False) -> None:
        """Set up a run.

        Args:
            forced: run every node that was asked for, fresh or not.
            is_async: load and save in threads.
        """
        super().__init__(is_async=is_async)
        self._forced = forced

    def __repr__(self) -> str:
        # Kedro-Viz keeps the times of nodes for runs whose runner calls itself so.
        return "<kedro.runner.sequential_runner.SequentialRunner object, incremental>"

    def _run(
        self,
        pipeline: Pipeline,
        catalog: CatalogProtocol,
        hook_manager: PluginManager | None = None,
        run_id: str | None = None,
    ) -> None:
        for node in pipeline.nodes:
            recipe = recipe_of(node, catalog)
            _tell_checkpoints(node, catalog, recipe)
            if reason := "it was asked for" if self._forced else why_stale(node, catalog, recipe):
                logger.info("stale  %s: %s", node.name, reason)
                _tell_of_the_run(node, catalog)
                _tell_outputs(node, catalog, recipe)
                Task(node, catalog, self._is_async, hook_manager, run_id).execute()
            else:
                logger.info("fresh  %s", node.name)
            _give_up_checkpoints(node, catalog, was_made=bool(reason))


def _tell_checkpoints(node: Node, catalog: CatalogProtocol, recipe: Recipe) -> None:
    for dataset in _checkpoints(node, catalog):
        # What an input was called when it was stored changes nothing that is learnt from it.
        dataset.key = digest({part: recipe[part] for part in ("parameters", "inputs", "files", "code", "libraries")})


def _tell_outputs(node: Node, catalog: CatalogProtocol, recipe: Recipe) -> None:
    cost = _meter(node)
    for name in node.outputs:
        if isinstance(dataset := catalog[name], Committed):
            dataset.recipe, dataset.cost = recipe, cost


def _meter(node: Node) -> Callable[[], dict[str, Any]]:
    """What a node has cost since now, its inputs' loading and its outputs' storing included."""
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
            dataset.value = _lineage(node.inputs, catalog)
        elif isinstance(dataset, BeforeDataset):
            dataset.value = dict(_before(node.inputs, catalog))


def _before(names: Iterable[str], catalog: CatalogProtocol) -> Iterator[tuple[str, Any]]:
    for name in names:
        if isinstance(dataset := catalog[name], CSVDataset) and (older := dataset.before()):
            yield name, older.load()


def _lineage(names: Iterable[str], catalog: CatalogProtocol) -> dict[str, dict[str, Any]]:
    """All that stored datasets descend from, in the versions that their records name."""
    found: dict[str, dict[str, Any]] = {}
    wanted = [
        (name, dataset.resolve_load_version()) for name in names if isinstance(dataset := catalog[name], Committed)
    ]
    while wanted:
        name, version = wanted.pop()
        dataset = catalog[name]
        if name in found or not isinstance(dataset, Committed):
            continue
        record = read_commit(dataset.folder.parent / str(version)) or {}
        recipe = record.get("recipe") or {"parameters": {}, "versions": {}}
        content = record.get("content") or digest(record.get("files"))
        found[name] = {"version": version, "content": content, "parameters": recipe["parameters"]}
        wanted += recipe["versions"].items()
    return found


def _costs(catalog: CatalogProtocol) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of all nodes that there are, since what this run starts from has cost something, too."""
    for node in {node.name: node for pipeline in pipelines.values() for node in pipeline.nodes}.values():
        stored = (dataset for name in node.outputs if isinstance(dataset := catalog[name], Committed))
        costs = [record["cost"] for dataset in stored if (record := dataset.commit_record()) and record.get("cost")]
        if costs:
            yield node.name, max(costs, key=lambda cost: cost["seconds"])  # that of the output stored last


def _give_up_checkpoints(node: Node, catalog: CatalogProtocol, was_made: bool) -> None:
    """Once the outputs are stored, also those that a run left that was killed just then."""
    if not was_made and any(
        isinstance(output := catalog[name], Committed) and output.is_pinned for name in node.outputs
    ):
        return  # whatever is to be used, it need not be what these checkpoints lead to
    for dataset in _checkpoints(node, catalog):
        dataset.remove()


def _checkpoints(node: Node, catalog: CatalogProtocol) -> Iterator[CheckpointsDataset]:
    for name in node.inputs:
        if isinstance(dataset := catalog[name], CheckpointsDataset):
            yield dataset


def recipe_of(node: Node, catalog: CatalogProtocol) -> Recipe:
    """All that a node's outputs depend on, as JSON; ``versions`` says which versions its inputs were, for people."""
    datasets = {name: catalog[name] for name in node.inputs}
    given = {name: dataset.load() for name, dataset in datasets.items() if name.startswith("params:")}
    stored = {name: dataset for name, dataset in datasets.items() if isinstance(dataset, Committed)}
    return {
        "parameters": dict(sorted(_parameters(given))),
        "inputs": {name: dataset.content() for name, dataset in stored.items()},
        "files": dict(_files(given)),
        "code": sources_of(node.func),
        "libraries": libraries_of(node.func),
        "versions": {name: dataset.resolve_load_version() for name, dataset in stored.items()},
    }


def _parameters(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in given.items():
        plain = name.removeprefix("params:")
        # What is marked as excluded changes how a result is reached, not the result.
        yield from _leaves(plain, value.model_dump(mode="json") if isinstance(value, BaseModel) else value)


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}", inner)
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
    """Why a node's stored outputs are not what it would make now; empty where they are."""
    for name in node.outputs:
        dataset = catalog[name]
        if not isinstance(dataset, Committed):
            return f"{name} is not kept"
        if dataset.is_pinned:
            continue  # --load-versions names what is to be used
        if dataset.list_versions() and (damage := dataset.find_damage()):
            return damage
        record = dataset.commit_record()
        if record is None or record["recipe"] is None:
            return f"{name} is not stored yet"
        if reasons := list(_differences(record["recipe"], recipe, catalog)):
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
    """How many rows of a table came and went, where both versions are still there."""
    dataset = catalog[name]
    if not isinstance(dataset, Committed) or version is None:
        return ""
    now = dataset.path
    before = now.parents[1] / version / now.name
    if now.suffix != ".csv" or not before.is_file():
        return ""
    old, new = (set(path.read_text(encoding="utf-8").splitlines()) for path in (before, now))
    return f": {len(new - old):,} rows added, {len(old - new):,} removed"
