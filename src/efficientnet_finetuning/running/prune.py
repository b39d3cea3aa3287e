"""Old versions go when the user says so, and never by themselves: ``make prune``."""

import shutil
from pathlib import Path

from efficientnet_finetuning.bundle.stored import descent, folders_of
from efficientnet_finetuning.storage import COMMIT_FILE, versions


def prune(data: Path, keep_versions: int) -> tuple[int, int]:
    """Remove all but the last versions of every dataset, and of the checkpoints of what was given up.

    A version stays where it is among those that runs made or used last, or where one that stays was made from it.

    Args:
        data: the project's folder of that name.
        keep_versions: how many versions of each dataset stay.

    Returns:
        How many versions went, and their bytes.
    """
    count = freed = 0
    for version in _old(data, keep_versions):
        freed += sum(file.stat().st_size for file in version.rglob("*") if file.is_file())
        shutil.rmtree(version)
        count += 1
    return count, freed


def _old(data: Path, keep: int) -> list[Path]:
    old = []
    for job in {path.name for path in data.glob("0[2-8]_*/*")}:
        folders = folders_of(data, job)
        last = [(name, version) for name, folder in folders.items() for version in versions(folder)[:keep]]
        kept = {(name.replace(".", "_"), version) for name, version, _ in descent(folders, last)}
        for name, folder in folders.items():
            made = (commit.parent for commit in folder.glob(f"*/{COMMIT_FILE}"))
            old += [version for version in made if (name, version.name) not in kept]
    for recipes in data.glob("0[2-8]_*/*/*_checkpoints"):
        by_age = sorted(recipes.iterdir(), key=lambda folder: folder.stat().st_mtime)
        old += by_age[:-keep]
    return old


def main() -> None:
    """Prune the project in the working folder, by its parameter ``keep_versions``."""
    from kedro.framework.session import KedroSession
    from kedro.framework.startup import bootstrap_project

    from efficientnet_finetuning.running.configuration import parameters_of

    project = Path.cwd()
    bootstrap_project(project)
    with KedroSession.create(project) as session:
        context = session.load_context()  # type: ignore[attr-defined]
        keep = parameters_of(context.config_loader).keep_versions
    count, freed = prune(project / "data", keep)
    print(f"{count} old versions were removed ({freed / 1e6:,.0f} MB); the last {keep} of each dataset stay.")  # noqa: T201


if __name__ == "__main__":
    main()
