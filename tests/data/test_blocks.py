"""Looking and preparing by blocks: as without them, elsewhere too, and each block once, whatever is killed."""

import multiprocessing
import pickle
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from efficientnet_finetuning.data.decode import decode
from efficientnet_finetuning.data.inspection import inspect_images, look
from efficientnet_finetuning.data.prepare import prepare
from efficientnet_finetuning.data.sources import EncodedImage, Source, open_source
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import DatasetParameters

SIDE = 32


@pytest.fixture
def write_shards(tmp_path, tfds_sets):
    """Writes 50 training images in shards of 20 or so, and 20 test images, and returns the data_dir."""
    import tensorflow_datasets as tfds

    features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["a", "b"])}
    generator = np.random.default_rng(0)

    def examples(count: int) -> list[dict]:
        pixels = generator.integers(0, 256, (count, 9, 12, 3), np.uint8)
        return [{"image": image, "label": index % 2} for index, image in enumerate(pixels)]

    tfds_sets.write_set(
        tmp_path, "shapes", "1.0.0", features, {"train": examples(50), "test": examples(20)}, examples_per_shard=20
    )
    return tmp_path


@pytest.fixture(params=["folder", "csv", "tfds"])
def parameters(request, tmp_path, write_classes) -> DatasetParameters:
    """A set of 50 training images and 20 test images of each kind of source."""
    if request.param == "tfds":
        return DatasetParameters(name="shapes", data_dir=request.getfixturevalue("write_shards"))
    root = write_classes(tmp_path, {"train/a": 25, "train/b": 25, "test/a": 10, "test/b": 10})
    if request.param == "folder":
        return DatasetParameters(path=root)
    lines = [f"{file.relative_to(root)},{file.parts[-2]},{file.parts[-3]}" for file in sorted(root.glob("*/*/*.png"))]
    (root / "labels.csv").write_text("\n".join(["path,label,split", *lines]))
    return DatasetParameters(path=root / "labels.csv")


def listing(source: Source, split: str = "train") -> pd.DataFrame:
    """A manifest of all images of a split."""
    return pd.DataFrame(source.labels(split), columns=["id", "label"]).assign(split="train", source_split=split)


def prepared(source: Source, manifest: pd.DataFrame, **how) -> np.ndarray:
    return prepare(source, manifest, 2, "train", image_size=SIDE, **how).images


def pixels(image: EncodedImage) -> np.ndarray:
    return decode(image, SIDE, "stretch", "bicubic")


def test_findings_and_pixels_are_those_of_one_image_after_the_other(parameters):
    source = open_source(parameters)
    findings = inspect_images(source, parameters, 100.0, seed=0, block_size=7)
    images = [(split, image) for split in source.splits for image in source.images(split)]
    assert len(findings) == 70
    for (split, image), row in zip(images, findings.to_dict("records"), strict=True):
        assert look(image, 100.0) | {"source_split": split} == {
            key: row[key] for key in (*look(image, 1), "source_split")
        }
    pd.testing.assert_frame_equal(findings, inspect_images(source, parameters, 100.0, seed=0))
    # Some images of several splits, as a manifest that leaves some out.
    manifest = pd.concat([listing(source), listing(source, "test")])[::3]
    wanted = [pixels(image) for _, image in images if image.id in set(manifest["id"])]
    assert np.array_equal(prepared(source, manifest, block_size=4), wanted)


def test_a_subset_is_the_same_by_blocks(parameters):
    parameters = parameters.model_copy(update={"max_per_class": 8})
    source = open_source(parameters)
    whole, blocks = (inspect_images(source, parameters, 100.0, seed=3, block_size=size) for size in (1000, 3))
    assert len(whole) == 32
    pd.testing.assert_frame_equal(whole, blocks)


@pytest.mark.parametrize(
    ("split", "test_split"),
    [
        ("train", "test"),
        ("train[:80%]", "test"),
        ("train[13:47]", "test"),
        ("train[-7:]", "test"),
        ("train[1shard]", "test"),
        ("train[35:]+test[:5]", "test[5:]"),
        ("test+train[20:40]", "train[:20]"),
    ],
)
def test_blocks_of_a_sub_split_are_what_tfds_reads(write_shards, split, test_split):
    import tensorflow_datasets as tfds

    named = {"name": "shapes", "data_dir": write_shards}
    source = open_source(DatasetParameters(**named, train_split=split, test_split=test_split))
    builder = tfds.builder_from_directory(source.directory)
    stored = builder.as_dataset(
        split=split,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(interleave_cycle_length=1),
    )
    expected = [
        EncodedImage(f"{split}/{index:06d}", row["image"], row["label"])
        for index, row in enumerate(stored.as_numpy_iterator())
    ]
    blocks = [pickle.loads(pickle.dumps(block)) for block in source.blocks("train", size=6)]
    assert [len(block) for block in blocks[:-1]] == [6] * (len(blocks) - 1)
    # From the last one, since none needs those before it.
    assert [list(block) for block in blocks[::-1]][::-1] == [expected[i : i + 6] for i in range(0, len(expected), 6)]
    assert list(source.images("train")) == expected
    assert list(source.labels("train")) == [(image.id, image.label) for image in expected]


