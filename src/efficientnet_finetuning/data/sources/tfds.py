"""Sets of TensorFlow Datasets (TFDS): known by name, or prepared in a folder."""

import os
import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain, combinations, product
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import HTTPError
from urllib.request import Request, build_opener

from efficientnet_finetuning.data.blocks import BLOCK_SIZE, cut
from efficientnet_finetuning.data.encoded import EncodedImage
from efficientnet_finetuning.data.sources.source import Block, choose_roles
from efficientnet_finetuning.errors import InputError, near_matches
from efficientnet_finetuning.parameters import DatasetParameters

_DOWNLOAD_FAILED = """The set {0} is not prepared in {1} and could not be downloaded: {2}
Without a network you can:
  1. prepare the set on a machine with a network (tfds build {0}), copy its folder here, and set dataset.data_dir to
     the folder that holds it. Also copy the ImageNet weights, and set backbone.weights to their file;
  2. use your own images (--env folder): set dataset.path to a folder with one folder per class;
  3. run without --env, which trains on the images that come with the project."""


@dataclass(frozen=True)
class TfdsSource:
    """A prepared TFDS set. An id is the split's name and the image's position in it.

    Attributes:
        directory: folder of the prepared set, with ``dataset_info.json``.
        image_key, label_key: names of its features.
        roles: TFDS split of each role.
    """

    KIND: ClassVar[str] = "tfds"

    name: str
    directory: str
    image_key: str
    label_key: str
    roles: dict[str, str]
    splits: dict[str, int]
    class_names: tuple[str, ...]
    ignored: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)

    def images(self, split: str, ids: Container[str] | None = None) -> Iterator[EncodedImage]:
        return chain.from_iterable(self.blocks(split, ids))

    def blocks(self, split: str, ids: Container[str] | None = None, size: int = BLOCK_SIZE) -> Iterator[Block]:
        every = range(self.splits[split])
        wanted = every if ids is None else (index for index in every if self._id(split, index) in ids)
        return (_Examples(self, split, tuple(positions)) for positions in cut(wanted, size))

    def labels(self, split: str) -> Iterator[tuple[str, int]]:
        for index, record in enumerate(self._records(split, 0, self.splits[split])):
            yield self._id(split, index), _features(record)[self.label_key].int64_list.value[0]

    def _id(self, split: str, index: int) -> str:
        return f"{self.roles[split]}/{index:06d}"

    def _records(self, split: str, start: int, stop: int) -> Iterator[bytes]:
        """Examples of a split from one position to another, as stored.

        TFDS' own ``as_dataset`` takes three times as long for a thousand small images, because it builds a graph to
        parse them.
        """
        import tensorflow as tf
        import tensorflow_datasets as tfds

        info = tfds.builder_from_directory(self.directory).info
        adapter = tfds.core.file_adapters.ADAPTER_FOR_FORMAT[info.file_format]
        begins = 0
        for part in info.splits[self.roles[split]].file_instructions:
            first, last = max(start - begins, 0), min(stop - begins, part.take)
            begins += part.take
            if first < last:
                records = adapter.make_tf_data(part.filename).skip(part.skip + first).take(last - first)
                checked = records.apply(tf.data.experimental.assert_cardinality(last - first))
                yield from checked.as_numpy_iterator()

    def describe(self) -> dict[str, Any]:
        return {"kind": self.KIND} | asdict(self)


@dataclass(frozen=True)
class _Examples:
    """A block: the images at ascending positions of a split."""

    source: TfdsSource
    split: str
    positions: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[EncodedImage]:
        first, wanted, source = self.positions[0], set(self.positions), self.source
        for index, record in enumerate(source._records(self.split, first, self.positions[-1] + 1), first):
            if index in wanted:
                features = _features(record)
                content, label = features[source.image_key].bytes_list, features[source.label_key].int64_list
                yield EncodedImage(source._id(self.split, index), content.value[0], label.value[0])


def _features(record: bytes) -> Mapping[str, Any]:
    import tensorflow as tf

    features: Mapping[str, Any] = tf.train.Example.FromString(record).features.feature
    return features


def is_prepared_set(folder: Path) -> bool:
    """Whether a folder holds one version of a prepared set."""
    return (folder / "dataset_info.json").is_file()


def set_folder(dataset: DatasetParameters) -> Path:
    """The folder of a named set, with all its prepared versions. Does not import TFDS."""
    data_dir = dataset.data_dir or Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"))
    return data_dir.expanduser() / re.split("[/:]", str(dataset.name))[0]


def open_tfds(dataset: DatasetParameters) -> TfdsSource:
    """Open the set ``dataset.name``; raises ``InputError`` if it, a split or a feature is missing."""
    return _source(_prepared_builder(dataset), dataset)


