import hashlib
import io
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import numpy as np
import pytest
from PIL import Image

from efficientnet_finetuning.data.inspection import inspect_images
from efficientnet_finetuning.data.sources import TfdsSource, open_source, reopen
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import DatasetParameters

SAMPLES = Path(__file__).parents[2] / "data" / "01_raw"


@pytest.fixture(scope="module")
def sample() -> TfdsSource:
    return open_source(DatasetParameters(name="cifar10_sample", data_dir=SAMPLES))


@pytest.fixture(scope="module")
def dogs(tmp_path_factory, tfds_sets) -> Path:
    folder = tmp_path_factory.mktemp("dogs")
    tfds_sets.write_stanford_dogs(folder, images_per_class_train=2, images_per_class_test=1)
    return folder


@pytest.fixture
def write_shapes(tmp_path, tfds_sets):
    """Writes a set that TFDS does not know, with splits of the given names and sizes, and returns its data_dir."""
    import tensorflow_datasets as tfds

    def write(
        sizes: dict[str, int], names=("disc", "square"), keys=("image", "shape"), per_shard=1000, label=None
    ) -> Path:
        png = tfds_sets.encode(Image.new("RGB", (8, 6)))
        features = {"image": tfds.features.Image(), "shape": tfds.features.ClassLabel(names=names)}
        splits = {
            split: [
                {"image": io.BytesIO(png), "shape": label(split, i) if label else i % len(names)} for i in range(size)
            ]
            for split, size in sizes.items()
        }
        tfds_sets.write_set(tmp_path, "shapes", "1.0.0", features, splits, keys, per_shard)
        return tmp_path

    return write


def fault(**dataset) -> str:
    with pytest.raises(InputError) as caught:
        open_source(DatasetParameters(**dataset))
    return str(caught.value)


def contents(source, split: str) -> list[str]:
    return [hashlib.sha256(image.content).hexdigest() for image in source.images(split)]


def test_the_embedded_sample_has_2000_training_and_1000_test_images_of_10_classes(sample):
    assert sample.splits == {"train": 2000, "test": 1000}
    assert sample.class_names[:3] == ("airplane", "automobile", "bird")
    assert Counter(image.label for image in sample.images("train")) == dict.fromkeys(range(10), 200)
    assert Counter(image.label for image in sample.images("test")) == dict.fromkeys(range(10), 100)


def test_ids_are_unique_and_two_passes_yield_the_same_encoded_images(sample):
    first, second = list(sample.images("test")), list(sample.images("test"))
    assert first == second
    assert len({image.id for image in first}) == 1000
    assert (first[0].id, first[-1].id) == ("test/000000", "test/000999")
    for image in first[::100]:
        with Image.open(io.BytesIO(image.content)) as opened:
            assert opened.format in ("PNG", "JPEG")
            assert np.asarray(opened).shape == (32, 32, 3)


def test_only_the_images_that_are_asked_for_are_yielded_in_order(sample):
    ids = {"test/000700", "test/000003", "test/999999"}
    assert [image.id for image in sample.images("test", ids)] == ["test/000003", "test/000700"]


def test_stanford_dogs_is_read_from_disk_with_images_of_many_sizes(dogs):
    source = open_source(DatasetParameters(name="stanford_dogs", data_dir=dogs, download=False))
    assert source.splits == {"train": 240, "test": 120}
    assert len(source.class_names) == 120
    assert source.class_names[7] == "n02085627-breed_7"
    images = list(source.images("train"))
    assert Counter(image.label for image in images) == dict.fromkeys(range(120), 2)
    assert len({Image.open(io.BytesIO(image.content)).size for image in images}) > 100


def test_sub_splits_cut_the_sets_own_splits_without_overlap(dogs):
    parameters = {"train_split": "train[:50%]", "validation_split": "train[50%:75%]"}
    source = open_source(DatasetParameters(name="stanford_dogs", data_dir=dogs, **parameters))
    assert source.splits == {"train": 120, "validation": 60, "test": 120}
    train, validation = contents(source, "train"), contents(source, "validation")
    assert (len(train), len(validation)) == (120, 60)
    assert not set(train) & set(validation)
    assert next(source.images("validation")).id == "train[50%:75%]/000000"


