"""Published folders: what their records hold, which version is used, and what counts as damage."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.storage import (
    COMMIT_FILE,
    check_free_space,
    checksum,
    commit,
    digest,
    find_damage,
    make_folder,
    note_use,
    read_commit,
    remove,
    time_of,
    versions,
    versions_made_by,
)

FIRST, SECOND, THIRD = (f"2026-01-0{day}T00.00.00.000Z" for day in (1, 2, 3))


@pytest.fixture
def dataset(tmp_path) -> Path:
    return tmp_path / "layer" / "job" / "model"


def publish(dataset: Path, version: str, key: str = "k") -> Path:
    staged = dataset.parents[2] / "staged"
    (staged / dataset.name / "inner").mkdir(parents=True)
    (staged / dataset.name / "inner" / "é.txt").write_text(f"of {version}")
    commit(staged, dataset / version, {"recipe": {"key": key}, "node": "é"})
    return dataset / version


def test_a_published_folder_has_its_record_with_the_hash_of_each_file(dataset):
    folder = publish(dataset, FIRST)
    record = read_commit(folder)
    assert record is not None
    assert record["files"] == {"model/inner/é.txt": checksum(folder / "model" / "inner" / "é.txt")}
    assert (record["recipe"], record["node"]) == ({"key": "k"}, "é")
    assert "é" in (folder / COMMIT_FILE).read_text(encoding="utf-8"), "people read it, too"
    assert find_damage(folder, record) == ""


def test_a_file_that_has_changed_or_is_gone_is_named(dataset):
    folder = publish(dataset, FIRST)
    record, file = read_commit(folder), folder / "model" / "inner" / "é.txt"
    assert record is not None
    file.write_text("changed")
    assert find_damage(folder, record) == f"{file} has changed since it was written (its SHA-256 differs)"
    file.unlink()
    assert find_damage(folder, record) == f"{file} is missing"


def test_a_digest_is_that_of_the_value_whatever_its_order():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1, "b": [2]}) != digest({"a": 1, "b": [3]})


@pytest.mark.parametrize("versions_of_inputs", [{"manifest": 3}, {"manifest": ["x"]}])
def test_a_record_whose_versions_are_no_text_is_damaged(dataset, versions_of_inputs):
    staged = dataset.parents[2] / "staged"
    staged.mkdir(parents=True)
    commit(staged, dataset / FIRST, {"recipe": {"versions": versions_of_inputs}})
    assert read_commit(dataset / FIRST) is None


def test_the_version_that_was_made_or_used_last_comes_first(dataset):
    for version in (FIRST, SECOND):
        publish(dataset, version)
    (dataset / "copy").mkdir()
    (dataset / "copy" / "model").mkdir()
    (dataset / "unfinished").mkdir()
    assert versions(dataset) == [SECOND, FIRST, "copy"]
    note_use(dataset, FIRST, "2026-02-01T00.00.00.000Z")
    assert versions(dataset) == [FIRST, SECOND, "copy"]
    note_use(dataset, FIRST, "2026-01-31T00.00.00.000Z")
    assert (dataset / ".used").read_text().count("\n") == 1, "it is the first already"
    note_use(dataset, SECOND, "2026-02-02T00.00.00.000Z")
    with (dataset / ".used").open("a") as file:
        file.write(f"{SECOND} 2026-01-15T00.00.00.000Z\ngone 2026-03-01T00.00.00.000Z\n{FIRST}\n")
    assert versions(dataset) == [SECOND, FIRST, "copy"], "the last use counts, not the last line"
    publish(dataset, "2026-03-01T00.00.00.000Z")
    assert versions(dataset)[0] == "2026-03-01T00.00.00.000Z"


def test_versions_are_found_by_the_key_of_their_recipe_and_by_nothing_else(dataset):
    publish(dataset, FIRST, "wanted")
    publish(dataset, SECOND, "another")
    shutil.rmtree(publish(dataset, THIRD, "wanted") / "model")
    without_record = publish(dataset, "2026-01-04T00.00.00.000Z", "wanted")
    (without_record / COMMIT_FILE).unlink()
    assert versions_made_by(dataset, "wanted") == [FIRST]
    damaged = (dataset / FIRST / COMMIT_FILE).read_text().replace("of ", "").replace('"node"', '"made"')
    (dataset / FIRST / COMMIT_FILE).write_text(damaged)
    assert versions_made_by(dataset, "wanted") == [], "its record is damaged"


def test_the_time_of_a_version_is_in_utc_and_other_names_have_none():
    assert time_of("2026-11-09T20.05.06.789Z") == datetime(2026, 11, 9, 20, 5, 6, 789000, tzinfo=UTC)
    assert time_of("a copy") is None


def test_a_folder_is_made_with_its_parents_even_if_it_is_there(tmp_path):
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "a" / "b" / "file").write_text("")
    remove(tmp_path / "a")
    remove(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_disk_without_room_is_named_with_what_is_needed(tmp_path):
    check_free_space(tmp_path / "not" / "there", 1, "Training")
    with pytest.raises(InputError, match=r"^Training needs 1,000,000,000,000 MB in .*there, but only"):
        check_free_space(tmp_path / "not" / "there", 10**18, "Training")
