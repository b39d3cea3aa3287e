import shutil
import tempfile
from pathlib import Path

import pytest

from efficientnet_finetuning.cluster.workers import RayWorkers
from efficientnet_finetuning.parameters import ClusterParameters, DeviceParameters


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """Two workers on this machine."""
    found = RayWorkers(DeviceParameters(workers=2), ClusterParameters(max_restarts=1), tmp_path_factory.mktemp("data"))
    yield found
    found.close()


@pytest.fixture
def short_folder():
    """A temporary folder whose name leaves room for those of sockets."""
    folder = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
