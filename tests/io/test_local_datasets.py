import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kedro.io import DatasetError, Version
from matplotlib.figure import Figure
from PIL import Image

from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.data.sources import open_source
from efficientnet_finetuning.io.arrays import ArraysDataset, ExamplesDataset
from efficientnet_finetuning.io.committed import FigureDataset
from efficientnet_finetuning.io.sources import SourceDataset
from efficientnet_finetuning.parameters import DatasetParameters

FIRST, SECOND = "2026-01-01T00.00.00.000Z", "2026-01-02T00.00.00.000Z"
PIXELS = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)


def examples_dataset(folder: Path, save: str | None = None, load: str | None = None) -> ExamplesDataset:
    return ExamplesDataset(filepath=str(folder / "train_images"), version=Version(load, save))


def examples(pixels=PIXELS) -> Examples:
    labels = np.eye(3, dtype=np.uint8)[np.arange(5) % 3]
    return Examples(pixels, labels, np.array([f"äpfel/{index}.png" for index in range(5)]))


@pytest.fixture
def photos(tmp_path) -> Path:
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(10):
            Image.new("RGB", (5, 4), (index, 0, 0)).save(tmp_path / "photos" / name / f"{index}.png")
    return tmp_path / "photos"


def test_examples_load_as_memory_maps(tmp_path):
    saved = examples()
    examples_dataset(tmp_path, FIRST).save(saved)
    loaded = examples_dataset(tmp_path).load()
    assert isinstance(loaded.images, np.memmap)
    assert np.array_equal(loaded.images, PIXELS)
    assert loaded.images.dtype == np.uint8
    assert np.array_equal(loaded.labels, saved.labels)
    assert loaded.ids.tolist() == saved.ids.tolist()
    assert loaded.arrays[0] is loaded.images
    assert len(loaded) == 5
    with pytest.raises(ValueError, match="read-only"):
        loaded.images[0] = 0


def test_a_dataset_exists_once_it_is_saved_in_a_folder_of_its_version(tmp_path):
    dataset = examples_dataset(tmp_path, FIRST)
    assert not dataset.exists()
    dataset.save(examples())
    assert dataset.exists()
    assert examples_dataset(tmp_path).exists()
    files = {path.name for path in (tmp_path / "train_images" / FIRST / "train_images").iterdir()}
    assert files == {"images.npy", "labels.npy", "ids.npy"}


def test_the_latest_version_loads_unless_another_one_is_named(tmp_path):
    examples_dataset(tmp_path, FIRST).save(examples())
    examples_dataset(tmp_path, SECOND).save(examples(PIXELS + 1))
    assert np.array_equal(examples_dataset(tmp_path).load().images, PIXELS + 1)
    assert np.array_equal(examples_dataset(tmp_path, load=FIRST).load().images, PIXELS)


def test_a_version_is_never_overwritten(tmp_path):
    examples_dataset(tmp_path, FIRST).save(examples())
    with pytest.raises(DatasetError, match="must not exist"):
        examples_dataset(tmp_path, FIRST).save(examples(PIXELS + 1))
    assert np.array_equal(examples_dataset(tmp_path).load().images, PIXELS)


def test_a_file_that_holds_the_images_already_is_not_copied_and_may_be_removed(tmp_path):
    file = tmp_path / "prepared.npy"
    np.save(file, PIXELS)
    place = file.stat().st_ino
    examples_dataset(tmp_path, FIRST).save(examples(np.load(file, mmap_mode="r")))
    file.unlink()
    loaded = examples_dataset(tmp_path).load()
    assert Path(loaded.images.filename).stat().st_ino == place
    assert np.array_equal(loaded.images, PIXELS)


@pytest.mark.parametrize("part", [np.s_[::-1], np.s_[:, ::-1], np.s_[[4, 3, 2, 1, 0]]])
def test_a_view_of_a_file_is_stored_as_it_is(tmp_path, part):
    np.save(tmp_path / "prepared.npy", PIXELS)
    examples_dataset(tmp_path, FIRST).save(examples(np.load(tmp_path / "prepared.npy", mmap_mode="r")[part]))
    assert np.array_equal(examples_dataset(tmp_path).load().images, PIXELS[part])


