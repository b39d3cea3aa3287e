"""A folder of copies with the corrected labels, for other programs.

``python -m efficientnet_finetuning.bundle.corrected_set <job> <folder>``, in the project's folder.
"""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from efficientnet_finetuning.bundle.stored import command_for, newest
from efficientnet_finetuning.data.decode import IMAGE_SUFFIXES
from efficientnet_finetuning.data.sources import reopen
from efficientnet_finetuning.errors import InputError, counted, naming_unreadable

# What some file system or shell gives a meaning of its own, the mark itself, and dots that hide a folder or leave it.
_UNSAFE = re.compile(r'[\x00-\x1f%\\:*?"<>|]|^\.+|[. ]$')


def copy_corrected(job: str, data: Path, folder: Path) -> int:
    """Copy the images that a job's newest manifest uses to ``<folder>/<split>/<class>/<name>``; returns their number.

    Raises:
        InputError: nothing is stored for the job, or there is something in the folder.
    """
    manifest, source_file = (newest(data / "02_intermediate" / job / name) for name in ("manifest.csv", "source.json"))
    if manifest is None or source_file is None:
        command = command_for(job, "ingestion")
        raise InputError(f"No manifest of the job {job!r} is stored in {data}. Make one: `{command}`.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not an empty folder. Name a new one.")
    with naming_unreadable(f"What runs have stored of the job {job!r}"):
        rows = pd.read_csv(manifest, dtype=str, keep_default_na=False)
        used = rows[rows["split"] != ""].set_index("id")
        source = reopen(json.loads(source_file.read_text(encoding="utf-8")))
    for source_split, part in used.groupby("source_split"):
        about: dict[str, Any] = {str(row.Index): row for row in part.itertuples()}
        for image in source.images(str(source_split), about):
            row = about[image.id]
            target = _free(folder / class_folder(row.split) / class_folder(row.class_name), image.id, row.format)
            target.parent.mkdir(parents=True, exist_ok=True)
            with naming_unreadable(f"The image {image.id}"):
                stream = image.open()
            with stream, target.open("xb") as copy:
                shutil.copyfileobj(stream, copy)
    return len(used)


def class_folder(class_name: str) -> Path:
    """A class as a path of folders: what is unsafe in a name becomes ``%`` and its code, as in a URL."""

    def code(found: re.Match) -> str:
        return "".join(f"%{byte:02X}" for byte in found[0].encode())

    return Path(*(_UNSAFE.sub(code, part) or "%" for part in class_name.split("/")))


def _free(folder: Path, id_: str, image_format: str) -> Path:
    name = _UNSAFE.sub("_", id_.rpartition("/")[2])
    if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
        name += f".{image_format.lower()}"
    path, count = folder / name, 1
    while path.exists():  # images of several folders that bear one name and now one label
        count += 1
        path = folder / f"{Path(name).stem}_{count}{Path(name).suffix}"
    return path


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("Give a job and a new folder: python -m efficientnet_finetuning.bundle.corrected_set <job> <folder>")
    try:
        copied = copy_corrected(sys.argv[1], Path("data"), Path(sys.argv[2]).expanduser())
        print(f"Copied {counted(copied, 'image')} to {sys.argv[2]}.")  # noqa: T201
    except InputError as error:
        sys.exit(str(error))
