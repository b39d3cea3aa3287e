"""Photographs, models and bundles from anybody: they are used, or refused by name."""

import json
import os
import socket
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from efficientnet_finetuning import verify
from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.bundle.new_class import add_class
from efficientnet_finetuning.bundle.photographs import Reader, find_photographs, fingerprint
from efficientnet_finetuning.bundle.stored import prepared_images
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.io.answers import AnswersDataset

ATTACK = settings(max_examples=50, deadline=None, derandomize=True, database=None)
CLASSES = ("red", "green", "blue")
NOT_UTF8 = os.fsdecode(b"caf\xe9")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\0") | st.just("../x"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder that the examples of a test share."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture
def photos(tmp_path) -> Path:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (20, 16), "red").save(tmp_path / "photos" / "1.png")
    return tmp_path / "photos"


def answered(classifier: Classifier, path) -> pd.DataFrame:
    """All that a prediction does with a path."""
    fingerprint(path)
    return classifier.predict(path)


def test_what_is_no_photograph_in_a_folder_is_left_alone_or_cannot_be_read(photos, classifier):
    (photos / "loop.png").symlink_to("loop.png")
    (photos / "loop").symlink_to("loop")
    (photos / "nowhere.png").symlink_to("gone.png")
    os.mkfifo(photos / "pipe.png")
    os.mkfifo(photos / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(photos / "socket.png"))
        answers = answered(classifier, photos).set_index("id")
    assert answers["reason"].str.partition(":")[0].to_dict() == {
        "1.png": "",
        "loop.png": "unreadable",
        "nowhere.png": "unreadable",
        "pipe.png": "unreadable",
        "socket.png": "unreadable",
    }


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("loop", id="a link to itself"),
        pytest.param("~nobody-here/photos", id="an unknown home"),
        pytest.param("x" * 300, id="a long name"),
        pytest.param("a\0b", id="a null byte"),
        pytest.param(NOT_UTF8, id="no UTF-8"),
    ],
)
def test_a_path_that_leads_nowhere_is_named(tmp_path, classifier, path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError) as caught:
        answered(classifier, path if path.startswith("~") else f"{tmp_path}/{path}")
    str(caught.value).encode()


def test_a_pipe_that_is_named_itself_cannot_be_read(tmp_path, classifier):
    os.mkfifo(tmp_path / "pipe")
    assert answered(classifier, tmp_path / "pipe")["reason"].tolist() == ["unreadable: it is not a regular file"]


def test_names_that_are_no_utf8_are_answered_under_names_that_any_file_can_hold(photos, classifier, tmp_path):
    (photos / NOT_UTF8).mkdir()
    (photos / "1.png").rename(photos / NOT_UTF8 / f"{NOT_UTF8}.png")
    answers = answered(classifier, photos)
    assert answers["id"].tolist() == [r"caf\udce9/caf\udce9.png"]
    assert answers["reason"].tolist() == [""]
    from kedro.io import Version

    dataset = AnswersDataset(filepath=str(tmp_path / "answers.csv"), version=Version(None, None))
    dataset.save([answers])
    assert dataset.load()["id"].tolist() == answers["id"].tolist()


@pytest.mark.parametrize("name", ["", " ", NOT_UTF8, "a\nb"])
def test_a_new_class_needs_a_name_that_can_be_shown(classifier, name):
    with pytest.raises(InputError, match=r"add_class\.name"):
        add_class(classifier, {}, name, np.zeros((2, 32, 32, 3), np.uint8), 0.1, 0)


@ATTACK
@given(content=st.binary(max_size=60))
@example(b"path\n\0\n")
@example(b"path\n~nobody-here\n")
@example(b"path,path\n1.png,2.png\n")
@example(b"path\n1.png,2.png,3.png\n")
@example(b'path\n"1.png\n')
def test_any_bytes_are_a_list_of_photographs_or_refused(place, classifier, content):
    (place / "any.csv").write_bytes(content)
    with suppress(InputError):
        fingerprint(place / "any.csv")
        photographs = find_photographs(place / "any.csv")
        Reader(photographs, classifier)[:]
        json.dumps([one.id for one in photographs], ensure_ascii=False).encode()


