import dataclasses

import numpy as np
import pytest

from efficientnet_finetuning.bundle import checks, formats
from efficientnet_finetuning.bundle.checks import check_exports, run
from efficientnet_finetuning.bundle.formats import FILES, check_formats, convert, write_files
from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.errors import InputError

pytestmark = pytest.mark.slow

NAMES = tuple(FILES)


@pytest.fixture(scope="module")
def using(classifier):
    return dataclasses.replace(classifier, flip=True)


@pytest.fixture(scope="module")
def files(using, test_images) -> dict[str, bytes]:
    return convert(using, test_images.images, NAMES)


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    generator = np.random.default_rng(1)
    return [generator.integers(0, 256, (height, 50, 3), np.uint8) for height in (20, 41, 90)]


def test_every_format_gives_the_same_answers_in_a_process_of_its_own(files, using, test_images, photographs):
    table = check_exports(files, using, test_images, photographs).set_index("format")
    assert list(table.index) == list(NAMES)
    assert (table["fault"] == "").all()
    assert (table.loc[["saved_model", "litert", "onnx"], "largest_difference"] < 1e-5).all()
    assert (table["agreement"] == 1).all()
    assert (table["accuracy"] == 1).all()
    with_resize = table["difference_with_resize"]
    assert np.isnan(with_resize["litert_int8"])
    assert (with_resize.drop("litert_int8") < 0.01).all()
    assert (table["milliseconds"] > 0).all()


def test_a_format_that_answers_otherwise_is_named_with_image_and_class(files, using, test_images, photographs):
    hotter = dataclasses.replace(using, temperature=2.02)
    only = {name: content for name, content in files.items() if name == FILES["litert"]}
    (row,) = check_exports(only, hotter, test_images, photographs).itertuples()
    assert row.fault.startswith("the probability of ")
    assert row.at_image in row.fault
    assert row.at_class in row.fault
    wrong = Examples(test_images.images, test_images.labels, test_images.ids)
    (row,) = check_exports(only, dataclasses.replace(using, temperature=2.0), wrong, photographs).itertuples()
    assert row.fault == ""


def test_two_test_images_may_be_lost_by_chance_and_three_may_not(using, test_images, photographs, monkeypatch):
    def blind_to_red(_, given):
        brightness = np.array([image[:, : image.shape[1] // 2].mean((0, 1)) for image in given])
        seen = np.exp(brightness * [-1, 1, 1] / 100)
        return checks.Tried(seen / seen.sum(1, keepdims=True), np.ones(len(given)))

    monkeypatch.setattr(checks, "run", blind_to_red)
    red, others = np.flatnonzero(test_images.labels[:, 0]), np.flatnonzero(test_images.labels[:, 0] == 0)
    faults = []
    for lost in (2, 3):
        rows = np.concatenate([red[:lost], others])
        some = Examples(test_images.images[rows], test_images.labels[rows], test_images.ids[rows])
        faults += list(check_exports({FILES["litert_float16"]: b""}, using, some, photographs)["fault"])
    assert faults[0] == ""
    assert faults[1].startswith(f"its accuracy on the test images is {300 / (len(others) + 3):.1f} points lower")


def test_a_broken_export_says_so(tmp_path, files, photographs):
    write_files({"classifier.tflite": files["classifier.tflite"][:100]}, tmp_path)
    with pytest.raises(RuntimeError, match=r"classifier\.tflite cannot be run"):
        run(tmp_path / "classifier.tflite", photographs)


def test_a_missing_converter_is_named_with_the_command_that_installs_it(monkeypatch):
    found = formats.importlib.util.find_spec
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None if name == "tf2onnx" else found(name))
    check_formats(("litert",))
    with pytest.raises(InputError, match=r"needs tf2onnx: make install-export"):
        check_formats(("onnx",))