@pytest.mark.parametrize("split", ["train[:150%]", "train[a:b]", "train[:99999]", "train[10:5]", "train[:0%]"])
def test_an_impossible_sub_split_is_refused_and_named(dogs, split):
    message = fault(name="stanford_dogs", data_dir=dogs, train_split=split)
    assert "dataset.train_split" in message
    assert split in message


def test_a_validation_sub_split_of_images_that_are_trained_on_is_refused(dogs):
    assert "train[90%:]" in fault(name="stanford_dogs", data_dir=dogs, validation_split="train[90%:]")


def test_images_without_a_label_are_refused(write_shapes):
    data_dir = write_shapes(
        {"train": 20, "test": 4}, label=lambda split, index: index % 2 - (split == "test" and not index)
    )
    parameters = DatasetParameters(name="shapes", data_dir=data_dir)
    with pytest.raises(InputError, match="label"):
        inspect_images(open_source(parameters), parameters, 100.0, seed=0)


@pytest.mark.parametrize("name", ["validation", "val", "valid"])
def test_a_sets_own_validation_split_is_used_whatever_it_is_called(write_shapes, name):
    data_dir = write_shapes({"train": 4, name: 3, "test": 2, "extra": 9})
    source = open_source(DatasetParameters(name="shapes", data_dir=data_dir))
    assert source.splits == {"train": 4, "test": 2, "validation": 3}
    assert next(source.images("validation")).id == f"{name}/000000"


def test_a_split_that_already_has_a_role_gets_no_second_one(write_shapes):
    data_dir = write_shapes({"train": 4, "validation": 3})
    source = open_source(DatasetParameters(name="shapes", data_dir=data_dir, test_split="validation"))
    assert source.splits == {"train": 4, "test": 3}


def test_images_keep_their_stored_order_across_many_shards(write_shapes):
    data_dir = write_shapes({"train": 100, "test": 2}, names=tuple("abcdefg"), per_shard=20)
    assert len(list((data_dir / "shapes/1.0.0").glob("*train*"))) == 5
    source = open_source(DatasetParameters(name="shapes:1.0.0", data_dir=data_dir))
    assert [image.label for image in source.images("train")] == [index % 7 for index in range(100)]


@pytest.mark.parametrize("role", ["train", "validation", "test"])
def test_a_wrong_split_is_refused_with_near_matches_and_the_splits_there_are(write_shapes, role):
    data_dir = write_shapes({"train": 4, "valid": 3, "test": 2})
    message = fault(name="shapes", data_dir=data_dir, **{f"{role}_split": "trian[:10%]+test"})
    assert f"dataset.{role}_split: the set shapes has no split 'trian'. Did you mean 'train'?" in message
    assert "It has: train, valid, test." in message


def test_wrong_features_are_refused_with_the_features_that_fit(dogs):
    named = {"name": "stanford_dogs", "data_dir": dogs}
    message = fault(**named, image_key="picture")
    assert message == "dataset.image_key: stanford_dogs has no Image feature 'picture'. Its Image features: image."
    assert "dataset.label_key: stanford_dogs has no ClassLabel feature 'image'" in fault(**named, label_key="image")


def test_a_set_without_supervised_keys_needs_them_from_the_user(write_shapes):
    data_dir = write_shapes({"train": 4, "test": 2}, keys=None)
    assert "Its Image features: image." in fault(name="shapes", data_dir=data_dir)
    assert "Its ClassLabel features: shape." in fault(name="shapes", data_dir=data_dir, image_key="image")
    source = open_source(DatasetParameters(name="shapes", data_dir=data_dir, image_key="image", label_key="shape"))
    assert source.class_names == ("disc", "square")


def test_a_set_with_one_class_is_refused(write_shapes):
    message = fault(name="shapes", data_dir=write_shapes({"train": 4, "test": 2}, names=("disc",)))
    assert message == "shapes/1.0.0 has 1 class: disc. A classifier needs at least two."