def open_prepared_set(folder: Path, dataset: DatasetParameters) -> TfdsSource:
    """Open the set in a folder; raises ``InputError`` if it is damaged, or a split or feature is missing."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(folder)
    except Exception as error:  # damage raises many kinds of errors
        raise InputError(f"dataset.path: TFDS cannot open the prepared set in {folder}: {error}") from error
    return _source(builder, dataset)


def _source(builder, dataset: DatasetParameters) -> TfdsSource:
    import tensorflow_datasets as tfds

    keys = builder.info.supervised_keys or (None, None)
    image_key, label_key = dataset.image_key or keys[0], dataset.label_key or keys[1]
    image_key = _checked_feature(builder, "image_key", image_key, tfds.features.Image)
    label_key = _checked_feature(builder, "label_key", label_key, tfds.features.ClassLabel)
    roles = choose_roles(dataset, list(builder.info.splits), f"the set {builder.name}")
    splits = {role: _sub_split(builder, role, split) for role, split in roles.items()}
    _check_no_overlap(roles, splits)
    return TfdsSource(
        name=builder.info.full_name,
        directory=str(builder.data_path),
        image_key=image_key,
        label_key=label_key,
        roles=roles,
        splits={role: split.num_examples for role, split in splits.items()},
        class_names=tuple(builder.info.features[label_key].names),
    )


def _prepared_builder(dataset: DatasetParameters):
    """The builder of a prepared set; downloads the set first if needed and allowed."""
    check_name(dataset)
    import tensorflow_datasets as tfds

    data_dir = dataset.data_dir and dataset.data_dir.expanduser()
    searched = data_dir or Path(tfds.core.constants.DATA_DIR)
    try:
        builder = tfds.builder(dataset.name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, AssertionError, ValueError, FileNotFoundError) as error:
        raise InputError(f"dataset.name: TFDS cannot open {dataset.name!r} in {searched}: {error}") from error
    if is_prepared_set(Path(builder.data_path)):
        return builder
    if not dataset.download:
        raise InputError(
            f"The set {dataset.name} is not prepared in {searched}, and dataset.download is false. Set "
            "dataset.data_dir to the folder that holds it, or allow the download."
        )
    _check_manual_download(builder, dataset, searched)
    try:
        _check_network(builder)
        builder.download_and_prepare()
    except Exception as error:  # requests, TFDS, a full disk: each has its own kinds
        raise InputError(_DOWNLOAD_FAILED.format(dataset.name, searched, str(error) or type(error).__name__)) from error
    return builder


def _check_manual_download(builder, dataset: DatasetParameters, searched: Path) -> None:
    """Refuse sets whose files the user must download by hand, until the files are there."""
    folder = searched / "downloads" / "manual"
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and not (folder.is_dir() and any(folder.iterdir())):
        instructions = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        raise InputError(
            f"The set {dataset.name} is not prepared in {searched}, and TFDS cannot download it. Download its "
            f"files by hand into {folder}, then run again. Instructions of TFDS: {instructions}"
        )


def _check_network(builder) -> None:
    """Fail fast without a network: TFDS retries for minutes before it reports an error."""
    url = next(iter(builder.url_infos or ()), None)
    if url is None:
        return
    try:
        # urlopen keeps the proxies that were set when it was first called.
        build_opener().open(Request(url, method="HEAD"), timeout=15).close()  # noqa: S310  an address of TFDS' own
    except HTTPError:
        pass  # some servers refuse HEAD, but they answer
    except OSError as error:
        raise ConnectionError(f"{url} cannot be reached: {getattr(error, 'reason', error)}") from error


def check_name(dataset: DatasetParameters) -> None:
    """Refuse a name that neither TFDS nor the folder knows, before TensorFlow is imported."""
    name = re.split("[:/]", str(dataset.name))[0]
    if dataset.data_dir and (dataset.data_dir.expanduser() / name).is_dir():
        return
    import tensorflow_datasets as tfds  # light until a builder is made

    known = tfds.list_builders(with_community_datasets=False)
    folder = dataset.data_dir and dataset.data_dir.expanduser()
    prepared = [entry.name for entry in folder.iterdir()] if folder and folder.is_dir() else []
    if name not in known:
        raise InputError(
            f"dataset.name: TensorFlow Datasets has no set {name!r}, and {folder or 'its default folder'} "
            f"(dataset.data_dir) has no prepared one.{near_matches(name, [*known, *prepared])}"
        )


def _sub_split(builder, role: str, split: str):
    """TFDS' description of a split or sub-split, with the examples of each file."""
    try:
        info = builder.info.splits[split]
        if sum(part.take for part in info.file_instructions) < 1:
            raise ValueError("it has no images")
    except (AssertionError, KeyError, ValueError) as error:
        raise InputError(
            f"dataset.{role}_split: {builder.name} has no split {split!r}: {error}. "
            "Write a sub-split like train[:80%] or train[100:200]."
        ) from error
    return info


def _check_no_overlap(roles: dict[str, str], splits: dict[str, Any]) -> None:
    """Refuse sub-splits that share images: test images must not be training images."""
    for (one, first), (other, second) in combinations(splits.items(), 2):
        for a, b in product(first.file_instructions, second.file_instructions):
            if a.filename == b.filename and a.skip < b.skip + b.take and b.skip < a.skip + a.take:
                raise InputError(
                    f"dataset.{one}_split ({roles[one]}) and dataset.{other}_split ({roles[other]}) share images. "
                    "Use sub-splits without common images, such as train[:90%] and train[90%:]."
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
