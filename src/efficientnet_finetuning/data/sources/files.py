"""Image files: class folders, with or without split folders, or a CSV that lists files."""

import os
import unicodedata
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from efficientnet_finetuning.data.blocks import BLOCK_SIZE, cut
from efficientnet_finetuning.data.decode import IMAGE_SUFFIXES, is_image
from efficientnet_finetuning.data.encoded import EncodedImage
from efficientnet_finetuning.data.sources.source import Block, choose_roles, is_showable, natural_key, read_listing
from efficientnet_finetuning.errors import InputError, counted, printable, shorten
from efficientnet_finetuning.parameters import DatasetParameters

_WITHOUT_SPLITS = "train"


@dataclass(frozen=True)
class FilesSource:
    """Image files below one folder. An id is the path relative to the root.

    Attributes:
        name: the folder or the CSV.
        root: absolute path.
        files: by role, ``[path relative to the root, label]`` in a fixed order.
    """

    KIND: ClassVar[str] = "files"

    name: str
    root: str
    files: dict[str, list[tuple[str, int]]]
    class_names: tuple[str, ...]
    ignored: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)

    @property
    def splits(self) -> dict[str, int]:
        return {role: len(files) for role, files in self.files.items()}

    def images(self, split: str, ids: Container[str] | None = None) -> Iterator[EncodedImage]:
        for path, label in self.files[split]:
            if ids is None or path in ids:
                yield EncodedImage(path, Path(self.root) / path, label)

    def blocks(self, split: str, ids: Container[str] | None = None, size: int = BLOCK_SIZE) -> Iterator[Block]:
        return cut(self.images(split, ids), size)

    def labels(self, split: str) -> Iterator[tuple[str, int]]:
        yield from self.files[split]

    def describe(self) -> dict[str, Any]:
        return {"kind": self.KIND} | asdict(self)


def open_folder(root: Path, dataset: DatasetParameters) -> FilesSource:
    """List ``<root>/<class>/<image>`` or ``<root>/<split>/<class>/<image>``; nested folders make one class name.

    Raises ``InputError`` for no images, an empty class folder, a link out of the folder, or an unreadable folder or
    name.
    """
    walk = _Walk(root, dataset.follow_symlinks)
    folders = walk.subfolders(root)
    # Without split names in the parameters and without a folder `train`, the folders are classes.
    given = dataset.model_fields_set & {"train_split", "validation_split", "test_split"}
    has_splits = dataset.train_split in folders or any(getattr(dataset, split) for split in given)
    roles = choose_roles(dataset, folders, f"the folder {root}") if has_splits else {"train": ""}
    for role, folder in roles.items():
        if has_splits and folder not in folders:
            raise InputError(f"dataset.{role}_split: {root} has no folder {folder!r}. Only TFDS sets have sub-splits.")
    if has_splits and (others := [folder for folder in folders if folder not in roles.values()]):
        walk.notes.append(f"the run ignores folders that are not splits: {shorten(others)}")
    found = {role: walk.images(root / folder) for role, folder in roles.items()}
    walk.raise_faults()
    if not any(found.values()):
        raise InputError(
            f"dataset.path: no class folders with images in {root}. Expected {root}/<class>/<image> or "
            f"{root}/train/<class>/<image>."
        )
    named = {
        role: [
            (path.relative_to(root).as_posix(), path.parent.relative_to(root / roles[role]).as_posix()) for path in p
        ]
        for role, p in found.items()
    }
    return _source(str(root), root, named, walk.ignored, walk.notes)


def open_csv(file: Path, dataset: DatasetParameters) -> FilesSource:
    """List the files of a CSV with ``path`` (relative to the CSV), ``label`` and, optionally, ``split`` and ``group``.

    Raises ``InputError`` for an invalid CSV, a row without path or label, a repeated path, a path outside the folder,
    or groups both in the CSV and by ``dataset.group_pattern``.
    """
    table = read_listing(file, f"dataset.path: {file}", ("path", "label"))
    if "split" not in table:
        table["split"] = _WITHOUT_SPLITS
    _check_rows(file, table, dataset.follow_symlinks)
    has_splits = table["split"].nunique() > 1 or table["split"].iloc[0] != _WITHOUT_SPLITS
    roles = (
        choose_roles(dataset, list(table["split"].unique()), f"the column split of {file}")
        if has_splits
        else {"train": _WITHOUT_SPLITS}
    )
    named = {
        role: list(table.loc[table["split"] == split, ["path", "label"]].itertuples(index=False, name=None))
        for role, split in roles.items()
    }
    left_out = table[~table["split"].isin(list(roles.values()))]
    notes = [f"the run ignores {counted(len(left_out), 'row')} of splits without a role"] if len(left_out) else []
    source = _source(str(file), file.parent, named, Counter(), notes)
    if "group" not in table:
        return source
    if dataset.group_pattern is not None:
        raise InputError(
            f"The column group of {file} and dataset.group_pattern both define groups. Remove the column, or set "
            "dataset.group_pattern=null."
        )
    grouped = table[table["group"] != ""]
    return replace(source, groups=dict(zip(grouped["path"], grouped["group"], strict=True)))


