"""What lies among the stored versions and was not written by a run: it is passed over, called damaged, or refused."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kedro.io import Version

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.io.checkpoints import CheckpointsDataset
from efficientnet_finetuning.io.committed import JSONDataset
from efficientnet_finetuning.storage import digest, find_damage, read_commit, recipe_of_version
from efficientnet_finetuning.training.checkpoint import Checkpoints

ATTACK = settings(max_examples=50, deadline=None, derandomize=True, database=None)
DAY = "2026-01-0{}T00.00.00.000Z"
RECIPE = {part: {} for part in ("parameters", "inputs", "files", "code", "libraries", "versions")} | {"key": "k"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*RECIPE, "seconds"]), inner),
    max_leaves=5,
)


def dataset(folder: Path, save: str | None = None, load: str | None = None) -> JSONDataset:
    return JSONDataset(filepath=str(folder / "audit.json"), version=Version(load, save))


def write(folder: Path, day: int, content: object = None) -> None:
    written = dataset(folder, DAY.format(day))
    written.recipe = RECIPE
    written.save(content or {"day": day})


def forge(version: Path, **changes: object) -> None:
    """Change what a commit file first said, and its digest with it; ``None`` takes a field out."""
    first = version.with_name(f"{version.name}.first")
    if not first.exists():
        shutil.copy(version / "commit.json", first)
    record = json.loads(first.read_text()) | changes
    record = {name: value for name, value in record.items() if name != "digest" and value is not None}
    (version / "commit.json").write_text(json.dumps(record | {"digest": digest(record)}))


@pytest.fixture(scope="module")
def stored_once(tmp_path_factory) -> Path:
    """A folder with a version, whose commit file the examples of a test change."""
    folder = tmp_path_factory.mktemp("stored")
    write(folder, 1)
    forge(folder / "audit.json" / DAY.format(1))
    return folder


@pytest.fixture(scope="module")
def kept_once(tmp_path_factory) -> Path:
    """A folder with two checkpoints, likewise."""
    folder = tmp_path_factory.mktemp("kept")
    checkpoints = Checkpoints(folder)
    for epoch in (1, 2):
        checkpoints.write(epoch, 0, {"model": [np.ones(2)]}, {"epoch": epoch})
    return folder


def look(folder: Path) -> JSONDataset:
    """All that a run asks of what is stored before it decides; the dataset, to be asked more."""
    stored = dataset(folder)
    if stored.exists():
        stored.load()
    stored.content()
    stored.before()
    stored.made_by("k")
    if record := stored.commit_record():
        recipe, cost = recipe_of_version(stored.folder), record.get("cost")
        assert not recipe or all(isinstance(recipe[part], dict) for part in RECIPE if part != "key")
        assert not cost or isinstance(cost["seconds"], int | float)
    return stored


@ATTACK
@given(content=st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 100_000)
@example(b"1" * 5000)
@example(b"\xff\xfe")
def test_any_bytes_are_no_commit_file_and_the_version_is_damaged(stored_once, content):
    (stored_once / "audit.json" / DAY.format(1) / "commit.json").write_bytes(content)
    stored = look(stored_once)
    assert not stored.exists()
    assert "commit.json has changed since it was written" in stored.find_damage()


@ATTACK
@given(field=st.sampled_from(["recipe", "cost", "files", "content"]), value=JSON)
@example("recipe", {})
@example("recipe", {"parameters": 5})
@example("recipe", {"versions": {"manifest": 5}})
@example("recipe", "recipe")
@example("cost", {})
@example("cost", {"seconds": "1"})
@example("files", {"audit.json": 5})
@example("files", ["audit.json"])
@example("files", None)
def test_any_forged_commit_file_is_a_record_or_none(stored_once, field, value):
    forge(stored_once / "audit.json" / DAY.format(1), **{field: value})
    look(stored_once)


@pytest.mark.parametrize("name", ["backup", ".hidden", "2026-01-09T00.00.00.000Z copy", os.fsdecode(b"caf\xe9")])
@pytest.mark.parametrize("kind", ["file", "empty", "copy", "loop", "pipe"])
def test_what_lies_among_the_versions_is_passed_over(tmp_path, name, kind):
    write(tmp_path, 1)
    stray = tmp_path / "audit.json" / name
    if kind == "file":
        stray.write_text("a note")
    elif kind == "empty":
        stray.mkdir()
    elif kind == "copy":
        (stray / "audit.json").mkdir(parents=True)
    elif kind == "loop":
        stray.symlink_to(name)
    else:
        os.mkfifo(stray)
    if kind == "copy" and name.startswith("2"):
        pytest.skip("whose name begins like a time was meant as a version")
    assert look(tmp_path).load() == {"day": 1}


def test_a_version_that_cannot_be_read_is_damaged(tmp_path):
    write(tmp_path, 1)
    version = tmp_path / "audit.json" / DAY.format(1)
    (version / "audit.json").unlink()
    (version / "audit.json").symlink_to("audit.json")
    record = read_commit(version)
    assert record is not None
    assert find_damage(version, record)


@pytest.mark.parametrize("content", [b"\xff\n", b"x" * 10_000, b"2026-01-01T00.00.00.000Z zzz\n", b"\n \n"])
def test_notes_of_use_that_say_anything_leave_the_versions_alone(tmp_path, content):
    for day in (1, 2):
        write(tmp_path, day)
    (tmp_path / "audit.json" / ".used").write_bytes(content)
    (tmp_path / "audit.json" / "used").write_bytes(content)
    assert look(tmp_path).load()["day"] in (1, 2)


@pytest.mark.parametrize("blocked", ["audit.json", "audit.json/.staging", "."])
def test_a_file_in_the_place_of_a_folder_is_refused_before_anything_is_made(tmp_path, blocked):
    file = tmp_path / "job" / blocked
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("a file")
    with pytest.raises(InputError, match=f"{file.resolve()} is a file.*Move it away"):
        dataset(tmp_path / "job").check_place()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("closed", ["", "audit.json"])
def test_a_folder_without_permission_is_refused_before_anything_is_made(tmp_path, closed):
    write(tmp_path, 1)
    (tmp_path / closed).chmod(0o500)
    try:
        with pytest.raises(InputError, match="You have no permission to write"):
            dataset(tmp_path if closed else tmp_path / "new").check_place()
    finally:
        (tmp_path / closed).chmod(0o700)


def test_a_place_that_is_free_or_holds_versions_is_taken(tmp_path):
    dataset(tmp_path / "job").check_place()
    write(tmp_path / "job", 1)
    dataset(tmp_path / "job").check_place()
    assert [path.name for path in (tmp_path / "job" / "audit.json").iterdir()] == [DAY.format(1)]


def test_a_file_in_the_place_of_checkpoints_is_refused(tmp_path):
    (tmp_path / "train_checkpoints").write_text("a file")
    with pytest.raises(InputError, match="train_checkpoints is a file"):
        CheckpointsDataset(filepath=str(tmp_path / "train_checkpoints")).check_place()


@ATTACK
@given(name=st.sampled_from(["state", "files"]), value=JSON, raw=st.none() | st.binary(max_size=40))
@example("state", None, None)
@example("files", {}, None)
@example("state", {}, b"[" * 100_000)
def test_any_forged_checkpoint_is_passed_over_or_read(kept_once, name, value, raw):
    forge(kept_once / "000002-00000000", **{name: value})
    if raw is not None:
        (kept_once / "000002-00000000" / "commit.json").write_bytes(raw)
    found = Checkpoints(kept_once).newest()
    assert found is not None
    assert found[1] in ({"epoch": 1}, {"epoch": 2}, value)


@pytest.mark.parametrize("name", ["000002-00000000", "partial", "rate", "000009-00000000"])
@pytest.mark.parametrize("kind", ["file", "loop", "empty"])
def test_what_lies_among_checkpoints_and_is_none_is_removed_or_passed_over(tmp_path, name, kind):
    checkpoints = Checkpoints(tmp_path / "key")
    stray = tmp_path / "key" / name
    if kind == "file":
        stray.write_text("a note")
    elif kind == "loop":
        stray.symlink_to(name)
    else:
        stray.mkdir()
    assert checkpoints.newest() is None
    assert checkpoints.decide("rate", lambda: {"rate": 1}) == {"rate": 1}
    for epoch in (1, 2, 3, 4):
        checkpoints.write(epoch, 0, {"model": [np.ones(2)]}, {"epoch": epoch})
    found = checkpoints.newest()
    assert found is not None
    assert found[1] == {"epoch": 4}
    checkpoints.remove()
    assert not (tmp_path / "key").exists()


def test_a_forged_decision_is_made_anew(tmp_path):
    checkpoints = Checkpoints(tmp_path / "key")
    checkpoints.decide("rate", lambda: {"rate": 1})
    forge(tmp_path / "key" / "rate", decided=None)
    assert checkpoints.decide("rate", lambda: {"rate": 2}) == {"rate": 2}
