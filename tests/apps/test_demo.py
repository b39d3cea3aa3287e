"""The demo page, driven by Streamlit's own harness: what a visitor sees for what is dropped on it."""

import importlib.util
import json
import sys
from io import BytesIO
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from efficientnet_finetuning.apps import launch
from efficientnet_finetuning.bundle import stored
from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.models.heads import attach_head
from efficientnet_finetuning.storage import commit

JOB = "colours"
VERSION = "2026-01-01T00.00.00.000Z"
CLASSES = ("red", "green_[1](http://example.com)", "blue <b>")


@pytest.fixture(scope="module")
def bomb(tmp_path_factory) -> bytes:
    """A PNG of 20,000 × 15,000 pixels in a few kilobytes: see ``tests/nasty.py``."""
    spec = importlib.util.spec_from_file_location("nasty", Path(__file__).parents[1] / "nasty.py")
    nasty = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nasty)
    folder = nasty.write_nasty_folder(tmp_path_factory.mktemp("nasty"))
    return (folder / "train" / "dog" / "bomb.png").read_bytes()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A project's data with a champion that tells colours, and the images that it learnt from."""
    folder = tmp_path_factory.mktemp("data")
    inputs = keras.Input((32, 32, 3))
    model = attach_head(keras.Model(inputs, keras.layers.AveragePooling2D(8)(inputs), name="tiny"), 3, 0.0)
    model.get_layer("logits").set_weights([np.eye(3, dtype=np.float32) / 50, np.zeros(3, np.float32)])
    classifier = Classifier(model, CLASSES, "EfficientNetLite0", 32, "pad", "bicubic", flip=True, threshold=0.7)
    staged = folder / "staged"
    staged.mkdir()
    classifier.save(staged / stored.CHAMPION)
    commit(staged, folder / "06_models" / JOB / stored.CHAMPION / VERSION, {"recipe": {"parameters": {"epochs": 3}}})
    names = folder / "02_intermediate" / JOB / "class_names.json" / VERSION / "class_names.json"
    names.parent.mkdir(parents=True)
    names.write_text(json.dumps(CLASSES))
    for split, of_each in (("train", 20), ("test", 2)):
        place = folder / "03_primary" / JOB / f"{split}_images" / VERSION / f"{split}_images"
        place.mkdir(parents=True)
        labels = np.repeat(np.eye(3, dtype=np.uint8), of_each, axis=0)
        noise = np.random.default_rng(0).integers(0, 50, (len(labels), 32, 32, 3), np.uint8)
        np.save(place / "images.npy", noise + 200 * labels[:, None, None])
        np.save(place / "labels.npy", labels)
        np.save(place / "ids.npy", np.arange(len(labels)).astype(str))
    return folder


@pytest.fixture
def visit(data, monkeypatch):
    """Opens the page of a job."""

    def visit(job=JOB, folder=data) -> AppTest:
        monkeypatch.setattr(sys, "argv", ["demo.py", job, str(folder)])
        page = AppTest.from_file(Path(launch.__file__).with_name("demo.py"), default_timeout=60).run()
        assert not page.exception
        return page

    return visit


def picture(colour=(220, 10, 10), size=(120, 80), kind="JPEG") -> bytes:
    stream = BytesIO()
    Image.new("RGB", size, colour).save(stream, kind)
    return stream.getvalue()


def drop(page: AppTest, *files: tuple[str, bytes]) -> AppTest:
    page.file_uploader[0].set_value([(name, content, "image/jpeg") for name, content in files]).run()
    assert not page.exception
    return page


def read(elements) -> list[str]:
    """As a reader sees them, without what keeps Markdown from seeing marks in them."""
    return [element.value.replace("\\", "") for element in elements]


def subheaders(page: AppTest) -> list[str]:
    return read(page.subheader)


def errors(page: AppTest) -> list[str]:
    return read(page.error)


def captions(page: AppTest) -> list[str]:
    return [caption for image in page.get("image") for caption in image.captions]


def test_a_photograph_is_answered_with_bars_a_map_its_neighbours_and_a_receipt(visit):
    page = drop(visit(), ("my_photo.jpg", picture()))
    assert subheaders(page) == ["my_photo.jpg: red"]
    assert not page.error
    assert not page.warning
    (bars,) = page.get("html")
    assert bars.value.count("display: block") == 3
    assert "blue &lt;b&gt;" in bars.value
    assert [caption for caption in captions(page) if caption] == [
        "The picture",
        "Yellow parts support red",
    ]
    nearest = [image for image in page.get("image") if image.captions == [""]]
    assert len(nearest) == 6
    assert VERSION.replace(".", r"\.") in page.expander[0].label.replace(r"\-", "-")
    assert json.loads(page.json[0].value) == {"parameters": {"epochs": 3}}


