"""Where images come from: a TensorFlow Datasets set or a folder of class folders, behind one small protocol.

A source lists its splits and class names and yields encoded images in a fixed order. The rest of the program never
asks which kind it has.
"""

import re
from collections.abc import Container, Iterator
from dataclasses import asdict, dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from efficientnet_finetuning.errors import InputError, near_matches
from efficientnet_finetuning.parameters import DatasetParameters

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
# What people call the split that chooses between models.
_VALIDATION_NAMES = ("validation", "val", "valid")


class EncodedImage(NamedTuple):
    """One image as it lies on disk: a stable id, the file's bytes, the index of its class."""

    id: str
    encoded: bytes
    label: int


class Source(Protocol):
    """A labelled image set.

    Attributes:
        class_names: in the order of the labels.
        splits: number of images of each split that is used, by role: ``train`` and, where the set has them,
            ``validation`` and ``test``.
    """

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def splits(self) -> dict[str, int]: ...

    def images(self, split: str, ids: Container[str] | None = None) -> Iterator[EncodedImage]:
        """Yield the images of a split, or those of ``ids``, in an order that never changes."""
        ...

    def describe(self) -> dict[str, Any]:
        """What is needed to open the source again, as JSON: see :func:`reopen`."""
        ...


def open_source(dataset: DatasetParameters) -> Source:
    """Find the images that the parameters name, downloading a TFDS set where that is needed and allowed.

    Raises:
        InputError: there is no such set, folder, split or feature, or it cannot be had.
    """
    source: Source = _open_folder(dataset) if dataset.path else _open_tfds(dataset)
    if len(source.class_names) < 2:
        raise InputError(
            f"{_name(dataset)} has {len(source.class_names)} class(es): {', '.join(source.class_names)}. "
            "A classifier needs at least two."
        )
    return source


def reopen(description: dict[str, Any]) -> Source:
    """Open the source that :meth:`Source.describe` described, without a network."""
    kinds: dict[str, Any] = {kind.KIND: kind for kind in (TfdsSource, FolderSource)}
    fields = {name: value for name, value in description.items() if name != "kind"}
    source: Source = kinds[description["kind"]](**fields | {"class_names": tuple(fields["class_names"])})
    return source


def _name(dataset: DatasetParameters) -> str:
    return f"The folder {dataset.path}" if dataset.path else f"The set {dataset.name}"


def _roles(dataset: DatasetParameters, available: list[str], what: str) -> dict[str, str]:
    """Which of the set's splits plays which role; a role that the set cannot fill is missing."""
    wanted = {"train": dataset.train_split, "validation": dataset.validation_split, "test": dataset.test_split}
    for role, split in wanted.items():
        # A sub-split such as train[:10%] or train+test names splits in front of its brackets.
        for base in re.findall(r"[^+\[\]]+(?=\[|\+|$)", split or ""):
            if base not in available:
                raise InputError(
                    f"dataset.{role}_split: {what} has no split {base!r}.{near_matches(base, available)} "
                    f"It has: {', '.join(available)}."
                )
    roles = {role: split for role, split in wanted.items() if split}
    for role, own_names in (("test", ("test",)), ("validation", _VALIDATION_NAMES)):
        own = next((name for name in own_names if name in available and name not in roles.values()), None)
        if role not in roles and own:
            roles[role] = own
    return roles


# TensorFlow Datasets


@dataclass(frozen=True)
class TfdsSource:
    """A prepared TFDS set.

    Attributes:
        directory: of the prepared set, the one with ``dataset_info.json``.
        image_key, label_key: its features.
        roles: TFDS split of each role.
    """

    KIND: ClassVar[str] = "tfds"

    directory: str
    image_key: str
    label_key: str
    roles: dict[str, str]
    splits: dict[str, int]
    class_names: tuple[str, ...]

    def images(self, split: str, ids: Container[str] | None = None) -> Iterator[EncodedImage]:
        """See :class:`Source`. An id is the split's name and the image's position in it."""
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(self.directory)
        wanted = {self.image_key: tfds.decode.SkipDecoding(), self.label_key: None}
        rows = builder.as_dataset(
            split=self.roles[split],
            shuffle_files=False,
            # Other features (boxes, masks) cost time to parse and may be large.
            decoders=tfds.decode.PartialDecoding(
                dict.fromkeys(wanted, True), decoders={self.image_key: tfds.decode.SkipDecoding()}
            ),
            read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
        )
        for index, row in enumerate(rows.as_numpy_iterator()):
            id_ = f"{self.roles[split]}/{index:06d}"
            if ids is None or id_ in ids:
                yield EncodedImage(id_, row[self.image_key], int(row[self.label_key]))

    def describe(self) -> dict[str, Any]:
        """See :class:`Source`."""
        return {"kind": self.KIND} | asdict(self)


