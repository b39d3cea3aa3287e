"""Kills runs by SIGKILL, types the same command again, and looks whether anything was lost.

``python tests/faults/driver.py --kills 50 --pairs 20`` prints a table of faults. A try that loses something keeps its
folder.
"""

import argparse
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

# No run has a network: nothing listens on this port.
OFFLINE = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
HERE = Path(__file__).parent
LAUNCHER = HERE / "launcher.py"
EPOCHS = 8
COMMAND = ("run", "--pipelines", "finetune")
SHARED = (*COMMAND, "--params", "device.workers=2")
PARAMETERS = """
dataset: {{name: null, data_dir: null, path: "{photos}", validation_fraction: 0.25, test_fraction: 0.25}}
preprocessing: {{image_size: 32}}
device: {{accelerator: cpu, deterministic: true, verbose: true}}
finetune: {{training: {{epochs: {epochs}, batch_size: 8, unfreeze_from: block7a}}}}
"""


def _runs() -> Any:
    """The module that makes projects for tests/runs, which is no package."""
    spec = importlib.util.spec_from_file_location("runs_conftest", HERE.parent / "runs" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


runs = _runs()
Project = runs.Project


@dataclass(frozen=True)
class Fault:
    """A way to kill a run.

    Attributes:
        point: one of the launcher's; or that the moment is a random one.
        start: what is stored before: ``nothing``, ``ingestion``, or all ``before training``.
    """

    point: str
    start: str


RANDOM, IN_TRAINING = "at a random moment", "at a random moment of training"
FAULTS = (
    Fault(RANDOM, "nothing"),
    Fault(IN_TRAINING, "before training"),
    Fault("dataset: half of a file", "nothing"),
    Fault("checkpoint: half of a file", "before training"),
    Fault("dataset: before the rename", "ingestion"),
    Fault("checkpoint: before the rename", "before training"),
    Fault(RANDOM, "ingestion"),
    Fault("dataset: after the rename", "before training"),
    Fault("checkpoint: after the rename", "before training"),
    Fault("block: after the rename", "nothing"),
    Fault("dataset: half of commit.json", "ingestion"),
    Fault("checkpoint: half of commit.json", "before training"),
    Fault("dataset: before a file is synced", "nothing"),
    Fault("checkpoint: before a file is synced", "before training"),
    Fault("checkpoint: between two files", "before training"),
    Fault("checkpoint: half removed", "before training"),
    Fault("checkpoint: half removed at the end", "before training"),
)


@dataclass
class Reference:
    """A project whose run nobody disturbed.

    Attributes:
        seconds: that its run takes, by what was stored before.
        counts: how often each of the launcher's points is reached, likewise.
    """

    project: Any
    seconds: dict[str, float] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)

    def copy(self, path: Path, start: str) -> Any:
        """A project of its own with a part of what the reference has stored; the photos are the same ones."""
        shutil.copytree(self.project.path, path, ignore=shutil.ignore_patterns("photos", "*.log"))
        if start in ("nothing", "ingestion"):
            for folder in path.glob("data/0*"):
                if start == "nothing" or folder.name != "02_intermediate":
                    shutil.rmtree(folder)
        elif start == "before training":
            for folder in (*path.glob("data/06*/*/finetune*"), *path.glob("data/0[78]*")):
                shutil.rmtree(folder)
        return Project(path)

    def measure(self, folder: Path, start: str) -> None:
        """Find out how long the run takes from a start and how often it reaches each point."""
        if start not in self.seconds:
            project = self.copy(folder / f"from {start}", start)
            self.seconds[start], self.counts[start] = count_points(project)
            shutil.rmtree(project.path)


def make_reference(folder: Path) -> Reference:
    """Run the tiny job once, undisturbed."""
    parameters = PARAMETERS.format(photos=folder / "reference" / "photos", epochs=EPOCHS)
    (folder / "reference").mkdir(parents=True)
    reference = Reference(runs.make_project(folder / "reference", parameters))
    reference.seconds["nothing"], reference.counts["nothing"] = count_points(reference.project)
    return reference