def test_an_unsure_answer_says_so_with_its_confidence_and_the_threshold(visit):
    page = drop(visit(), ("grey.png", picture((100, 90, 90), kind="PNG")))
    assert subheaders(page) == ["grey.png"]
    (warning,) = (element.value.replace("\\", "") for element in page.warning)
    assert "Not confident enough to answer" in warning
    assert "The classifier answers from 70.0 % on." in warning


def test_each_bad_file_has_a_message_of_its_own_and_the_others_are_answered(visit, bomb):
    page = visit()
    drop(
        page,
        ("text.jpg", b"this is a text"),
        ("good.jpg", picture()),
        ("empty.jpg", b""),
        ("bomb.png", bomb),
        ("cut.jpg", picture(size=(300, 300))[:800]),
        ("icon.png", picture(size=(7, 30), kind="PNG")),
        ("poster.png", picture(size=(8000, 6300), kind="PNG")),
    )
    assert subheaders(page) == ["good.jpg: red"]
    text, empty, bombed, cut, icon, poster = errors(page)
    assert text.startswith("text.jpg is not a readable picture. Save it as JPEG")
    assert empty == "empty.jpg is empty. Copy it again from its source."
    assert bombed.startswith("bomb.png is too large (more than 178 megapixels; the limit is 50). Make it")
    assert cut.startswith("cut.jpg is damaged")
    assert icon == "icon.png is too small: 7 × 30 pixels. Take a larger picture."
    assert poster.startswith("poster.png is too large (50 megapixels;")


def test_ten_photographs_are_answered_at_once_and_eleven_are_refused(visit):
    page = visit()
    photographs = [(f"{number}.jpg", picture((0, 20 * number, 220))) for number in range(11)]
    assert len(subheaders(drop(page, *photographs[:10]))) == 10
    assert not page.error
    drop(page, *photographs)
    assert not subheaders(page)
    assert errors(page) == ["You dropped 11 photographs; at most 10 are possible at once. Remove 1."]


def test_a_sample_image_is_answered_when_it_is_clicked(visit):
    page = visit()
    assert page.button[1].label == r"green\_\[1\]\(http\://example\.com\)"
    page.button[2].click().run()
    assert not page.exception
    assert subheaders(page) == ["A test image of blue <b>: blue <b>"]


def test_a_page_without_prepared_images_answers_all_the_same(visit, data, tmp_path):
    (tmp_path / "06_models").symlink_to(data / "06_models")
    page = visit(folder=tmp_path)
    assert not page.button
    assert subheaders(drop(page, ("a.jpg", picture()))) == ["a.jpg: red"]
    assert captions(page) == ["The picture", "Yellow parts support red"]


def test_images_of_other_classes_than_the_champions_are_not_shown(data, tmp_path):
    (tmp_path / "03_primary").symlink_to(data / "03_primary")
    names = tmp_path / "02_intermediate" / JOB / "class_names.json" / VERSION / "class_names.json"
    names.parent.mkdir(parents=True)
    names.write_text('["cat", "dog", "owl"]')
    classifier = Classifier.load(stored.find_champion(JOB, data))
    assert stored.prepared_images(JOB, "train", classifier, data) is not None
    assert stored.prepared_images(JOB, "train", classifier, tmp_path) is None


def test_without_a_champion_the_page_says_what_to_run(visit, data):
    (said,) = errors(visit(job="colors"))
    assert said.startswith(f"{data / '06_models'} has no champion of the job 'colors'. Did you mean 'colours'?")
    assert "Make one: `kedro run --env colors`." in said
    (embedded,) = errors(visit(job="cifar10_sample"))
    assert "Make one: `kedro run`." in embedded


def test_the_server_listens_to_this_machine_alone_and_reports_nothing(data):
    arguments = launch.command("demo", JOB, data)
    assert {
        "--server.address=127.0.0.1",
        "--server.headless=true",
        "--server.fileWatcherType=none",
        "--server.maxUploadSize=20",
        "--server.enableXsrfProtection=true",
        "--browser.gatherUsageStats=false",
    } <= set(arguments)
    assert arguments[-3:] == ["--", JOB, str(data)]
    with pytest.raises(InputError, match="kedro run --env colors"):
        launch.command("demo", "colors", data)


def test_without_streamlit_a_sentence_says_how_to_install_it(data, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError) as raised:
        launch.command("demo", JOB, data)
    assert str(raised.value) == "The demo page needs Streamlit: pip install -c requirements.lock -e '.[demo]'."
