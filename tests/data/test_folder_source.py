import json

import pytest

from efficientnet_finetuning.data.sources import natural_key, open_source, reopen
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import DatasetParameters


def fault(path, **dataset) -> str:
    with pytest.raises(InputError) as caught:
        open_source(DatasetParameters(path=path, **dataset))
    return str(caught.value)


def ids(source, split: str = "train") -> list[str]:
    return [image.id for image in source.images(split)]


def test_class_folders_without_splits_are_all_train_in_natural_order(tmp_path, write_images):
    names = ("class10/img10.PNG", "class10/img2.PNG", "class10/img1.PNG", "class2/b.jpeg", "class2/sub/a.webp")
    source = open_source(DatasetParameters(path=write_images(tmp_path, *names)))
    assert source.class_names == ("class2", "class10")
    assert source.splits == {"train": 5}
    assert ids(source) == [
        "class2/b.jpeg",
        "class2/sub/a.webp",
        "class10/img1.PNG",
        "class10/img2.PNG",
        "class10/img10.PNG",
    ]
    assert [image.label for image in source.images("train")] == [0, 0, 1, 1, 1]
    assert next(source.images("train")).encoded == (tmp_path / "class2/b.jpeg").read_bytes()


@pytest.mark.parametrize("validation", ["validation", "val", "valid"])
def test_split_folders_play_their_roles(tmp_path, write_classes, validation):
    root = write_classes(tmp_path, {"train/b": 2, "train/a": 1, f"{validation}/a": 1, "test/a": 3, "notes/x": 1})
    source = open_source(DatasetParameters(path=root))
    assert source.splits == {"train": 3, "test": 3, "validation": 1}
    assert source.class_names == ("a", "b")
    assert ids(source, "validation") == [f"{validation}/a/0.png"]


def test_a_class_has_the_same_label_in_every_split(tmp_path, write_classes):
    root = write_classes(tmp_path, {"train/b": 1, "train/c": 1, "test/a": 1, "test/c": 1})
    source = open_source(DatasetParameters(path=root))
    labels = {image.id: image.label for split in ("train", "test") for image in source.images(split)}
    assert labels == {"train/b/0.png": 1, "train/c/0.png": 2, "test/a/0.png": 0, "test/c/0.png": 2}


def test_explicit_split_folders_are_used_and_a_wrong_one_is_refused_with_near_matches(tmp_path, write_classes):
    root = write_classes(tmp_path, {"fit/a": 2, "fit/b": 2, "judge/a": 1, "judge/b": 1})
    source = open_source(DatasetParameters(path=root, train_split="fit", test_split="judge"))
    assert source.splits == {"train": 4, "test": 2}
    message = fault(root, train_split="fit", test_split="jugde")
    assert f"dataset.test_split: the folder {root} has no split 'jugde'. Did you mean 'judge'?" in message
    assert "It has: fit, judge." in message


@pytest.mark.parametrize("given", [{"train_split": "fti"}, {"train_split": "fit[:50%]"}, {"test_split": "judge"}])
def test_given_split_names_are_never_ignored(tmp_path, write_classes, given):
    root = write_classes(tmp_path, {"fit/a": 2, "fit/b": 2, "judge/a": 1, "judge/b": 1})
    assert "dataset." in fault(root, **given)


def test_hidden_entries_and_other_files_are_ignored(tmp_path, write_images):
    images = ("a/1.png", "a/.2.png", "b/1.png", ".cache/1.png", "root.png")
    root = write_images(tmp_path, *images)
    (root / "a" / "Thumbs.db").write_bytes(b"x")
    (root / "labels.csv").write_text("a,b")
    source = open_source(DatasetParameters(path=root))
    assert source.class_names == ("a", "b")
    assert ids(source) == ["a/1.png", "b/1.png"]


def test_hidden_folders_within_a_class_are_ignored(tmp_path, write_images):
    root = write_images(tmp_path, "a/1.png", "a/.thumbnails/1.png", "b/1.png")
    assert ids(open_source(DatasetParameters(path=root))) == ["a/1.png", "b/1.png"]


def test_an_empty_class_folder_is_named(tmp_path, write_classes):
    root = write_classes(tmp_path, {"a": 1, "b": 1})
    (root / "cat").mkdir()
    (root / "dog").mkdir()
    (root / "dog" / "readme.txt").write_text("none yet")
    message = fault(root)
    assert f"dataset.path: class folder(s) without images in {root}: cat, dog." in message
    assert "Fill them, or move them away." in message


def test_one_class_is_refused(tmp_path, write_classes):
    message = fault(write_classes(tmp_path, {"only": 3}))
    assert message == f"The folder {tmp_path} has 1 class(es): only. A classifier needs at least two."


@pytest.mark.parametrize("name", ["missing", "file.txt"])
def test_a_path_that_is_no_folder_is_refused(tmp_path, name):
    (tmp_path / "file.txt").touch()
    assert fault(tmp_path / name) == f"dataset.path: {tmp_path / name} is not a folder."


def test_a_folder_without_images_is_refused_with_the_layout_that_is_expected(tmp_path):
    message = fault(tmp_path)
    assert f"dataset.path: no images below {tmp_path}." in message
    assert f"Expected {tmp_path}/<class>/<image> or {tmp_path}/train/<class>/<image>" in message
    assert ".bmp, .gif, .jpeg, .jpg, .png, .tif, .tiff, .webp" in message


def test_a_description_survives_json_and_opens_the_same_images(tmp_path, write_classes):
    source = open_source(DatasetParameters(path=write_classes(tmp_path, {"train/ä": 2, "train/b": 2, "test/b": 1})))
    again = reopen(json.loads(json.dumps(source.describe())))
    assert (again.class_names, again.splits) == (source.class_names, source.splits)
    for split in ("train", "test"):
        assert list(again.images(split)) == list(source.images(split))
    assert [image.id for image in again.images("train", {"train/b/1.png"})] == ["train/b/1.png"]


def test_names_that_differ_in_case_alone_never_tie():
    assert natural_key("Cat") != natural_key("cat")


def test_a_digit_that_is_no_decimal_sorts_like_a_letter():
    assert sorted(["10²", "9²"], key=natural_key) == ["9²", "10²"]
