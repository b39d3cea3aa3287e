"""Fails first, and clearly, where a new Kedro has changed what `io/kedro_internals.py` uses."""

from inspect import signature, unwrap

import pytest
from kedro.framework.session import KedroSession
from kedro.io import AbstractVersionedDataset, Version
from kedro.runner import AbstractRunner, SequentialRunner
from kedro_datasets.json import JSONDataset

from efficientnet_finetuning.io.kedro_internals import is_async, load_version, save_without_looking, set_load_version


def dataset(folder, save_version: str) -> JSONDataset:
    return JSONDataset(filepath=(folder / "set.json").as_posix(), version=Version(None, save_version))


def test_kedro_wraps_save_methods_and_the_plain_one_can_be_called(tmp_path):
    assert unwrap(JSONDataset.save) is not JSONDataset.save, "Kedro no longer wraps save()"
    made = dataset(tmp_path, "1")
    save_without_looking(JSONDataset.save, made, {"a": 1})
    assert (tmp_path / "set.json" / "1" / "set.json").is_file()


def test_kedro_keeps_the_version_that_it_loads_in_an_attribute(tmp_path):
    for version in ("1", "2"):
        dataset(tmp_path, version).save({"version": version})
    found = dataset(tmp_path, "3")
    assert load_version(found) is None, "Kedro caches versions elsewhere"
    assert found.load() == {"version": "2"}
    assert load_version(found) == "2"
    set_load_version(found, "1")
    assert found.load() == {"version": "1"}, "Kedro no longer believes its cache"


@pytest.mark.parametrize("asynchronous", [True, False])
def test_kedro_runners_say_whether_they_work_in_threads(asynchronous):
    assert is_async(SequentialRunner(is_async=asynchronous)) is asynchronous


def test_kedro_calls_the_methods_that_are_overridden():
    assert list(signature(AbstractRunner._run).parameters) == ["self", "pipeline", "catalog", "hook_manager", "run_id"]
    assert list(signature(AbstractVersionedDataset._get_save_path).parameters) == ["self"]


def test_a_session_has_hooks(tmp_path):
    assert hasattr(KedroSession(session_id="1", project_path=tmp_path, package_name="any"), "_hook_manager")
