"""Copy a set's images to folders with the corrected labels, for other programs.

Run ``python -m efficientnet_finetuning.bundle.corrected_set <job> <folder>`` in the project's folder.
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

# Characters with a special meaning in file systems or shells, the escape character %, and leading or trailing dots.
_UNSAFE = re.compile(r'[\x00-\x1f%\\:*?"<>|]|^\.+|[. ]$')


def copy_corrected(job: str, data: Path, folder: Path) -> int:
    """Copy the used images of a job's newest manifest to ``<folder>/<split>/<class>/<name>``; return their number.

    Raises ``InputError`` if the job has no manifest, or the folder is not empty.
    """
    manifest, source_file = (newest(data / "02_intermediate" / job / name) for name in ("manifest.csv", "source.json"))
    if manifest is None or source_file is None:
        command = command_for(job, "ingestion")
        raise InputError(f"{data} has no manifest of the job {job!r}. Make one: `{command}`.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not an empty folder. Give a new one.")
    with naming_unreadable(f"The stored data of the job {job!r}"):
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
    """A class name as a path of folders; unsafe characters become ``%`` and their code, as in URLs."""

    def code(found: re.Match) -> str:
        return "".join(f"%{byte:02X}" for byte in found[0].encode())

    return Path(*(_UNSAFE.sub(code, part) or "%" for part in class_name.split("/")))


def _free(folder: Path, id_: str, image_format: str) -> Path:
    name = _UNSAFE.sub("_", id_.rpartition("/")[2])
    if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
        name += f".{image_format.lower()}"
    path, count = folder / name, 1
    while path.exists():  # corrections may join files of the same name from several folders
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
