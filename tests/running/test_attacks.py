"""What a run finds in the place of its own files: it is refused before the first node, or made anew."""

import json
import os

import pytest
from kedro.io import DataCatalog, MemoryDataset, Version
from kedro.pipeline import Pipeline, node

from efficientnet_finetuning.io.committed import JSONDataset
from efficientnet_finetuning.running.incremental import IncrementalRunner, plan
from efficientnet_finetuning.running.prune import prune
from efficientnet_finetuning.running.session import own_version
from efficientnet_finetuning.storage import digest
from efficientnet_finetuning.training.checkpoint import Checkpoints

NAME = "audit.json"


# Any function of the package will do, and this one is light.
PIPELINE = Pipeline([node(digest, "params:seed", "audit", name="measure")])


def catalog(folder, day: int) -> DataCatalog:
    version = Version(None, f"2026-01-0{day}T00.00.00.000Z")
    return DataCatalog(
        {"params:seed": MemoryDataset(1), "audit": JSONDataset(filepath=str(folder / NAME), version=version)}
    )


def run(folder, day: int) -> str:
    """Run as the command line does; why the node was run, or which version was used."""
    datasets = catalog(folder, day)
    (step,) = plan(PIPELINE, datasets)
    IncrementalRunner().run(PIPELINE, catalog(folder, day))
    return step.version or step.reason or "nothing was stored"


@pytest.mark.parametrize(
    "recipe",
    [None, 5, [], {}, "recipe", {"key": "k"}, {"key": 5, "parameters": {}}, {"parameters": {"seed": 1}, "versions": 5}],
    ids=str,
)
def test_a_version_whose_recipe_has_another_shape_is_made_anew_and_then_used(tmp_path, recipe):
    run(tmp_path, 1)
    file = tmp_path / NAME / "2026-01-01T00.00.00.000Z" / "commit.json"
    record = json.loads(file.read_text()) | {"recipe": recipe}
    del record["digest"]
    file.write_text(json.dumps(record | {"digest": digest(record)}))
    assert not run(tmp_path, 2).startswith("2026")
    assert run(tmp_path, 3) == "2026-01-02T00.00.00.000Z"


@pytest.mark.parametrize("text", ["{}", "[]", "5", '{"digest": ""}', "", "[" * 100_000], ids=lambda text: text[:3])
def test_a_version_whose_commit_file_says_something_else_is_made_anew_and_then_used(tmp_path, text):
    run(tmp_path, 1)
    (tmp_path / NAME / "2026-01-01T00.00.00.000Z" / "commit.json").write_text(text)
    assert run(tmp_path, 2) == "its stored result is damaged"
    assert run(tmp_path, 3) == "2026-01-02T00.00.00.000Z"


@pytest.mark.parametrize("stray", ["a file", "an empty folder", "a copy by hand"])
def test_what_lies_among_the_versions_makes_nothing_anew(tmp_path, stray):
    run(tmp_path, 1)
    if stray == "a file":
        (tmp_path / NAME / "notes.txt").write_text("a note")
    elif stray == "an empty folder":
        (tmp_path / NAME / "2026-01-02T00.00.00.000Z").mkdir()
    else:
        (tmp_path / NAME / "backup").mkdir()
        (tmp_path / NAME / "backup" / NAME).write_text('"another"')
    assert run(tmp_path, 3) == "2026-01-01T00.00.00.000Z"
    assert catalog(tmp_path, 4)["audit"].load() == digest(1)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * 10_000, b"\0"])
def test_a_last_version_that_says_anything_is_written_anew(tmp_path, content):
    (tmp_path / ".last_version").write_bytes(content)
    assert own_version(tmp_path) == (tmp_path / ".last_version").read_text()


@pytest.mark.parametrize("kind", ["folder", "loop", "pipe"])
def test_a_last_version_that_cannot_be_written_is_no_reason_to_stop(tmp_path, kind):
    file = tmp_path / ".last_version"
    if kind == "folder":
        file.mkdir()
    elif kind == "loop":
        file.symlink_to(file)
    else:
        os.mkfifo(file)
    assert own_version(tmp_path).startswith("20")


def test_prune_leaves_checkpoints_alone_that_a_run_holds_and_strays_too(tmp_path):
    recipes = tmp_path / "06_models" / "job" / "finetune_checkpoints"
    held = Checkpoints(recipes / "a")
    (recipes / "b").mkdir()
    (recipes / "c").mkdir()
    os.utime(recipes / "a", (0, 0))
    (recipes / "notes.txt").write_text("a note")
    (recipes / "loop").symlink_to("loop")
    prune(tmp_path, keep_versions=1)
    assert {"a", "notes.txt"} <= {path.name for path in recipes.iterdir()}
    assert not (recipes / "b").exists()
    held.remove()
