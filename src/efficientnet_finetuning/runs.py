"""Compare the runs of a job: ``python -m efficientnet_finetuning.runs [job]``, in the project folder.

Each row is a stored champion with its accuracy, its training time, and the parameters that differ between runs.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from efficientnet_finetuning.bundle import stored
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.storage import digest, versions


def table(job: str, data: Path) -> pd.DataFrame:
    """The stored champions of a job, the most accurate first.

    Args:
        job: as in ``globals.yml`` of the environment: ``cifar10_sample``, ``folder``.
        data: the project's ``data`` folder.

    Returns:
        ``version`` (for ``--load-versions champion_model:<version>``), ``regime``, ``top1`` (0–1) with its 95 %
        interval ``top1_low`` and ``top1_high``, ``num_images`` (of the test split), ``training_seconds``, ``others``
        (the other regimes' top-1 in %), and a column for each parameter that differs. If ``test images`` or ``code``
        differ, equal letters mark equal ones: runs with other test images cannot be compared.

    Raises:
        InputError: no champion is stored.
    """
    stored.find_champion(job, data)
    folders = stored.folders_of(data, job)
    runs = [list(stored.descent(folders, [("champion_model", made)])) for made in versions(folders["champion_model"])]
    runs = [run for run in runs if {"champion", "comparison"} <= {name for name, *_ in run}]  # the others were pruned
    results = pd.DataFrame([_result(folders, run) for run in runs])
    settings = pd.DataFrame([_settings(run) for run in runs])
    # A run without the baseline lacks its parameters and its code. That alone is no difference.
    everywhere = set.intersection(*(set(code) for code in settings["code"]))
    settings["code"] = [digest({name: code[name] for name in everywhere}) for code in settings["code"]]
    for name in ("test images", "code"):
        settings[name] = [chr(ord("a") + number) for number in pd.factorize(settings[name])[0]]
    differing = [name for name in settings if settings[name].nunique() > 1]
    lined_up = results.join(settings[differing].fillna("–"))
    return lined_up.sort_values("top1", ascending=False, ignore_index=True, kind="stable")


def _result(folders: dict[str, Path], run: list[stored.Ancestor]) -> dict[str, Any]:
    found = {name: folders[name.replace(".", "_")] / version for name, version, _ in reversed(run)}
    regime = json.loads((found["champion"] / "champion.json").read_text(encoding="utf-8"))
    comparison = pd.read_csv(found["comparison"] / "comparison.csv").set_index("regime")
    columns = ["top1", "top1_low", "top1_high", "num_images", "training_seconds"]
    others = ", ".join(f"{name} {100 * top1:.1f}" for name, top1 in comparison["top1"].drop(regime).items())
    return {"version": run[0][1], "regime": regime, **comparison.loc[regime, columns], "others": others}


def _settings(run: list[stored.Ancestor]) -> dict[str, Any]:
    records = {name: record for name, _, record in reversed(run)}
    recipes = [record.get("recipe") or {} for record in records.values()]
    parameters = {name: str(value) for recipe in recipes for name, value in recipe.get("parameters", {}).items()}
    code = {name: value for recipe in recipes for name, value in recipe.get("code", {}).items()}
    return {**parameters, "test images": digest(records.get("test_images", {}).get("files")), "code": code}


def format_table(runs: pd.DataFrame) -> str:
    """The table as text for the terminal."""
    told = runs.drop(columns=["top1_low", "top1_high", "num_images"])
    percent = [(100 * runs[name]).map("{:.1f}".format) for name in ("top1", "top1_low", "top1_high")]
    told["top1"] = [f"{share} ({low} to {high})" for share, low, high in zip(*percent, strict=True)]
    told["training_seconds"] = runs["training_seconds"].round().astype(int)
    renamed = {"top1": "top-1 in % (95 % interval)", "training_seconds": "seconds"}
    return told.rename(columns=renamed).to_string(index=False)


def main() -> None:
    """Print the runs of the job that is named on the command line."""
    job = sys.argv[1] if len(sys.argv) > 1 else stored.EMBEDDED_JOB
    try:
        runs = table(job, Path("data"))
    except InputError as error:
        sys.exit(str(error))
    use = f"{stored.command_for(job, 'predict')} --load-versions champion_model:<version> --params predict.path=…"
    print(f"{format_table(runs)}\n\nUse one: {use}")  # noqa: T201


if __name__ == "__main__":
    main()
