"""Blocks that Ray places, and what is refused before any is."""

import os
import re
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import efficientnet_finetuning
from efficientnet_finetuning.cluster.workers import RayWorkers
from efficientnet_finetuning.data.threads import num_cores
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import ClusterParameters, DeviceParameters

pytestmark = pytest.mark.slow


def doubled(array: np.ndarray, rows: slice) -> np.ndarray:
    return 2 * array[rows]


def dies_once(flag: Path, block: int) -> tuple[int, int]:
    if block == 1 and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return block, os.getpid()


def refuses(block: int) -> None:
    raise InputError(f"block {block} is wrong")


def test_blocks_come_back_in_order_and_are_computed_elsewhere(workers, tmp_path):
    np.save(tmp_path / "array.npy", np.arange(100))
    array = np.load(tmp_path / "array.npy", mmap_mode="r")
    blocks = [slice(first, first + 7) for first in range(0, 100, 7)]
    assert np.concatenate(list(workers.map_blocks(partial(doubled, array), blocks))).tolist() == list(range(0, 200, 2))


def test_the_block_of_a_killed_worker_is_done_again(workers, tmp_path, caplog):
    done = list(workers.map_blocks(partial(dies_once, tmp_path / "flag"), range(8)))
    assert [block for block, _ in done] == list(range(8))
    assert os.getpid() not in {process for _, process in done}
    assert caplog.text.count("Its block is computed again") == 1


def test_what_is_wrong_with_a_block_is_said_in_its_own_words(workers):
    with pytest.raises(InputError, match=r"^block 0 is wrong$"):
        list(workers.map_blocks(refuses, range(3)))


@pytest.mark.skipif(shutil.which("ss") is None, reason="ss lists the ports; it comes with iproute2")
@pytest.mark.usefixtures("workers")
def test_all_ports_are_on_the_loopback_address():
    listening = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout.splitlines()
    # Field 4 is the address; the processes are in field 6.
    ports = [line.split()[3] for line in listening if "ray" in line or "gcs" in line or f"pid={os.getpid()}," in line]
    assert len(ports) > 3
    assert all(port.startswith(("127.0.0.1:", "[::ffff:127.0.0.1]:")) for port in ports), ports


REFUSED = """
import os, sys
from pathlib import Path
from efficientnet_finetuning.cluster.workers import RayWorkers
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import ClusterParameters, DeviceParameters
data, count = Path(sys.argv[1]), int(sys.argv[2])
if sys.argv[3] == "elsewhere":
    data = Path(f"/proc/self/fd/{os.open(data, os.O_RDONLY)}")  # a path that leads other processes somewhere else
paths = [Path("/nowhere/photos")] if sys.argv[3] == "no photographs" else []
try:
    RayWorkers(DeviceParameters(workers=count), ClusterParameters(), data, paths)
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("count", "how", "said"),
    [
        (num_cores() + 1, "", f"device.workers is {num_cores() + 1}, .* there are {num_cores()}\\."),
        (1, "elsewhere", r"The worker on \S+ does not see this project's data in "),
        (1, "no photographs", r"The worker on \S+ does not see /nowhere/photos\."),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(tmp_path, count, how, said):
    command = [sys.executable, "-c", REFUSED, tmp_path, str(count), how]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert re.search(said, result.stdout), result.stdout + result.stderr
    assert not list(tmp_path.iterdir())


def test_a_missing_extra_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"device.workers is 2, which needs ray: pip install -e '.\[cluster\]'"):
        RayWorkers(DeviceParameters(workers=2), ClusterParameters(), tmp_path)


TWO_MACHINES = """
import os, sys
from pathlib import Path
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
other = {"env_vars": {"PYTHONPATH": sys.argv[2]}} if len(sys.argv) > 2 else {}
cluster.add_node(num_cpus=1, **other)
os.environ["RAY_ADDRESS"] = cluster.address
from functools import partial
from efficientnet_finetuning.cluster.workers import RayWorkers
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import ClusterParameters, DeviceParameters

try:
    workers = RayWorkers(DeviceParameters(workers="all"), ClusterParameters(address="auto"), Path(sys.argv[1]))
    print(workers.count, list(workers.map_blocks(partial(max, 3), range(6))))
    workers.close()
except InputError as error:
    print(error)
cluster.shutdown()
"""


def two_machines(*arguments: Path) -> str:
    command = [sys.executable, "-c", TWO_MACHINES, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_cluster_that_runs_already_is_used(tmp_path):
    assert "2 [3, 3, 3, 3, 4, 5]" in two_machines(tmp_path)


def test_a_machine_with_other_code_is_refused(tmp_path):
    other = tmp_path / "other"
    shutil.copytree(Path(efficientnet_finetuning.__file__).parent, other / "efficientnet_finetuning")
    with (other / "efficientnet_finetuning" / "errors.py").open("a") as file:
        file.write("\n# a later version\n")
    assert re.search(r"The workers on \S+ have another version of this project", two_machines(tmp_path, other))