def count_points(project: Any) -> tuple[float, dict[str, int]]:
    """Run undisturbed; how long that took, and how often each point was reached."""
    began = time.monotonic()
    process = launch(project, "points.json", 0)
    assert process.wait() == 0, log(project)
    return time.monotonic() - began, json.loads((project.path / "points.json").read_text())


def launch(project: Any, point: str, number: int) -> subprocess.Popen[bytes]:
    """Start the run in a process that is killed when it reaches a point for the n-th time."""
    return start(project, str(LAUNCHER), point, str(number), *COMMAND)


def start(project: Any, *arguments: str) -> subprocess.Popen[bytes]:
    """Start Python in the project; what it says is added to ``run.log``."""
    command, environment = [sys.executable, *arguments], os.environ | OFFLINE
    with (project.path / "run.log").open("ab") as output:
        return subprocess.Popen(command, cwd=project.path, stdout=output, stderr=subprocess.STDOUT, env=environment)


def log(project: Any) -> str:
    """All that was said by the runs of a project that :func:`start` has started."""
    file = project.path / "run.log"
    return file.read_text(errors="replace") if file.exists() else ""


def kill_after(project: Any, seconds: float, line: str = "") -> None:
    """Start the run as a user does and kill it some time after it has said something."""
    process = start(project, "-m", "kedro", *COMMAND)
    try:
        while line not in log(project) and process.poll() is None:
            time.sleep(0.02)
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def disturb(project: Any, reference: Reference, fault: Fault, generator: random.Random) -> str:
    """Kill a run; when that was, in words."""
    if fault.point == RANDOM:
        seconds = generator.uniform(0, reference.seconds[fault.start])
        kill_after(project, seconds)
        return f"after {seconds:.2f} s"
    if fault.point == IN_TRAINING:
        seconds = generator.uniform(0, 6)  # tracing takes most of it, then come the epochs
        kill_after(project, seconds, "parameters are trained")
        return f"{seconds:.2f} s after training began"
    number = generator.randint(1, reference.counts[fault.start][fault.point])
    process = launch(project, fault.point, number)
    assert process.wait() == -9, f"{fault.point} was not reached {number} times: {log(project)}"
    return f"the {number}. time of {reference.counts[fault.start][fault.point]}"


def run_again(project: Any) -> list[str]:
    """Type the command once more; what is wrong with that."""
    status = start(project, "-m", "kedro", *COMMAND).wait()
    return [f"the second run ended with {status}:\n{log(project)[-3000:]}"] if status else []


def losses(project: Any, reference: Reference, kills: int = 1) -> list[str]:
    """Type the same command again after so many kills; all that is not as if nothing had happened."""
    torn = [f"torn before the second run: {fault}" for fault in find_torn(project)]
    if failed := run_again(project):
        return torn + failed
    return [
        *torn,
        *find_torn(project),
        *find_litter(project),
        *find_mixtures(project),
        *compare_weights(project, reference),
        *check_epochs(project, kills),
    ]


def versions(project: Any) -> Iterator[Path]:
    """Every version folder of every dataset."""
    for dataset in sorted(project.path.glob("data/0[2-8]*/*/*.*")) + sorted(project.path.glob("data/0[34]*/*/*")):
        if dataset.is_dir() and not dataset.name.endswith("_checkpoints"):
            yield from (version for version in dataset.iterdir() if version.name != ".staging")


def find_torn(project: Any) -> Iterator[str]:
    """Version folders that are not complete."""
    from efficientnet_finetuning.storage import checksums

    for version in set(versions(project)):
        try:
            expected = json.loads((version / "commit.json").read_text())["files"]
        except (OSError, ValueError, KeyError) as error:
            yield f"{version} has no sound commit.json: {error}"
        else:
            if not expected or checksums(version) != expected:
                yield f"{version} does not hold what its commit.json says"


