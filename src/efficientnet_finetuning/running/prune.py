"""Old versions go when the user says so, and never by themselves: ``make prune``."""

import shutil
from pathlib import Path

from efficientnet_finetuning.storage import COMMIT_FILE


def prune(data: Path, keep_versions: int) -> tuple[int, int]:
    """Remove all but the newest versions of every dataset, and of the checkpoints of what was given up.

    What a run would find fresh is always among the newest.

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
    versions: dict[Path, list[Path]] = {}
    for commit in data.glob(f"0[2-8]_*/*/*/*/{COMMIT_FILE}"):
        versions.setdefault(commit.parent.parent, []).append(commit.parent)
    old = [version for of_dataset in versions.values() for version in sorted(of_dataset)[:-keep]]
    for recipes in data.glob("0[2-8]_*/*/*_checkpoints"):
        by_age = sorted(recipes.iterdir(), key=lambda folder: folder.stat().st_mtime)
        old += by_age[:-keep]
    return old


def main() -> None:
    """Prune the project in the working folder, by its parameter ``keep_versions``."""
    from kedro.framework.session import KedroSession
    from kedro.framework.startup import bootstrap_project

    from efficientnet_finetuning.parameters.validation import validate

    project = Path.cwd()
    bootstrap_project(project)
    with KedroSession.create(project) as session:
        context = session.load_context()  # type: ignore[attr-defined]
        keep = validate(context.config_loader["parameters"]).keep_versions
    count, freed = prune(project / "data", keep)
    print(f"{count} old versions were removed ({freed / 1e6:,.0f} MB); the newest {keep} of each dataset stay.")  # noqa: T201


if __name__ == "__main__":
    main()
