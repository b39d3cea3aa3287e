"""Running only what is stale, and saying why: every stored version knows the recipe that it was made by.

A recipe is all that a node's result depends on: the content of its inputs, its validated parameters, the code that is
reached from its function, the versions of the libraries that compute, and the files that parameters point to.
"""

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
from efficientnet_finetuning.bundle.stored import descent, folders_of
from efficientnet_finetuning.data.sources import fingerprint
from efficientnet_finetuning.device import cpu_name, device_name, peak_memory, reset_peak_memory
from efficientnet_finetuning.errors import shorten
from efficientnet_finetuning.io.checkpoints import CheckpointsDataset
from efficientnet_finetuning.io.committed import Committed, CSVDataset
from efficientnet_finetuning.io.kedro_internals import is_async
from efficientnet_finetuning.io.told import BeforeDataset, CostsDataset, LineageDataset
from efficientnet_finetuning.parameters import (
    AddClassParameters,
    BackboneParameters,
    DatasetParameters,
    PredictParameters,
)
from efficientnet_finetuning.running.display import Display
from efficientnet_finetuning.running.source_hashes import libraries_of, sources_of
from efficientnet_finetuning.storage import checksum, digest, recipe_of_version

Recipe = dict[str, Any]


@dataclass
class Step:
    """A node, and whether it must run.

    Attributes:
        node: of the pipeline.
        number: its place in the pipeline, from 1.
        recipe: what its outputs would be made by now; empty as long as an input may still change.
        reason: why its stored outputs are not what it would make; empty where they are, or where there are none yet.
        version: the stored version of its outputs that is what it would make.
        seconds: what it took when it ran last; ``None`` where it never has.
    """

    node: Node
    number: int
    recipe: Recipe = field(default_factory=dict)
    reason: str = ""
    version: str = ""
    seconds: float | None = None

    def judge(self, catalog: CatalogProtocol, forced: bool) -> None:
        """Find the version that need not be made again, and let the nodes that follow load it; or say why none will do.

        Args:
            catalog: whose datasets are told which version to load.
            forced: run the node in any case.
        """
        self.recipe = recipe_of(self.node, catalog)
        _tell_checkpoints(self.node, catalog, self.recipe)
        if forced:
            self.reason = "it was asked for"
            return
        outputs = [dataset for name in self.node.outputs if isinstance(dataset := catalog[name], Committed)]
        # What --load-versions names is used, whatever made it.
        free = [dataset for dataset in outputs if not dataset.is_pinned]
        self.version, damage = _sound_version(free, self.recipe["key"])
        for dataset in free if self.version else ():
            dataset.use(self.version)
        if len(outputs) == len(self.node.outputs) and not free:
            self.version = "pinned"
        if not self.version:
            self.reason = damage or why_stale(self.node, catalog, self.recipe)


def _sound_version(outputs: Sequence[Committed], key: str) -> tuple[str, str]:
    """The version of all outputs that was used last of those with this recipe, else what is damaged about one."""
    versions = [dataset.made_by(key) for dataset in outputs]
    damage = ""
    for version in (name for name in (versions or [[]])[0] if all(name in others for others in versions)):
        found = next((fault for dataset in outputs if (fault := dataset.of(version).find_damage())), "")
        if not found:
            return version, ""
        damage = damage or found
    return "", damage


class IncrementalRunner(SequentialRunner):
    """Kedro's sequential runner that leaves out the nodes whose outputs are stored already, in whichever version.

    A node is judged before the first one runs if none of its inputs is to be made anew, else when its turn comes, by
    the content of its inputs. Where an input was made anew and came out as before, the node's stored outputs are used.
    """

    def __init__(self, *, forced: bool = False, is_async: bool = False, display: Display | None = None) -> None:
        """Set up a run.

        Args:
            forced: run every node that was asked for, fresh or not.
            is_async: load and save in threads.
            display: shows the user what happens.
        """
        super().__init__(is_async=is_async)
        self._forced = forced
        self._display = display or Display()

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
    """The nodes in their order, each judged where no input of it is to be made anew."""
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


def _tell_checkpoints(node: Node, catalog: CatalogProtocol, recipe: Recipe) -> None:
    for dataset in _checkpoints(node, catalog):
        dataset.key = recipe["key"]


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
    stored = {name: dataset for name in names if isinstance(dataset := catalog[name], Committed)}
    jobs = {dataset.folder.parent.parent for dataset in stored.values()}  # data/<layer>/<job>/<dataset>/<version>
    folders = {name: path for job in jobs for name, path in folders_of(job.parents[1], job.name).items()}
    wanted = [(name, str(dataset.resolve_load_version())) for name, dataset in stored.items()]
    found: dict[str, dict[str, Any]] = {}
    for name, version, record in descent(folders, wanted):
        content = record.get("content") or digest(record.get("files"))
        parameters = (record.get("recipe") or {}).get("parameters", {})
        found.setdefault(name, {"version": version, "content": content, "parameters": parameters})
    return found


def _costs(catalog: CatalogProtocol) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of all nodes that there are, since what this run starts from has cost something, too."""
    for node in {node.name: node for pipeline in pipelines.values() for node in pipeline.nodes}.values():
        if costs := _costs_of(node, catalog):
            yield node.name, max(costs, key=lambda cost: cost["seconds"])  # that of the output stored last


def _costs_of(node: Node, catalog: CatalogProtocol) -> list[dict[str, Any]]:
    stored = (dataset for name in node.outputs if isinstance(dataset := catalog[name], Committed))
    return [cost for dataset in stored if (record := dataset.commit_record()) and (cost := record.get("cost"))]


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
    """All that a node's outputs depend on, as JSON.

    Returns:
        ``parameters``, ``inputs`` (hashes of their content), ``files``, ``code`` and ``libraries``; ``key``, a hash of
        all these, equal for equal recipes; and ``versions``, those of the inputs, for people.
    """
    datasets = {name: catalog[name] for name in node.inputs}
    given = {name: dataset.load() for name, dataset in datasets.items() if name.startswith("params:")}
    stored = {name: dataset for name, dataset in datasets.items() if isinstance(dataset, Committed)}
    recipe = {
        "parameters": dict(sorted(_parameters(given))),
        "inputs": {name: dataset.content() for name, dataset in stored.items()},
        "files": dict(_files(given)),
        "code": sources_of(node.func),
        "libraries": libraries_of(node.func),
    }
    # A new parameter that is null by default changes nothing.
    told = {part: {name: value for name, value in of.items() if value is not None} for part, of in recipe.items()}
    versions = {name: dataset.resolve_load_version() for name, dataset in stored.items()}
    return recipe | {"key": digest(told), "versions": versions}


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
    """Why what a node has stored last is not what it would make now; empty where it has stored nothing yet."""
    for name in node.outputs:
        dataset = catalog[name]
        if not isinstance(dataset, Committed):
            return f"{name} is not kept"
        if dataset.is_pinned or not dataset.list_versions():
            continue
        if damage := dataset.find_damage():
            return damage
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