def _check_rows(file: Path, table: pd.DataFrame, follow_symlinks: bool) -> None:
    def lines(wrong: pd.Series) -> str:
        # The first row of data is the second line.
        return shorten([f"line {index + 2} ({table['path'][index]})" for index in table.index[wrong]])

    if table.empty:
        raise InputError(f"dataset.path: {file} has no rows.")
    root = file.parent.resolve()
    for fault, wrong in {
        "without a path, a label or a split": (table[["path", "label", "split"]] == "").any(axis=1),
        "with a repeated path": table["path"].duplicated(),
        "whose path leaves the CSV's folder (dataset.follow_symlinks=true allows it)": ~table["path"].map(
            lambda path: follow_symlinks or Path(os.path.realpath(root / path)).is_relative_to(root)
        ),
    }.items():
        if wrong.any():
            raise InputError(f"dataset.path: {file} has {counted(wrong.sum(), 'row')} {fault}: {lines(wrong)}.")


def _source(
    name: str, root: Path, named: dict[str, list[tuple[str, str]]], ignored: Counter[str], notes: list[str]
) -> FilesSource:
    """Number the classes of ``(path, class name)`` pairs in natural order."""
    given = {class_name for pairs in named.values() for _, class_name in pairs}
    for what, names in {"class name": given, "path": {path for pairs in named.values() for path, _ in pairs}}.items():
        if wrong := [name for name in names if not is_showable(name)]:
            raise InputError(
                f"dataset.path: {counted(len(wrong), what)} with line breaks, control characters or invalid UTF-8: "
                f"{shorten(sorted(map(ascii, wrong)))}. Rename them."
            )
    # macOS and Linux encode ü differently; a copied folder may hold both forms.
    composed = {class_name: unicodedata.normalize("NFC", class_name) for class_name in given}
    twins = Counter(composed.values())
    notes += [f"class folders that differ only in their Unicode form were joined: {n}" for n in twins if twins[n] > 1]
    class_names = tuple(sorted(twins, key=natural_key))
    labels = {class_name: index for index, class_name in enumerate(class_names)}
    return FilesSource(
        name=name,
        root=str(root),
        files={role: [(path, labels[composed[name]]) for path, name in pairs] for role, pairs in named.items()},
        class_names=class_names,
        ignored=dict(ignored),
        notes=[printable(note) for note in notes],
    )


class _Walk:
    """Finds images below folders, in natural order, and counts other entries."""

    def __init__(self, root: Path, follow_symlinks: bool) -> None:
        self._root, self._follow_symlinks = root, follow_symlinks
        self._escaping: list[str] = []
        self._empty: list[str] = []
        self.ignored: Counter[str] = Counter()
        self.notes: list[str] = []

    def subfolders(self, folder: Path) -> list[str]:
        """Names of the visible folders in a folder."""
        return [entry.name for entry in self._entries(folder, count=False) if entry.is_dir()]

    def images(self, split: Path) -> list[Path]:
        """Images in the class folders of a split."""
        images = self._images(split, (os.path.realpath(split),))
        if loose := [path for path in images if path.parent == split]:
            self.ignored["image outside any class folder"] += len(loose)
        return [path for path in images if path.parent != split]

    def raise_faults(self) -> None:
        """Report all faults of one kind at once."""
        if self._escaping:
            raise InputError(
                f"dataset.path: {self._root} has {counted(len(self._escaping), 'symbolic link')} to other places: "
                f"{shorten(self._escaping)}. Set dataset.follow_symlinks=true to allow it."
            )
        if self._empty:
            raise InputError(
                f"dataset.path: {counted(len(self._empty), 'class folder')} without images in {self._root}: "
                f"{shorten(self._empty)}. Add images, or remove the folders."
            )

    def _images(self, folder: Path, ancestors: tuple[str, ...]) -> list[Path]:
        images, empty = [], []
        for entry in self._entries(folder, count=True):
            path = folder / entry.name
            if entry.is_dir():
                if (real := os.path.realpath(path)) in ancestors:
                    self.notes.append(f"a link to one of its parent folders was not followed: {self._relative(path)}")
                    continue
                below = self._images(path, (*ancestors, real))
                images += below
                empty += [] if below else [self._relative(path)]
            elif not entry.is_file():
                self.ignored["broken link or special file"] += 1
            elif path.suffix.lower() in IMAGE_SUFFIXES or is_image(path):
                images.append(path)
            else:
                self.ignored["not an image"] += 1
        # An empty folder inside a class may hold notes; one beside classes should be a class.
        if folder == self._root or not any(path.parent == folder for path in images):
            self._empty += empty
        return images

    def _entries(self, folder: Path, count: bool) -> Iterator[os.DirEntry[str]]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: natural_key(entry.name))
        except OSError as error:
            raise InputError(f"dataset.path: {folder} cannot be listed: {error.strerror}.") from error
        for entry in entries:
            if entry.name.startswith("."):
                self.ignored["hidden"] += count
            elif self._leaves_root(entry):
                self._escaping += [self._relative(folder / entry.name)] if count else []
            elif entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110  pathlib refuses some links
                self.ignored["broken link or special file"] += count
            else:
                yield entry

    def _leaves_root(self, entry: os.DirEntry[str]) -> bool:
        if self._follow_symlinks or not entry.is_symlink():
            return False
        return not Path(os.path.realpath(entry.path)).is_relative_to(self._root)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()