def find_litter(project: Any) -> Iterator[str]:
    """What killed processes have left where a later one has written the same thing."""
    written = re.findall(r"stale  (\S+):", log(project))
    for left in project.path.glob("data/0[2-8]*/*/*/.staging/*"):
        yield f"{left} is left over (nodes run: {', '.join(written)})"
    for left in project.path.glob("data/0*/*/*_checkpoints/*"):
        yield f"{left} is left over: {[path.name for path in left.iterdir()]}"


def find_mixtures(project: Any) -> Iterator[str]:
    """Versions that were made from inputs that do not belong together."""
    for model in project.path.glob("data/06*/*/finetune_model.keras/*"):
        seen: dict[str, set[str]] = {}
        _collect_inputs(project, json.loads((model / "commit.json").read_text()), seen)
        for name, contents in seen.items():
            if len(contents) > 1:
                yield f"{model} descends from {len(contents)} different {name}"


def _collect_inputs(project: Any, record: dict[str, Any], seen: dict[str, set[str]]) -> None:
    from efficientnet_finetuning.storage import digest

    for name, version in record["recipe"]["versions"].items():
        content = record["recipe"]["inputs"][name]
        (dataset,) = (path for path in project.path.glob("data/0*/*/*") if path.name.split(".")[0] == _plain(name))
        stored = json.loads((dataset / version / "commit.json").read_text())
        if content in seen.setdefault(name, set()):
            continue
        seen[name] |= {content, stored.get("content") or digest(stored["files"])}
        _collect_inputs(project, stored, seen)


def _plain(name: str) -> str:
    return name.replace(".", "_")


def compare_weights(project: Any, reference: Reference) -> Iterator[str]:
    """Weights that differ from the reference's."""
    ours, theirs = (load_weights(each) for each in (project, reference.project))
    if len(ours) != len(theirs) or not all(map(np.array_equal, ours, theirs)):
        yield "the fine-tuned weights are not the reference's"


def load_weights(project: Any) -> list[np.ndarray]:
    """Of the newest fine-tuned model, loaded as a user of the model does."""
    from efficientnet_finetuning.models.classifier import TrainedClassifier

    return TrainedClassifier.load(project.newest("finetune_model.keras")).model.get_weights()


def check_epochs(project: Any, kills: int) -> Iterator[str]:
    """Epochs that are missing from the history, or of which a kill cost more than one."""
    history = pd.read_csv(project.newest("finetune_history.csv"))
    if list(history["epoch"]) != list(range(1, EPOCHS + 1)):
        yield f"the history has the epochs {list(history['epoch'])}"
    if (count := epochs_redone(project)) > kills:
        yield f"{count} epochs were done again"


def epochs_redone(project: Any) -> int:
    """How many more epochs were done than there are."""
    return max(len(re.findall(rf" epoch \d+/{EPOCHS}:", log(project))) - EPOCHS, 0)


def run_at_once(project: Any, *commands: Sequence[str]) -> list[subprocess.CompletedProcess[str]]:
    """Several runs of one project at the same time; what became of each, in order."""
    with ThreadPoolExecutor(len(commands)) as pool:
        return list(pool.map(lambda command: project.kedro(*command, env=OFFLINE), commands))


def run_two_different(project: Any) -> list[str]:
    """Train on images of two sizes at once; what is lost or mixed up."""
    changes = ("finetune.training.learning_rate=0.001", "preprocessing.image_size=40")
    ended = run_at_once(project, *((*COMMAND, "--params", change) for change in changes))
    lost = [
        f"{run.args} ended with {run.returncode}: {run.stdout[-3000:]}{run.stderr}" for run in ended if run.returncode
    ]
    if len(names := project.versions("finetune_model.keras")) != len(changes):
        return [*lost, f"there are the versions {names}"]
    return [*lost, *find_torn(project), *find_litter(project), *find_mixtures(project), *compare_sizes(project)]


