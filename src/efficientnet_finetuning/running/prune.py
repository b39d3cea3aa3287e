"""Delete old stored versions: ``make prune``. Nothing else deletes them."""

from contextlib import suppress
from pathlib import Path

from efficientnet_finetuning.bundle.stored import descent, folders_of
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.storage import COMMIT_FILE, remove, versions
from efficientnet_finetuning.training.checkpoint import Checkpoints


def prune(data: Path, keep_versions: int) -> tuple[int, int]:
    """Delete old versions of every dataset, except for the last ``keep_versions``, and abandoned checkpoints.

    Versions that the remaining ones were made from stay too. ``data`` is the project's folder of that name. Returns the
    number of deleted versions and their size in bytes.
    """
    count = freed = 0
    for version in _old(data, keep_versions):
        freed += sum(file.stat().st_size for file in version.rglob("*") if file.is_file())
        remove(version)
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
        folders_by_age = sorted(filter(Path.is_dir, recipes.iterdir()), key=lambda folder: folder.stat().st_mtime)
        for checkpoints in folders_by_age[:-keep]:
            with suppress(InputError):  # a run uses them
                Checkpoints(checkpoints)
                old.append(checkpoints)
    return old


def main() -> None:
    """Prune the project in the working folder, as its parameter ``keep_versions`` says."""
    from kedro.framework.session import KedroSession
    from kedro.framework.startup import bootstrap_project

    from efficientnet_finetuning.running.configuration import parameters_of

    project = Path.cwd()
    bootstrap_project(project)
    with KedroSession.create(project) as session:
        context = session.load_context()  # type: ignore[attr-defined]
        keep = parameters_of(context.config_loader).keep_versions
    count, freed = prune(project / "data", keep)
    print(f"{count} old versions were deleted ({freed / 1e6:,.0f} MB); the last {keep} of each dataset stay.")  # noqa: T201


if __name__ == "__main__":
    main()