@ATTACK
@given(
    content=st.binary(max_size=200),
    start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"II*\0"]),
)
def test_any_bytes_are_a_photograph_or_a_reason(place, classifier, content, start):
    (place / "any.png").write_bytes(start + content)
    reader = Reader(find_photographs(place / "any.png"), classifier)
    reader[:]


def test_a_pipe_in_the_place_of_a_classifier_is_none(tmp_path):
    os.mkfifo(tmp_path / "pipe.keras")
    with pytest.raises(InputError, match="There is no classifier at"):
        Classifier.load(tmp_path / "pipe.keras")


@pytest.mark.parametrize("damage", ["cut", "gone", "folder", "text", "numbers", "names"])
def test_prepared_images_that_are_damaged_are_none(tmp_path, classifier, test_images, damage):
    stored = tmp_path / "03_primary" / "job" / "test_images" / "2026" / "test_images"
    stored.mkdir(parents=True)
    for name in ("images", "labels", "ids"):
        np.save(stored / f"{name}.npy", getattr(test_images, name))
    names = tmp_path / "02_intermediate" / "job" / "class_names.json" / "2026" / "class_names.json"
    names.parent.mkdir(parents=True)
    names.write_text(json.dumps(classifier.class_names))
    assert prepared_images("job", "test", classifier, tmp_path) is not None
    file = stored / "labels.npy"
    if damage == "cut":
        os.truncate(file, 20)
    elif damage == "gone":
        file.unlink()
    elif damage == "folder":
        file.unlink()
        file.mkdir()
    elif damage == "text":
        file.write_text("labels")
    elif damage == "numbers":
        np.save(file, np.array(5))
    else:
        names.write_text("5")
    assert prepared_images("job", "test", classifier, tmp_path) is None


@pytest.fixture(scope="module")
def saved(place) -> Path:
    """The file of a classifier with all that one can have."""
    import keras

    inputs = keras.Input((32, 32, 3))
    pooled = keras.layers.GlobalAveragePooling2D(name="avg_pool")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(pooled))
    references = {"references": np.ones((3, 3), np.float16), "reference_labels": np.arange(3)}
    Classifier(model, CLASSES, "EfficientNetLite0", 32, "stretch", "bilinear", **references).save(place / "sound.keras")
    return place / "sound.keras"


