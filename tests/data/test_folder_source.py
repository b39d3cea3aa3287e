import json
import os

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
    names = ("class10/img10.PNG", "class10/img2.PNG", "class10/img1.PNG", "class2/b.jpeg", "class2/a.webp")
    source = open_source(DatasetParameters(path=write_images(tmp_path, *names)))
    assert source.class_names == ("class2", "class10")
    assert source.splits == {"train": 5}
    assert ids(source) == [
        "class2/a.webp",
        "class2/b.jpeg",
        "class10/img1.PNG",
        "class10/img2.PNG",
        "class10/img10.PNG",
    ]
    assert [image.label for image in source.images("train")] == [0, 0, 1, 1, 1]
    assert next(source.images("train")).open().read() == (tmp_path / "class2/a.webp").read_bytes()


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


def test_the_class_is_the_path_below_the_split(tmp_path, write_images):
    root = write_images(tmp_path, "train/cats/siamese/1.png", "train/cats/manx/1.png", "test/cats/manx/2.png")
    source = open_source(DatasetParameters(path=root))
    assert source.class_names == ("cats/manx", "cats/siamese")
    assert next(source.images("test")).label == 0


def test_what_is_no_image_is_counted_and_left_out(tmp_path, write_images):
    images = ("a/1.png", "a/.2.png", "b/1.png", ".cache/1.png", "root.png", "a/.thumbnails/1.png")
    root = write_images(tmp_path, *images)
    (root / "a" / "Thumbs.db").write_bytes(b"x")
    (root / "a" / "notes").mkdir()
    (root / "a" / "notes" / "read.me").write_text("a folder of notes is no class")
    (root / "labels.csv").write_text("a,b")
    (root / "a" / "gone.png").symlink_to(root / "nowhere.png")
    source = open_source(DatasetParameters(path=root))
    assert source.class_names == ("a", "b")
    assert ids(source) == ["a/1.png", "b/1.png"]
    assert source.ignored == {
        "hidden": 3,
        "not an image": 3,
        "image outside any class folder": 1,
        "broken link or special file": 1,
    }


def test_content_decides_what_is_an_image_and_never_the_ending(tmp_path, write_images):
    root = write_images(tmp_path, "a/1.png", "b/1.png")
    (root / "a" / "1.png").rename(root / "a" / "scan")
    (root / "b" / "text.jpg").write_text("no image, but meant as one: the audit names it")
    assert ids(open_source(DatasetParameters(path=root))) == ["a/scan", "b/1.png", "b/text.jpg"]


def test_links_out_of_the_folder_are_refused_unless_allowed(tmp_path, write_images):
    write_images(tmp_path / "elsewhere", "c/1.png")
    root = write_images(tmp_path / "photos", "a/1.png", "b/1.png")
    (root / "c").symlink_to(tmp_path / "elsewhere" / "c")
    (root / "b" / "2.png").symlink_to(tmp_path / "elsewhere" / "c" / "1.png")
    message = fault(root)
    assert f"dataset.path: {root} has 2 symbolic links to other places: b/2.png, c." in message
    assert "dataset.follow_symlinks=true" in message
    source = open_source(DatasetParameters(path=root, follow_symlinks=True))
    assert ids(source) == ["a/1.png", "b/1.png", "b/2.png", "c/1.png"]


def test_a_loop_of_links_ends(tmp_path, write_images):
    root = write_images(tmp_path, "a/1.png", "b/1.png")
    (root / "a" / "again").symlink_to(root)
    source = open_source(DatasetParameters(path=root))
    assert ids(source) == ["a/1.png", "b/1.png"]
    assert source.notes == ["a link to one of its parent folders was not followed: a/again"]


def test_unicode_twins_are_one_class(tmp_path, write_images):
    root = write_images(tmp_path, "caf\u00e9/1.png", "cafe\u0301/2.png", "tea/1.png")
    source = open_source(DatasetParameters(path=root))
    assert source.class_names == ("caf\u00e9", "tea")
    assert [image.label for image in source.images("train")] == [0, 0, 1]
    assert source.notes == ["class folders that differ only in their Unicode form were joined: caf\u00e9"]


@pytest.mark.parametrize("name", ["cats..dogs", "--params", "a, b", "NA", "100", 'cat\'s "best"'])
def test_odd_class_names_are_just_names(tmp_path, write_images, name):
    root = write_images(tmp_path, f"{name}/1.png", "other/1.png")
    assert name in open_source(DatasetParameters(path=root)).class_names


@pytest.mark.parametrize("name", ["two\nlines", "tab\tbed", "escape\x1b[31m"])
def test_names_that_no_table_can_show_are_refused(tmp_path, write_images, name):
    assert ascii(name) in fault(write_images(tmp_path, f"{name}/1.png", "other/1.png"))


def test_a_name_that_is_no_utf8_is_refused(tmp_path, write_images):
    root = write_images(tmp_path, "a/1.png", "b/1.png")
    (root / "a" / "1.png").rename(root / "a" / os.fsdecode(b"caf\xe9.png"))
    assert "caf\\udce9.png" in fault(root)


def test_a_folder_beside_the_splits_is_mentioned(tmp_path, write_classes):
    root = write_classes(tmp_path, {"train/a": 1, "train/b": 1, "notes/x": 1})
    assert open_source(DatasetParameters(path=root)).notes == ["the run ignores folders that are not splits: notes"]


def test_an_empty_class_folder_is_named(tmp_path, write_classes):
    root = write_classes(tmp_path, {"a": 1, "b": 1})
    (root / "cat").mkdir()
    (root / "dog").mkdir()
    (root / "dog" / "readme.txt").write_text("none yet")
    message = fault(root)
    assert f"dataset.path: 2 class folders without images in {root}: cat, dog." in message
    assert "Add images, or remove the folders." in message


def test_one_class_is_refused(tmp_path, write_classes):
    message = fault(write_classes(tmp_path, {"only": 3}))
    assert message == f"{tmp_path} has 1 class: only. A classifier needs at least two."


def test_a_path_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file.txt").touch()
    assert fault(tmp_path / "file.txt") == f"dataset.path: {tmp_path / 'file.txt'} is neither a folder nor a .csv file."


def test_a_path_that_is_not_there_is_refused_with_what_is_there(tmp_path):
    (tmp_path / "photos").mkdir()
    message = fault(tmp_path / "photo")
    assert f"dataset.path: {tmp_path / 'photo'} does not exist. Did you mean 'photos'?" in message
    assert "--params dataset.path=" in message
    assert "does not exist. Give a folder" in fault(tmp_path / "nowhere" / "photos")


def test_a_folder_without_images_is_refused_with_the_layout_that_is_expected(tmp_path):
    message = fault(tmp_path)
    assert f"dataset.path: no class folders with images in {tmp_path}." in message
    assert f"Expected {tmp_path}/<class>/<image> or {tmp_path}/train/<class>/<image>" in message


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
