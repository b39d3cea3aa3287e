import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kedro.io import DatasetError, Version
from matplotlib.figure import Figure
from PIL import Image

from efficientnet_finetuning.data.examples import Examples, LazyRows
from efficientnet_finetuning.data.inspection import inspect_images
from efficientnet_finetuning.data.prepare import prepare
from efficientnet_finetuning.data.sources import open_source
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.io.arrays import ArraysDataset, ExamplesDataset
from efficientnet_finetuning.io.committed import FigureDataset
from efficientnet_finetuning.io.sources import SourceDataset
from efficientnet_finetuning.parameters import DatasetParameters

FIRST, SECOND = "2026-01-01T00.00.00.000Z", "2026-01-02T00.00.00.000Z"
PIXELS = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)


def examples_dataset(folder: Path, save: str | None = None, load: str | None = None) -> ExamplesDataset:
    return ExamplesDataset(filepath=str(folder / "train_images"), version=Version(load, save))


def examples(rows=PIXELS, count: int = 5) -> Examples:
    labels = np.eye(3, dtype=np.uint8)[np.arange(count) % 3]
    images = LazyRows((count, 4, 4, 3), np.dtype(np.uint8), rows)
    return Examples(images, labels, np.array([f"äpfel/{index}.png" for index in range(count)]))


@pytest.fixture
def photos(tmp_path) -> Path:
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(10):
            Image.new("RGB", (5, 4), (index, 0, 0)).save(tmp_path / "photos" / name / f"{index}.png")
    return tmp_path / "photos"


def test_lazy_examples_are_stored_row_by_row_and_load_as_memory_maps(tmp_path):
    saved = examples(iter(PIXELS))
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


def failing_rows():
    yield from PIXELS[:3]
    raise InputError("The image b/3.png cannot be decoded.")


def test_a_write_that_fails_leaves_nothing_under_the_final_name(tmp_path):
    dataset = examples_dataset(tmp_path, FIRST)
    with pytest.raises(DatasetError, match=r"b/3\.png cannot be decoded") as caught:
        dataset.save(examples(failing_rows()))
    assert isinstance(caught.value.__cause__, InputError)
    assert not (tmp_path / "train_images" / FIRST / "train_images").exists()
    assert not dataset.exists()
    assert not examples_dataset(tmp_path).exists()
    dataset.save(examples())
    assert np.array_equal(examples_dataset(tmp_path).load().images, PIXELS)


def test_after_a_write_that_fails_the_older_version_still_loads(tmp_path):
    examples_dataset(tmp_path, FIRST).save(examples())
    with pytest.raises(DatasetError):
        examples_dataset(tmp_path, SECOND).save(examples(failing_rows()))
    assert np.array_equal(examples_dataset(tmp_path).load().images, PIXELS)
    assert not examples_dataset(tmp_path, load=SECOND).exists()


@pytest.mark.parametrize(
    ("rows", "fault"), [(PIXELS[:4], "promised 5 rows and got 4"), (PIXELS[[0] * 6], "promised 5 rows and got 6")]
)
def test_a_wrong_number_of_rows_is_no_dataset(tmp_path, rows, fault):
    with pytest.raises(DatasetError, match=fault):
        examples_dataset(tmp_path, FIRST).save(examples(rows))
    assert not examples_dataset(tmp_path).exists()


def test_a_raw_image_that_has_vanished_is_named_and_nothing_else_is_blamed(tmp_path, photos):
    parameters = DatasetParameters(path=photos)
    source = open_source(parameters)
    manifest = inspect_images(source, parameters, 100.0, seed=0).assign(split="train")
    (photos / "a" / "3.png").unlink()
    with pytest.raises(DatasetError, match=r"a/3\.png"):
        examples_dataset(tmp_path, FIRST).save(prepare(source, manifest, 2, "train", image_size=32))


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
    dataset = FigureDataset(
        filepath=str(tmp_path / "figure.png"), version=Version(None, FIRST), save_args={"format": "png"}
    )
    dataset.save(Figure(figsize=(1, 1)))
    content = dataset.load()
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.size == (100, 100)
    dataset.path.write_bytes(content[:50])
    with pytest.raises(DatasetError, match=r"figure\.png"):
        FigureDataset(filepath=str(tmp_path / "figure.png"), version=Version(FIRST, None)).load()