def _open_tfds(dataset: DatasetParameters) -> TfdsSource:
    builder = _prepared_builder(dataset)
    import tensorflow_datasets as tfds

    keys = builder.info.supervised_keys or (None, None)
    image_key, label_key = dataset.image_key or keys[0], dataset.label_key or keys[1]
    image_key = _checked_feature(builder, "image_key", image_key, tfds.features.Image)
    label_key = _checked_feature(builder, "label_key", label_key, tfds.features.ClassLabel)
    roles = _roles(dataset, list(builder.info.splits), f"the set {dataset.name}")
    splits = {role: _sub_split(builder, role, split) for role, split in roles.items()}
    _check_no_overlap(roles, splits)
    return TfdsSource(
        directory=str(builder.data_path),
        image_key=image_key,
        label_key=label_key,
        roles=roles,
        splits={role: split.num_examples for role, split in splits.items()},
        class_names=tuple(builder.info.features[label_key].names),
    )


def _prepared_builder(dataset: DatasetParameters):
    """The builder of a set that lies prepared on disk, downloaded first where that is needed and allowed."""
    _check_name(dataset)
    import tensorflow_datasets as tfds

    data_dir = dataset.data_dir and dataset.data_dir.expanduser()
    searched = data_dir or Path(tfds.core.constants.DATA_DIR)
    try:
        builder = tfds.builder(dataset.name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, AssertionError, ValueError, FileNotFoundError) as error:
        raise InputError(f"dataset.name: TFDS cannot open {dataset.name!r} in {searched}: {error}") from error
    if (Path(builder.data_path) / "dataset_info.json").is_file():
        return builder
    if not dataset.download:
        raise InputError(
            f"The set {dataset.name} is not prepared in {searched}, and dataset.download is false. Set "
            "dataset.data_dir to the folder that holds it, or allow the download."
        )
    try:
        _check_network(builder)
        builder.download_and_prepare()
    except Exception as error:  # requests, TFDS, a full disk: each has its own kinds
        raise InputError(_download_failed(dataset, searched, error)) from error
    return builder


def _check_network(builder) -> None:
    """Ask the set's server for an answer, any answer: TFDS retries for minutes before it says that there is none."""
    url = next(iter(builder.url_infos or ()), None)
    if url is None:
        return
    try:
        urlopen(Request(url, method="HEAD"), timeout=15).close()  # noqa: S310  an address that TFDS wrote down
    except HTTPError:
        pass  # some servers refuse HEAD; this one is there
    except OSError as error:
        raise ConnectionError(f"{url} cannot be reached: {getattr(error, 'reason', error)}") from error


def _download_failed(dataset: DatasetParameters, searched: Path, error: Exception) -> str:
    reason = str(error).strip() or type(error).__name__
    return (
        f"The set {dataset.name} is not prepared in {searched} and could not be downloaded: {reason}\n"
        "Three ways out:\n"
        f"  1. data_dir: prepare the set where there is a network (tfds build {dataset.name}), copy its folder here "
        "and set dataset.data_dir to the folder that holds it;\n"
        "  2. a local weights file: without a network the ImageNet weights must lie here too; set backbone.weights to "
        "the file;\n"
        "  3. another set: dataset.path takes a folder of class folders (--env folder), and without --env the project "
        "trains on the images that come with it."
    )


def _check_name(dataset: DatasetParameters) -> None:
    """Refuse a name that TFDS does not know and the folder does not hold, before TensorFlow is imported."""
    name = re.split("[:/]", str(dataset.name))[0]
    if dataset.data_dir and (dataset.data_dir.expanduser() / name).is_dir():
        return
    import tensorflow_datasets as tfds  # light until a builder is made

    known = tfds.list_builders(with_community_datasets=False)
    folder = dataset.data_dir and dataset.data_dir.expanduser()
    prepared = [entry.name for entry in folder.iterdir()] if folder and folder.is_dir() else []
    if name not in known:
        raise InputError(
            f"dataset.name: TensorFlow Datasets knows no set {name!r}, and there is none prepared in "
            f"dataset.data_dir ({dataset.data_dir}).{near_matches(name, [*known, *prepared])}"
        )


def _sub_split(builder, role: str, split: str):
    """TFDS' description of a split or sub-split: which examples of which file it has."""
    try:
        info = builder.info.splits[split]
        if sum(part.take for part in info.file_instructions) < 1:
            raise ValueError("it has no images")
    except (AssertionError, KeyError, ValueError) as error:
        raise InputError(
            f"dataset.{role}_split: {split!r} is no part of {builder.name}: {error}. "
            "A sub-split reads like train[:80%] or train[100:200]."
        ) from error
    return info


