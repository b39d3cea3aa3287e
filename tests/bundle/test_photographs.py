import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from efficientnet_finetuning.bundle.photographs import Reader, find_photographs, fingerprint
from efficientnet_finetuning.data.decode import decode
from efficientnet_finetuning.data.encoded import EncodedImage
from efficientnet_finetuning.errors import InputError


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("10.png", "2.PNG", "below/no_ending", ".hidden.png", "below/.thumbnails/1.png"):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 16), "red").save(file, "PNG")
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    (tmp_path / "photos" / "text.jpg").write_text("was meant as one")
    return tmp_path / "photos"


def ids(path) -> list[str]:
    return [photograph.id for photograph in find_photographs(path)]


def test_a_folder_is_all_that_was_meant_as_a_photograph_in_natural_order(folder):
    assert ids(folder) == ["2.PNG", "10.png", "text.jpg", "below/no_ending"]


def test_a_file_a_glob_and_a_csv_do_as_well(folder):
    assert ids(folder / "10.png") == ["10.png"]
    assert ids(f"{folder}/*.[pP]*") == [f"{folder}/2.PNG", f"{folder}/10.png"]
    csv = folder.parent / "list.csv"
    csv.write_text("label,path\nred,photos/10.png\nred,photos/gone.png\n", encoding="utf-8-sig")
    assert ids(csv) == ["photos/10.png", "photos/gone.png"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("photo", "photo does not exist. Did you mean 'photos'"),
        ("nowhere/*.jpg", "there is no folder .*nowhere"),
        ("photos/below/.thumbnails/*.gif", "does not exist"),
        ("empty", "has no photographs"),
        ("wrong.csv", "no column path. It has: file"),
    ],
)
def test_what_is_not_there_is_named(folder, path, words):
    (folder.parent / "empty").mkdir()
    (folder.parent / "wrong.csv").write_text("file\n1.png\n")
    with pytest.raises(InputError, match=words):
        find_photographs(folder.parent / path)


def test_a_link_that_points_to_itself_is_a_photograph_that_cannot_be_read(folder, classifier):
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "cycle").symlink_to(folder)
    photographs = find_photographs(folder)
    assert "loop.png" in [photograph.id for photograph in photographs]
    reader = Reader(photographs, classifier)
    assert len(reader[:]) == 5, "links to folders are not followed"
    reasons = dict(zip([photograph.id for photograph in photographs], reader.reasons, strict=True))
    assert "unreadable" in reasons["loop.png"]


def test_the_fingerprint_changes_with_every_photograph_and_with_nothing_else(folder):
    before = fingerprint(folder)
    (folder / "notes.txt").write_text("another text")
    assert fingerprint(folder) == before
    os.utime(folder / "10.png", (0, 0))
    assert fingerprint(folder) != before


def test_every_fault_is_a_reason_and_every_odd_image_is_read(tmp_path, nasty, classifier):
    photographs = find_photographs(nasty.write_nasty_folder(tmp_path))
    reader = Reader(photographs, classifier)
    pixels = np.concatenate([reader[start : start + 50] for start in range(0, len(reader), 50)])
    reasons = {item.id: reason.split(":")[0] for item, reason in zip(photographs, reader.reasons, strict=True)}
    faults = ("undecodable", "empty", "truncated", "too_large", "too_small")
    expected = {name: fault for fault in faults for name in nasty.PLANTED[fault]}
    assert {name: reason for name, reason in reasons.items() if reason} == expected
    blank = {item.id for item, image in zip(photographs, pixels, strict=True) if not image.any()}
    assert blank == {*expected, *nasty.PLANTED["single_colour"]}


def test_the_pixels_are_those_that_training_saw(tmp_path, classifier):
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 4), np.uint8)).save(photo)
    with Image.open(photo) as image:
        as_image = image.copy()
    rule = (classifier.image_size, classifier.resize, classifier.interpolation, classifier.background)
    expected = decode(EncodedImage("photo", photo), *rule)
    for given in (EncodedImage("photo", photo), as_image, np.asarray(as_image)):
        np.testing.assert_array_equal(Reader([given], classifier)[:][0], expected)


def test_an_image_of_the_callers_is_left_as_it_is(classifier):
    image = Image.new("RGB", (20, 10), "red")
    image.getexif()[0x0112] = 6
    Reader([image], classifier)[:]
    assert image.size == (20, 10)
    assert image.getexif()[0x0112] == 6


@pytest.mark.parametrize("array", [np.zeros((4, 20, 20, 3), np.uint8), np.zeros((20, 20, 3)), np.zeros(9, np.uint8)])
def test_an_array_that_is_no_image_is_refused(array, classifier):
    with pytest.raises(InputError, match=r"An array of shape \(.*\) and type .* is not an image"):
        Reader([array], classifier)[:]


def test_what_was_read_is_forgotten(classifier):
    reader = Reader([np.full((10, 10, 3), value, np.uint8) for value in range(100)], classifier)
    assert [image[0, 0, 0] for image in reader[:8]] == list(range(8))
    assert [image[0, 0, 0] for image in reader[:20]] == list(range(20)), "from the same start once more"
    assert [image[0, 0, 0] for image in reader[20:40]] == list(range(20, 40))
    with pytest.raises(IndexError, match="row 0 was read already"):
        reader[:8]