def compare_sizes(project: Any) -> Iterator[str]:
    """Models whose images are of another size than they look at."""
    from efficientnet_finetuning.models.classifier import TrainedClassifier

    sizes = set()
    for file in project.path.glob("data/06*/*/finetune_model.keras/*/finetune_model.keras"):
        version = json.loads(file.with_name("commit.json").read_text())["recipe"]["versions"]["train_images"]
        (images,) = project.path.glob(f"data/03*/*/train_images/{version}/train_images/images.npy")
        sizes.add(size := TrainedClassifier.load(file).image_size)
        if np.load(images, mmap_mode="r").shape[1] != size:
            yield f"{file} looks at {size} px and was trained on {np.load(images, mmap_mode='r').shape}"
    if sizes != {32, 40}:
        yield f"there are models of {sizes} px, not of 32 and 40"


def run_two_alike(project: Any, reference: Reference) -> list[str]:
    """Type the same command twice at once: one may be refused, the other makes what the reference has."""
    ended = run_at_once(project, COMMAND, COMMAND)
    refused = [run for run in ended if run.returncode]
    lost = [
        f"a run ended with {run.returncode}: {run.stdout[-3000:]}{run.stderr}"
        for run in refused
        if run.returncode != 1 or "The same step is already running" not in run.stdout + run.stderr
    ]
    if len(refused) == len(ended):
        return [*lost, "both runs were refused"]
    return [
        *lost,
        *find_torn(project),
        *find_litter(project),
        *find_mixtures(project),
        *compare_weights(project, reference),
    ]


UNSHARE = ("unshare", "-m") if os.geteuid() == 0 else ("unshare", "-rm")


def why_no_small_disk() -> str:
    """Why no file system can be mounted here; empty where one can."""
    mount = (*UNSHARE, "mount", "-t", "tmpfs", "none", "/mnt")
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except OSError as error:
        return f"no file system can be mounted: {error}"
    return f"no file system can be mounted: {done.stderr.strip()}" if done.returncode else ""


def fill_disk(project: Any, reference: Reference, *free: int) -> subprocess.CompletedProcess[str]:
    """Let runs hit a full disk with so many bytes free in turn; what is lost is in its errors."""
    script = (sys.executable, str(HERE / "full_disk.py"), str(project.path), str(reference.project.path))
    return subprocess.run([*UNSHARE, *script, *map(str, free)], capture_output=True, text=True, check=False)


@dataclass
class Row:
    """What came of the tries of one fault."""

    tries: int = 0
    redone: int = 0
    lost: int = 0


def soak(reference: Reference, folder: Path, kills: int, seed: int) -> dict[str, Row]:
    """Go through the faults in turn until there were so many kills, saying what happens."""
    generator, rows = random.Random(seed), dict[str, Row]()
    for number in range(kills):
        fault = FAULTS[number % len(FAULTS)]
        reference.measure(folder, fault.start)
        project = reference.copy(folder / f"kill {number + 1}", fault.start)
        when = disturb(project, reference, fault, generator)
        lost = losses(project, reference)
        judge(rows.setdefault(fault.point, Row()), project, lost, f"{fault.point}, from {fault.start}, {when}")
    return rows


def soak_pairs(reference: Reference, folder: Path, pairs: int) -> dict[str, Row]:
    """Start two runs at once so many times, in turn different ones and the same one."""
    tries: dict[str, Callable[[Any], list[str]]] = {
        "two different runs at once": run_two_different,
        "the same run twice at once": lambda project: run_two_alike(project, reference),
    }
    rows = {name: Row() for name in tries} if pairs else {}
    for number in range(pairs):
        name = list(tries)[number % len(tries)]
        project = reference.copy(folder / f"pair {number + 1}", "before training")
        judge(rows[name], project, tries[name](project), name)
    return rows


