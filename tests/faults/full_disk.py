"""Lets a run hit a full disk in many places: ``full_disk.py PROJECT REFERENCE FREE [FREE ...]``, in bytes.

It mounts a small file system of its own at ``PROJECT/data``, so it wants the rights for that: call it by
``unshare -rm``. In turn it leaves so many bytes free and runs, at last in the middle of a training. Each time, the run
must end with an error that names a path, and all that was stored before must still be sound. With room again, the same
command must succeed.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import driver


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("free", type=int, nargs="+")
    given = parser.parse_args()
    project = driver.Project(given.project)
    data = given.project / "data"
    data.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "none", str(data)], check=True)
    lost = [fault for free in given.free for fault in run_with(project, free)]
    (data / "ballast").unlink()
    lost += run_out_while_training(project)
    (data / "ballast").unlink()
    lost += driver.losses(project, driver.Reference(driver.Project(given.reference)))
    sys.exit("\n".join(lost) or 0)


def run_with(project: Any, free: int) -> list[str]:
    """Run with so many bytes free; what is wrong with how that ends."""
    fill(project.path / "data", free)
    before = set(driver.versions(project))
    result = project.kedro(*driver.COMMAND, env=driver.OFFLINE)
    said = result.stdout + result.stderr
    message = re.sub(r"\s+", " ", said[said.rfind("Error:") :])
    driver.say(f"{free:,} bytes free: ended with {result.returncode}. {message[:400]}")
    lost = list(driver.find_torn(project))
    lost += [f"{version} is gone" for version in before - set(driver.versions(project))]
    if result.returncode != 1 or "data/" not in message or "Traceback" in said:
        lost.append(f"with {free:,} bytes free the run ended with {result.returncode}: {said[-3000:]}")
    return lost


def run_out_while_training(project: Any) -> list[str]:
    """Go on from a second checkpoint where there is no room for a third; before the first, it would be asked for."""
    ended = driver.launch(project, "checkpoint: after the rename", 2).wait()
    return run_with(project, 5_000_000) if ended == -9 else [f"no second checkpoint: {driver.log(project)[-3000:]}"]


def fill(folder: Path, free: int) -> None:
    """Leave so many bytes free."""
    ballast = folder / "ballast"
    ballast.unlink(missing_ok=True)
    disk = os.statvfs(folder)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(disk.f_bavail * disk.f_bsize - free, 1))


if __name__ == "__main__":
    main()