@pytest.mark.slow
def test_other_processes_compute_the_same(tmp_path, write_classes):
    parameters = DatasetParameters(path=write_classes(tmp_path / "photos", {"a": 20, "b": 20}))
    source = open_source(parameters)
    manifest = listing(source)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        elsewhere = {"map_blocks": pool.map, "block_size": 6}
        findings = inspect_images(source, parameters, 100.0, seed=0, folder=tmp_path / "looks", **elsewhere)
        images = prepared(source, manifest, folder=tmp_path / "pixels", **elsewhere)
    pd.testing.assert_frame_equal(findings, inspect_images(source, parameters, 100.0, seed=0))
    assert np.array_equal(images, prepared(source, manifest))


def files_of(folder: Path) -> dict[str, int]:
    """The results of blocks that a folder has, and when each was written."""
    return {file.name: file.stat().st_mtime_ns for file in sorted(folder.glob("*/*.json"))}


PREPARE = """
import sys
from pathlib import Path
import pandas as pd
from efficientnet_finetuning.data.prepare import prepare
from efficientnet_finetuning.data.sources import open_source
from efficientnet_finetuning.parameters import DatasetParameters
source = open_source(DatasetParameters(path=sys.argv[1]))
manifest = pd.DataFrame(source.labels("train"), columns=["id", "label"]).assign(split="train", source_split="train")
prepare(source, manifest, 2, "train", image_size=32, folder=Path(sys.argv[2]), block_size=8)
"""


@pytest.mark.slow
def test_a_killed_preparation_goes_on_with_the_blocks_that_are_missing(tmp_path, write_images):
    names = [f"{'ab'[index % 2]}/{index}.png" for index in range(100)]
    root, folder = write_images(tmp_path / "photos", *names, size=(500, 400)), tmp_path / "kept"
    source = open_source(DatasetParameters(path=root))
    manifest = listing(source)
    undisturbed = np.array(prepared(source, manifest))
    process = subprocess.Popen([sys.executable, "-c", PREPARE, root, folder])
    while len(files_of(folder)) < 3:
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.wait()
    before = files_of(folder)
    assert 3 <= len(before) < 13
    for id_ in manifest["id"][: 8 * len(before)]:
        (root / id_).write_bytes(b"")  # whoever decodes these once more will say so
    assert np.array_equal(prepared(source, manifest, folder=folder, block_size=8), undisturbed)
    after = files_of(folder)
    assert len(after) == 13
    assert {name: after[name] for name in before} == before


def flip_a_byte(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def test_damaged_blocks_are_made_again_and_no_others(tmp_path, write_classes):
    parameters = DatasetParameters(path=write_classes(tmp_path / "photos", {"a": 20, "b": 20}))
    source, folder = open_source(parameters), tmp_path / "kept"
    manifest = listing(source)

    def images() -> np.ndarray:
        return np.array(prepared(source, manifest, folder=folder, block_size=10))

    def looks() -> pd.DataFrame:
        return inspect_images(source, parameters, 100.0, seed=0, folder=folder / "looks", block_size=10)

    for work, same, place in ((images, np.array_equal, folder), (looks, pd.DataFrame.equals, folder / "looks")):
        first, before = work(), files_of(place)
        if work is images:
            flip_a_byte(folder / "train_images.npy", -1)  # of the last block
        flip_a_byte(place / "train" / "000001.json", 20)
        (place / "train" / "000002.json").write_text("")
        assert same(work(), first)
        anew = [name for name, when in files_of(place).items() if when != before[name]]
        assert anew == ["000001.json", "000002.json", "000003.json"][: 3 if work is images else 2]


def test_a_result_of_fewer_rows_is_not_believed(tmp_path, write_classes):
    """A run of before may have had other blocks."""
    source = open_source(DatasetParameters(path=write_classes(tmp_path / "photos", {"a": 20, "b": 20})))
    manifest, folder = listing(source), tmp_path / "kept"
    prepared(source, manifest, folder=folder, block_size=5)
    assert np.array_equal(prepared(source, manifest, folder=folder, block_size=10), prepared(source, manifest))


def test_what_the_disk_has_no_room_for_is_refused_before_anything_is_decoded(tmp_path, write_classes):
    root, folder = write_classes(tmp_path / "photos", {"a": 10, "b": 10}), tmp_path / "kept"
    source = open_source(DatasetParameters(path=root))
    manifest = listing(source)
    for file in root.glob("*/*"):
        file.write_bytes(b"")
    with pytest.raises(
        InputError, match=rf"^Storing train_images needs [\d,]+ MB in {folder}, but only [\d,]+ MB are free"
    ):
        prepare(source, manifest, 2, "train", image_size=1_000_000, folder=folder)


def test_an_image_that_has_vanished_is_named_wherever_it_is_decoded(tmp_path, write_classes):
    root = write_classes(tmp_path / "photos", {"a": 10, "b": 10})
    source = open_source(DatasetParameters(path=root))
    (root / "a" / "3.png").unlink()
    with (
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool,
        pytest.raises(InputError, match=r"The image a/3\.png was found earlier, but cannot be read now"),
    ):
        prepared(source, listing(source), map_blocks=pool.map)


def test_a_manifest_that_names_images_which_are_not_there_is_no_array(tmp_path, write_classes):
    source = open_source(DatasetParameters(path=write_classes(tmp_path, {"a": 10, "b": 10})))
    manifest = listing(source)
    with pytest.raises(RuntimeError, match="has 19 rows instead of 20"):
        prepared(source, manifest.assign(id=manifest["id"].replace("b/3.png", "b/x.png")))
