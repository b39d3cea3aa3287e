"""What Kedro, the catalog's files and MLflow cost beside the same calls in a script: `make bench-overhead`.

Both make what ``kedro run --pipelines finetune`` makes of the embedded images, in a process of their own, in turns; the
script keeps everything in memory. Nothing here passes or fails. Goals: ≤ 5 % over the script, first node within 3 s.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
ROUNDS = 2


def main() -> None:
    print(f"the oldest of 200 versions found in each of 50 datasets: {look_up():.2f} s (goal ≤ 0.3)", flush=True)  # noqa: T201
    scripts, runs = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        subprocess.run([sys.executable, __file__, "--script"], cwd=ROOT, check=True, capture_output=True)
        scripts.append(time.perf_counter() - began)
        runs.append(kedro_run())
        print(f"script {scripts[-1]:.1f} s, kedro {runs[-1][0]:.1f} s, first node {runs[-1][1]:.1f} s", flush=True)  # noqa: T201
    seconds, first = min(runs)
    print(f"overhead {seconds / min(scripts) - 1:+.1%} (goal ≤ 5 %), first node after {first:.1f} s (goal ≤ 3)")  # noqa: T201


def look_up(num_datasets: int = 50, num_versions: int = 200) -> float:
    """Seconds in which the version with a recipe is found among many, of all datasets of a run."""
    from efficientnet_finetuning.storage import commit, versions_made_by

    recipe = {
        "parameters": {f"name{number}": number for number in range(40)},
        "code": dict.fromkeys("abcdefgh", "0" * 64),
    }
    with tempfile.TemporaryDirectory() as folder:
        datasets = [Path(folder) / f"{number}.csv" for number in range(num_datasets)]
        for dataset in datasets:
            for number in range(num_versions):
                staged = Path(folder) / "staged"
                staged.mkdir()
                (staged / dataset.name).touch()
                key = {"key": f"{number:064}"}
                commit(staged, dataset / f"2026-01-01T00.00.00.{number:03}Z", {"recipe": recipe | key})
        began = time.perf_counter()
        for dataset in datasets:
            assert len(versions_made_by(dataset, f"{0:064}")) == 1  # the oldest
        return time.perf_counter() - began


def kedro_run() -> tuple[float, float]:
    """Seconds of a whole run in an empty project, and of what comes before its first node."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("conf", "src", "pyproject.toml", ".telemetry"):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, Path(folder) / name)
        shutil.copytree(ROOT / "data" / "01_raw", Path(folder) / "data" / "01_raw")
        began = time.perf_counter()
        command = [sys.executable, "-m", "kedro", "run", "--pipelines", "finetune"]
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            first = next(time.perf_counter() - began for line in process.stdout if "steps to do" in line)
            process.stdout.read()
        assert process.returncode == 0
        return time.perf_counter() - began, first


def script() -> None:
    """The nodes' functions, called one after the other."""
    from efficientnet_finetuning.parameters.validation import validate
    from efficientnet_finetuning.pipeline_registry import register_pipelines
    from efficientnet_finetuning.workers import Workers

    files = sorted((ROOT / "conf" / "base").glob("parameters*.yml"))
    raw = {name: group for file in files for name, group in yaml.safe_load(file.read_text(encoding="utf-8")).items()}
    parameters = validate(raw)
    memory: dict[str, Any] = {"node_costs": {}, "before": {}, "run": {}, "lineage": {}}

    def value(name: str) -> Any:
        if name.startswith("params:"):
            found: Any = parameters
            for part in name.removeprefix("params:").split("."):
                found = getattr(found, part)
            return found
        if name == "workers":
            return Workers()
        return None if name.endswith("checkpoints") else memory[name]

    for node in register_pipelines()["finetune"].nodes:
        inputs = node._inputs
        given = {key: value(name) for key, name in inputs.items()} if isinstance(inputs, dict) else {}
        listed = [] if isinstance(inputs, dict) else [value(name) for name in node.inputs]
        result = node.func(*listed, **given)
        for name, output in zip(node.outputs, result if len(node.outputs) > 1 else [result], strict=True):
            memory[name] = kept(output)


def kept(output: Any) -> Any:
    """An output as the next node would read it."""
    import io

    import numpy as np
    from matplotlib.figure import Figure

    from efficientnet_finetuning.data.examples import Examples

    if isinstance(output, Examples):
        return replace(output, images=np.stack(list(output.images)))
    if isinstance(output, Figure):
        buffer = io.BytesIO()
        output.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()
    return output


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    script() if "--script" in sys.argv else main()