def _check_no_overlap(roles: dict[str, str], splits: dict[str, Any]) -> None:
    """Refuse sub-splits that share images: what is trained on can judge nothing."""
    for (one, first), (other, second) in combinations(splits.items(), 2):
        for a, b in product(first.file_instructions, second.file_instructions):
            if a.filename == b.filename and a.skip < b.skip + b.take and b.skip < a.skip + a.take:
                raise InputError(
                    f"dataset.{one}_split ({roles[one]}) and dataset.{other}_split ({roles[other]}) share images. "
                    "Give sub-splits that do not overlap, such as train[:90%] and train[90%:]."
                )


def _checked_feature(builder, parameter: str, key: str | None, kind: type) -> str:
    features = builder.info.features
    if key is None or key not in features or not isinstance(features[key], kind):
        fitting = [name for name, feature in features.items() if isinstance(feature, kind)]
        raise InputError(
            f"dataset.{parameter}: {builder.name} has no {kind.__name__} feature {key!r}. "
            f"Its {kind.__name__} features: {', '.join(fitting) or 'none'}."
        )
    return key


# Folders


@dataclass(frozen=True)
class FolderSource:
    """Class folders, below split folders where there are any.

    Attributes:
        root: absolute path.
        files: of each role, ``[path relative to the root, label]`` in natural order.
    """

    KIND: ClassVar[str] = "folder"

    root: str
    files: dict[str, list[tuple[str, int]]]
    class_names: tuple[str, ...]

    @property
    def splits(self) -> dict[str, int]:
        return {role: len(files) for role, files in self.files.items()}

    def images(self, split: str, ids: Container[str] | None = None) -> Iterator[EncodedImage]:
        """See :class:`Source`. An id is the path relative to the root."""
        for path, label in self.files[split]:
            if ids is None or path in ids:
                yield EncodedImage(path, self._read(path), label)

    def _read(self, path: str) -> bytes:
        try:
            return (Path(self.root) / path).read_bytes()
        except OSError as error:
            raise InputError(
                f"The image {path} was listed and cannot be read any more: {error}. Run the ingestion again."
            ) from error

    def describe(self) -> dict[str, Any]:
        """See :class:`Source`."""
        return {"kind": self.KIND} | asdict(self)


def _open_folder(dataset: DatasetParameters) -> FolderSource:
    assert dataset.path is not None
    root = dataset.path.expanduser().resolve()
    if not root.is_dir():
        raise InputError(f"dataset.path: {root} is not a folder.")
    folders = _subfolders(root)
    # Split names that were given are meant; without them, and without a folder `train`, the folders are classes.
    given = dataset.model_fields_set & {"train_split", "validation_split", "test_split"}
    has_splits = dataset.train_split in folders or any(getattr(dataset, split) for split in given)
    roles = _roles(dataset, folders, f"the folder {root}") if has_splits else {"train": "."}
    for role, folder in roles.items():
        if has_splits and folder not in folders:
            raise InputError(f"dataset.{role}_split: {folder!r} is no folder in {root}; sub-splits are for TFDS sets.")
    images = {role: _class_images(root / folder) for role, folder in roles.items()}
    class_names = tuple(sorted({name for files in images.values() for name in files}, key=natural_key))
    if not class_names:
        raise InputError(
            f"dataset.path: no images below {root}. Expected {root}/<class>/<image> or {root}/train/<class>/<image>, "
            f"with one of the endings {', '.join(sorted(IMAGE_SUFFIXES))}."
        )
    return FolderSource(
        root=str(root),
        files={
            role: [
                (path.relative_to(root).as_posix(), class_names.index(name))
                for name in sorted(files, key=natural_key)
                for path in files[name]
            ]
            for role, files in images.items()
        },
        class_names=class_names,
    )


def _class_images(folder: Path) -> dict[str, list[Path]]:
    """Images by class name, the class being the folder's first level. A class without images is an error."""
    images = {name: _image_files(folder / name) for name in _subfolders(folder)}
    if empty := [name for name, files in images.items() if not files]:
        raise InputError(
            f"dataset.path: class folder(s) without images in {folder}: {', '.join(empty)}. "
            "Fill them, or move them away."
        )
    return images


def _image_files(folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    visible = (path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    return sorted(visible, key=lambda path: natural_key(str(path)))


def _subfolders(folder: Path) -> list[str]:
    names = (entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return sorted(names, key=natural_key)


def natural_key(text: str) -> tuple[list[tuple[bool, int, str]], str]:
    """Sort key under which ``img2`` comes before ``img10``; different texts never tie."""
    parts = re.findall(r"\d+|\D+", text)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part.casefold()) for part in parts], text