def test_a_description_survives_json_and_opens_the_same_images(write_shapes):
    data_dir = write_shapes({"train": 5, "test": 3})
    source = open_source(DatasetParameters(name="shapes", data_dir=data_dir))
    again = reopen(json.loads(json.dumps(source.describe())))
    assert again == source
    assert list(again.images("train")) == list(source.images("train"))


def test_an_unknown_name_is_refused_with_near_matches_before_tensorflow_is_imported(write_shapes):
    data_dir = write_shapes({"train": 4, "test": 2})
    code = (
        "import sys\n"
        "from efficientnet_finetuning.data.sources import open_source\n"
        "from efficientnet_finetuning.parameters import DatasetParameters\n"
        "for name in ('stanford_dog', 'shape'):\n"
        "    try: open_source(DatasetParameters(name=name, data_dir=sys.argv[1]))\n"
        "    except ValueError as error: print(error)\n"
        "print('tensorflow' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(data_dir)], capture_output=True, text=True, check=True)
    unknown, prepared, imported = done.stdout.strip().splitlines()
    assert "dataset.name: TensorFlow Datasets has no set 'stanford_dog'" in unknown
    assert "Did you mean 'stanford_dogs'" in unknown
    assert f"{data_dir} (dataset.data_dir) has no prepared one. Did you mean 'shapes'" in prepared
    assert imported == "False"


def test_a_version_that_is_not_there_is_refused_with_the_one_that_is(dogs):
    message = fault(name="stanford_dogs:9.9.9", data_dir=dogs)
    assert f"dataset.name: TFDS cannot open 'stanford_dogs:9.9.9' in {dogs}" in message
    assert "only: 0.2.0" in message


def test_a_set_that_is_not_prepared_and_may_not_be_downloaded_is_refused(tmp_path):
    message = fault(name="mnist", data_dir=tmp_path, download=False)
    assert f"The set mnist is not prepared in {tmp_path}, and dataset.download is false." in message
    assert "Set dataset.data_dir to the folder that holds it, or allow the download." in message


def test_without_a_network_the_message_names_the_address_the_folder_and_three_ways_out(tmp_path, monkeypatch):
    for proxy in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
        monkeypatch.setenv(proxy.upper(), "http://127.0.0.1:9")
    for exception in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(exception, raising=False)
    # As if something had asked for an address before the proxy was set.
    monkeypatch.setattr("urllib.request._opener", build_opener(ProxyHandler({})))
    message = fault(name="mnist", data_dir=tmp_path)
    assert f"The set mnist is not prepared in {tmp_path} and could not be downloaded: https://" in message
    assert "storage.googleapis.com/cvdf-datasets/mnist/" in message
    assert "Connection refused" in message
    ways = message.partition("Without a network you can:\n")[2].splitlines()
    assert [way.split()[0] for way in ways if "." in way[:4]] == ["1.", "2.", "3."]
    assert "tfds build mnist" in message
    assert "dataset.data_dir" in message
    assert "dataset.path" in message
    assert not (tmp_path / "mnist").exists()


def test_a_folder_with_one_version_of_a_prepared_set_is_opened_by_its_path(dogs):
    source = open_source(DatasetParameters(path=dogs / "stanford_dogs/0.2.0"))
    assert (source.name, source.splits) == ("stanford_dogs/0.2.0", {"train": 240, "test": 120})
    assert list(source.labels("test")) == [(image.id, image.label) for image in source.images("test")]


def test_a_damaged_description_of_a_prepared_set_is_named(tmp_path):
    (tmp_path / "dataset_info.json").write_text("{")
    assert f"dataset.path: TFDS cannot open the prepared set in {tmp_path}" in fault(path=tmp_path)


def test_a_set_that_must_be_fetched_by_hand_says_which_files_go_where(tmp_path):
    message = fault(name="imagenet2012", data_dir=tmp_path)
    assert f"The set imagenet2012 is not prepared in {tmp_path}, and TFDS cannot download it." in message
    assert f"Download its files by hand into {tmp_path / 'downloads' / 'manual'}" in message
    assert "ILSVRC2012_img_train.tar" in message