def test_images_whose_file_is_gone_are_copied(tmp_path):
    np.save(tmp_path / "prepared.npy", PIXELS)
    images = np.load(tmp_path / "prepared.npy", mmap_mode="r")
    (tmp_path / "prepared.npy").unlink()
    examples_dataset(tmp_path, FIRST).save(examples(images))
    assert np.array_equal(examples_dataset(tmp_path).load().images, PIXELS)


# What no .npy file can hold.
UNWRITABLE = np.array([object()] * 5)


def test_a_write_that_fails_leaves_nothing_under_the_final_name(tmp_path):
    dataset = examples_dataset(tmp_path, FIRST)
    with pytest.raises(DatasetError, match="Object arrays"):
        dataset.save(examples(UNWRITABLE))
    assert not (tmp_path / "train_images" / FIRST / "train_images").exists()
    assert not dataset.exists()
    assert not examples_dataset(tmp_path).exists()
    dataset.save(examples())
    assert np.array_equal(examples_dataset(tmp_path).load().images, PIXELS)


def test_after_a_write_that_fails_the_older_version_still_loads(tmp_path):
    examples_dataset(tmp_path, FIRST).save(examples())
    with pytest.raises(DatasetError):
        examples_dataset(tmp_path, SECOND).save(examples(UNWRITABLE))
    assert np.array_equal(examples_dataset(tmp_path).load().images, PIXELS)
    assert not examples_dataset(tmp_path, load=SECOND).exists()


def test_named_arrays_keep_names_types_and_values(tmp_path):
    arrays = {"train": np.linspace(0, 1, 6, dtype=np.float32).reshape(3, 2), "seconds": np.array(1.5)}
    filepath = str(tmp_path / "features")
    ArraysDataset(filepath=filepath, version=Version(None, FIRST)).save(arrays)
    loaded = ArraysDataset(filepath=filepath, version=Version(None, None)).load()
    assert set(loaded) == {"train", "seconds"}
    for name, array in arrays.items():
        assert isinstance(loaded[name], np.memmap)
        assert loaded[name].dtype == array.dtype
        assert np.array_equal(loaded[name], array)


@pytest.mark.parametrize("kind", ["folder", "tfds"])
def test_a_source_is_opened_again_from_its_listing(tmp_path, photos, kind):
    samples = Path(__file__).parents[2] / "data" / "01_raw"
    given = {"path": photos} if kind == "folder" else {"name": "cifar10_sample", "data_dir": samples}
    source = open_source(DatasetParameters(**given))
    filepath = str(tmp_path / "source.json")
    SourceDataset(filepath=filepath, version=Version(None, FIRST)).save(source)
    loaded = SourceDataset(filepath=filepath, version=Version(None, None)).load()
    assert type(loaded) is type(source)
    assert (loaded.class_names, loaded.splits) == (source.class_names, source.splits)
    assert list(loaded.images("train")) == list(source.images("train"))


def test_importing_the_datasets_imports_neither_keras_nor_tensorflow():
    code = (
        "import sys, efficientnet_finetuning.io.arrays, efficientnet_finetuning.io.models\n"
        "import efficientnet_finetuning.io.sources\n"
        "print(sorted({'keras', 'tensorflow', 'tensorflow_datasets', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_figure_loads_as_the_bytes_of_its_picture_and_a_damaged_one_is_refused(tmp_path):
    dataset = FigureDataset(filepath=str(tmp_path / "figure.png"), version=Version(None, FIRST))
    dataset.save(Figure(figsize=(1, 1)))
    content = dataset.load()
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.size == (110, 110)
    dataset.path.write_bytes(content[:50])
    with pytest.raises(DatasetError, match=r"figure\.png"):
        FigureDataset(filepath=str(tmp_path / "figure.png"), version=Version(FIRST, None)).load()