def soak_workers(reference: Reference, folder: Path, deaths: int, seed: int) -> dict[str, Row]:
    """Kill workers and ranks at random moments of a run that goes on, two in each run."""
    if not deaths:
        return {}
    generator, row = random.Random(seed), Row()
    undisturbed = Reference(reference.copy(folder / "two workers", "nothing"))
    assert start(undisturbed.project, "-m", "kedro", *SHARED).wait() == 0, log(undisturbed.project)
    for number in range(-(-deaths // 2)):
        project = reference.copy(folder / f"deaths {number + 1}", "nothing")
        killed, status = kill_workers(project, generator)
        lost = [f"the run ended with {status}:\n{log(project)[-3000:]}"] if status else []
        if not status:
            checks = (find_torn(project), find_litter(project), find_mixtures(project))
            lost = [*chain(*checks), *compare_weights(project, undisturbed)]
        judge(row, project, lost, f"killed {', '.join(killed) or 'nobody'}")
    return {"a worker or rank": row}


def kill_workers(project: Any, generator: random.Random) -> tuple[list[str], int]:
    """Run with two workers, two of which are killed; what they were at, and the status in which the run ended."""
    killed: list[str] = []
    process = start(project, "-m", "kedro", *SHARED)
    while process.poll() is None and len(killed) < 2:
        time.sleep(generator.uniform(0.5, 10))
        for file in generator.sample(found := list(Path("/proc").glob("[0-9]*/cmdline")), len(found)):
            with suppress(OSError):
                if (name := file.read_bytes().strip(b"\0").decode()).startswith(("ray::_run", "ray::Rank")):
                    os.kill(int(file.parent.name), signal.SIGKILL)
                    killed.append(name)
                    break
    return killed, process.wait()


def soak_disk(reference: Reference, folder: Path) -> dict[str, Row]:
    """Let the disk run full at many places, where a small one can be mounted."""
    if reason := why_no_small_disk():
        say(f"The full disk is left out: {reason}")
        return {}
    project, row = reference.copy(folder / "full disk", "nothing"), Row()
    done = fill_disk(project, reference, 0, 60_000, 1_000_000, 4_000_000, 20_000_000, 60_000_000)
    say(done.stdout)
    judge(row, project, [done.stderr] if done.returncode else [], "a full disk at seven places")
    return {"a full disk at seven places": row}


def judge(row: Row, project: Any, lost: list[str], what: str) -> None:
    """Count a try and say what came of it; the folder stays where something was lost."""
    row.tries, row.lost = row.tries + 1, row.lost + bool(lost)
    row.redone = max(row.redone, epochs_redone(project))
    say(f"{'LOST' if lost else 'survived'}: {what} ({project.path.name})")
    if lost:
        say("\n".join(f"      {line}" for line in [*lost, f"kept in {project.path}"]))
    else:
        shutil.rmtree(project.path)


def say(text: str) -> None:
    """Write at once, for whoever waits."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def format_table(rows: dict[str, Row]) -> str:
    """The outcome as text."""
    lines = [f"{'fault':<38} {'tries':>5} {'survived':>8} {'lost':>4}  epochs redone at most"]
    for point, row in rows.items():
        lines.append(f"{point:<38} {row.tries:>5} {row.tries - row.lost:>8} {row.lost:>4}  {row.redone}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=20, help="how often two runs are started at once")
    parser.add_argument("--deaths", type=int, default=10, help="how many workers are killed while their run goes on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder unless given")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    reference = make_reference(folder)
    say(f"Undisturbed, the run takes {reference.seconds['nothing']:.0f} s.")
    rows = soak(reference, folder, given.kills, given.seed) | soak_pairs(reference, folder, given.pairs)
    rows |= soak_workers(reference, folder, given.deaths, given.seed)
    rows |= soak_disk(reference, folder) if given.pairs else {}
    say(f"\n{format_table(rows)}")
    if any(row.lost for row in rows.values()):
        sys.exit(f"Something was lost; see above and {folder}.")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
