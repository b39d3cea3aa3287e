"""Processes that write to the same place at the same time."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SAVE = """
import sys
from kedro.io import Version
from efficientnet_finetuning.io.committed import JSONDataset
for number in range(150):
    version = Version(None, f"{sys.argv[2]}-{number:03}")
    JSONDataset(filepath=f"{sys.argv[1]}/audit.json", version=version).save({"number": number})
"""
HOLD = """
import sys
from pathlib import Path
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.training.checkpoint import Checkpoints
for number in range(1500):
    try:
        held = Checkpoints(Path(sys.argv[1]) / "key")
    except InputError:
        continue
    (held.folder / "mine").mkdir()  # fails where another process holds the folder, too
    held.remove()
"""

CLAIM = """
import sys
from pathlib import Path
from efficientnet_finetuning.running.session import own_version
print(*(own_version(Path(sys.argv[1])) for _ in range(300)))
"""


@pytest.mark.parametrize("code", [SAVE, HOLD], ids=["versions", "checkpoints"])
def test_processes_at_once_never_take_anothers_folder_away(tmp_path: Path, code: str):
    processes = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path, name], stderr=subprocess.PIPE, text=True)
        for name in ("a", "b")
    ]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert not list(tmp_path.glob("*/.staging"))


def test_no_two_runs_have_the_same_version(tmp_path: Path):
    processes = [
        subprocess.Popen([sys.executable, "-c", CLAIM, tmp_path], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    versions = [version for process in processes for version in process.communicate()[0].splitlines()[-1].split()]
    assert len(versions) == len(set(versions)) == 600
