"""Runs that share their work among workers of this machine."""

import pytest

pytestmark = pytest.mark.slow


def test_what_two_workers_made_is_what_one_would_make(project):
    shared = project.kedro("run", "--pipelines", "transfer", "--params", "device.workers=2")
    assert shared.returncode == 0, shared.stdout + shared.stderr
    assert "Workers: 2 on " in shared.stdout
    assert "stale  transfer.extract_features" in shared.stdout
    alone = project.kedro("run", "--pipelines", "transfer")
    assert "stale  " not in alone.stdout, "the number of workers is no part of a recipe"
    features = project.newest("transfer_features")
    again = project.kedro("run", "--nodes", "transfer.extract_features")
    assert again.returncode == 0, again.stdout + again.stderr
    assert (project.newest("transfer_features") / "train.npy").read_bytes() == (features / "train.npy").read_bytes()
    assert project.newest("transfer_features") != features