def members_of(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def opened(file: Path, members: dict[str, bytes]) -> None:
    """Write an archive, load it, and let it answer, or be refused with a message that can be shown."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    try:
        loaded = Classifier.load(file)
    except InputError as error:
        str(error).encode()
        return
    loaded.predict(np.zeros((8, 8, 3), np.uint8))


@ATTACK
@given(at=st.integers(0, 10**6), byte=st.integers(0, 255), cut=st.booleans())
def test_a_classifier_with_another_byte_or_cut_is_opened_or_refused(saved, place, at, byte, cut):
    content = saved.read_bytes()
    at %= len(content)
    damaged = content[:at] if cut else content[:at] + bytes([byte]) + content[at + 1 :]
    (place / "damaged.keras").write_bytes(damaged)
    with suppress(InputError):
        Classifier.load(place / "damaged.keras")


@ATTACK
@given(
    name=st.sampled_from(
        ["references.npy", "reference_labels.npy", "model.weights.h5", "classifier.json", "config.json"]
    ),
    at=st.integers(0, 10**6),
    byte=st.integers(0, 255),
    cut=st.booleans(),
)
def test_a_member_with_another_byte_or_cut_is_read_or_refused(saved, place, name, at, byte, cut):
    members = members_of(saved)
    content = members[name]
    at %= len(content)
    members[name] = content[:at] if cut else content[:at] + bytes([byte]) + content[at + 1 :]
    with zipfile.ZipFile(place / "member.keras", "w") as archive:
        for other, content in members.items():
            archive.writestr(other, content)
    with suppress(InputError):
        Classifier.load(place / "member.keras")


FIELDS = [
    "class_names",
    "backbone",
    "image_size",
    "resize",
    "interpolation",
    "background",
    "class_weight",
    "flip",
    "temperature",
    "threshold",
    "max_distance",
    "another",
]


@ATTACK
@given(field=st.sampled_from(FIELDS), value=JSON)
@example("image_size", 10**400)
@example("image_size", 16)
@example("image_size", -1)
@example("image_size", "32")
@example("temperature", 0.0)
@example("temperature", float("nan"))
@example("temperature", "2")
@example("class_names", "abc")
@example("class_names", ["a"])
@example("class_names", [1, 2, 3])
@example("class_names", ["a", "b", "\ud800"])
@example("background", "red")
@example("background", "nothing")
@example("resize", "nothing")
@example("interpolation", "nothing")
@example("flip", "yes")
@example("threshold", "0.5")
def test_any_value_in_a_classifiers_description_is_taken_or_refused(saved, place, field, value):
    members = members_of(saved)
    about = json.loads(members["classifier.json"]) | {field: value}
    opened(place / "described.keras", members | {"classifier.json": json.dumps(about).encode()})


def spots(value, above: tuple = ()) -> Iterator[tuple]:
    """The path of keys to all that a JSON document holds."""
    yield above
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield from spots(below, (*above, key))


def changed(document, spot: tuple, value):
    """A copy of a JSON document with another value at a spot."""
    if not spot:
        return value
    copy = json.loads(json.dumps(document))
    group = copy
    for key in spot[:-1]:
        group = group[key]
    group[spot[-1]] = value
    return copy


@ATTACK
@given(data=st.data(), value=JSON)
def test_any_value_in_a_classifiers_network_is_taken_or_refused(saved, place, data, value):
    members = members_of(saved)
    config = json.loads(members["config.json"])
    spot = data.draw(st.sampled_from(list(spots(config))))
    opened(place / "config.keras", members | {"config.json": json.dumps(changed(config, spot, value)).encode()})


RECEIPT = {
    "_type": verify.STATEMENT,
    "subject": [{"name": "a.txt", "digest": {"sha256": "0" * 64}}],
    "predicateType": verify.PROVENANCE,
    "predicate": {
        "buildDefinition": {
            "internalParameters": {"metrics": {"top1": 0.5}},
            "resolvedDependencies": [
                {"name": "manifest", "digest": {"sha256": "0" * 64}},
                {"name": "test images", "digest": {"sha256": "0" * 64}},
            ],
        }
    },
}


@settings(ATTACK, max_examples=200)
@given(spot=st.sampled_from(list(spots(RECEIPT))), value=JSON)
@example(("subject", 0, "name"), 5)
@example(("subject", 0, "name"), ["a"])
@example(("subject", 0, "name"), "a\0")
@example(("subject", 0, "name"), "x" * 300)
@example(("subject", 0, "name"), "\ud800")
@example(("subject", 0, "name"), "loop")
def test_any_receipt_passes_or_is_told_what_is_wrong(place, spot, value):
    bundle = place / "bundle"
    bundle.mkdir(exist_ok=True)
    with suppress(FileExistsError):
        (bundle / "loop").symlink_to("loop")
    (bundle / "receipt.json").write_bytes(json.dumps(changed(RECEIPT, spot, value)).encode())
    "".join(verify.verify(bundle)).encode()
    with suppress(ValueError):
        verify.read_receipt(bundle)
        list(verify.verify_metrics(bundle, place / "no data"))


@ATTACK
@given(content=st.binary(max_size=40))
@example(b"[" * 100_000)
def test_any_bytes_are_told_to_be_no_receipt(place, content):
    bundle = place / "bytes"
    bundle.mkdir(exist_ok=True)
    (bundle / "receipt.json").write_bytes(content)
    assert list(verify.verify(bundle))
