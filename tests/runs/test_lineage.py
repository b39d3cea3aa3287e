"""What Kedro-Viz draws: its layers must have an order, or it shows none of them."""

import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from kedro.config import OmegaConfigLoader

from efficientnet_finetuning.pipeline_registry import register_pipelines

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="module")
def layers() -> dict[re.Pattern, str]:
    """The layer of each entry of the catalog, the entries without a pattern first."""
    catalog = OmegaConfigLoader(str(CONF), base_env="base", default_run_env="base")["catalog"]
    entries = sorted(catalog.items(), key=lambda entry: "{" in entry[0])
    return {
        re.compile(re.sub(r"\\{\w+\\}", r"[\\w.]+", re.escape(name))): entry["metadata"]["kedro-viz"]["layer"]
        for name, entry in entries
        if "metadata" in entry
    }


def test_the_layers_have_an_order(layers):
    def layer_of(name: str) -> str | None:
        return next((layer for pattern, layer in layers.items() if pattern.fullmatch(name)), None)

    before: dict[str, set[str]] = {}
    nodes = {node.name: node for pipeline in register_pipelines().values() for node in pipeline.nodes}
    for node in nodes.values():
        for given in filter(None, map(layer_of, node.inputs)):
            for made in filter(None, map(layer_of, node.outputs)):
                if given != made:
                    before.setdefault(made, set()).add(given)
    order = list(TopologicalSorter(before).static_order())
    assert order == ["intermediate", "primary", "feature", "models", "model output", "reporting"]
