"""The champion as MLflow's scoring server uses it: the PythonModel itself, on photographs in base64."""

import ast
import base64
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModelContext
from PIL import Image

from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.running import serving
from efficientnet_finetuning.running.registry import describe
from efficientnet_finetuning.running.serving import ARTIFACT, MAX_IMAGES, Served, example, signature
from efficientnet_finetuning.running.source_hashes import files_of


def encoded(image: Image.Image, kind: str = "PNG") -> str:
    file = BytesIO()
    image.save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def coloured(colour: str) -> Image.Image:
    return Image.new("RGB", (40, 30), colour)


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))


@pytest.fixture(scope="module")
def file(classifier, tmp_path_factory):
    path = tmp_path_factory.mktemp("champion") / "champion_model.keras"
    classifier.save(path)
    return path


@pytest.fixture(scope="module")
def served(file) -> Served:
    model = Served()
    model.load_context(PythonModelContext({ARTIFACT: str(file)}, None))
    return model


def ask(served: Served, *images: object) -> pd.DataFrame:
    return served.predict(None, pd.DataFrame({"image": list(images)}))


def test_it_answers_as_the_classifier_does(served, classifier):
    images = [coloured("red"), coloured("lime"), coloured("#808080")]
    expected = classifier.predict(images).drop(columns="id")
    got = ask(served, *map(encoded, images))
    pd.testing.assert_frame_equal(got.infer_objects(), expected, check_dtype=False)
    assert list(got["answered"]) == [True, True, False]


def test_lines_in_base64_are_taken(served):
    wrapped = base64.encodebytes(base64.b64decode(encoded(coloured("red")))).decode()
    assert wrapped.count("\n") > 1
    assert list(ask(served, wrapped)["class_1"]) == ["red"]


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("", "empty: the file has no bytes"),
        ("no base64!", "undecodable: the image is not base64"),
        ("ü", "undecodable: the image is not base64"),
        (None, "undecodable: the image is not a string"),
        (base64.b64encode(b"no image").decode(), "undecodable: not a JPEG"),
        (encoded(Image.new("RGB", (4, 40))), "too_small: 4 × 40 pixels"),
        (encoded(Image.new("1", (8000, 7000))), "too_large: 56 megapixels"),
        (encoded(NOISE, "JPEG")[:4000], "truncated"),
    ],
)
def test_a_bad_image_is_a_row_with_a_reason(served, image, reason):
    answers = ask(served, image, encoded(coloured("red")))
    assert answers.loc[0, "reason"].startswith(reason)
    assert (answers.loc[0, "class_1"], answers.loc[0, "probability_1"], answers.loc[0, "answered"]) == ("", None, False)
    assert (answers.loc[1, "class_1"], answers.loc[1, "reason"]) == ("red", "")


def test_too_much_base64_is_not_decoded(served, monkeypatch):
    monkeypatch.setattr(serving, "MAX_MEGABYTES", 1)
    assert ask(served, "A" * 1_200_000).loc[0, "reason"] == "too_large: 1 MB of base64; the limit is 1 MB"
    assert ask(served, "A" * 900_000).loc[0, "reason"].startswith("undecodable: not a JPEG")


@pytest.mark.parametrize("count", [0, MAX_IMAGES + 1])
def test_too_many_images_are_refused(served, count):
    with pytest.raises(MlflowException, match=f"has {count} images. Send 1 to 64") as refusal:
        ask(served, *[encoded(coloured("red"))] * count)
    assert refusal.value.get_http_status_code() == 400


def test_as_many_as_are_allowed_are_answered(served):
    assert len(ask(served, *[encoded(coloured("red"))] * MAX_IMAGES)) == MAX_IMAGES


def test_requests_wait_for_each_other(served, monkeypatch):
    answer, running, seen = Classifier.predict, [], []

    def watched(self, *arguments):
        running.append(1)
        seen.append(len(running))
        try:
            time.sleep(0.05)
            return answer(self, *arguments)
        finally:
            running.pop()

    monkeypatch.setattr(Classifier, "predict", watched)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ask(served, encoded(coloured("red"))), range(4)))
    assert seen == [1, 1, 1, 1]
    assert {got["class_1"][0] for got in answers} == {"red"}


def test_the_signature_is_that_of_the_answer(served, classifier):
    what = signature(len(classifier.class_names))
    # This classifier has no references, and so knows no distance.
    named = [column.name for column in what.outputs if column.name != "distance"]
    assert named == list(ask(served, *example()["image"]).columns)
    assert what.inputs.input_names() == ["image"]
    assert sum(column.name.startswith("class_") for column in signature(120).outputs) == 5


def test_the_example_is_nobodys_photograph():
    pixels = np.asarray(Image.open(BytesIO(base64.b64decode(example().loc[0, "image"]))))
    assert (pixels == 128).all()


def test_the_requirements_are_what_its_code_imports(classifier):
    """All but what other uses of the same modules import inside their functions."""
    imported = {
        name.partition(".")[0]
        for file in files_of(serving.__name__)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module])
    }
    foreign = imported - sys.stdlib_module_names - {"efficientnet_finetuning", "mlflow", "scipy", "tensorflow_datasets"}
    result = {"regime": "transfer", "top1": 1.0, "top1_low": 0.9, "top1_high": 1.0}
    described = describe("photos", "version", classifier, result, pd.DataFrame({"id": ["a"], "true": ["red"]}))
    named = {requirement.split("==")[0] for requirement in described["requirements"]}
    assert named == {"pillow" if name == "PIL" else name for name in foreign}


def test_the_file_of_the_module_makes_the_model(file, tmp_path, monkeypatch):
    """Saved from code and loaded where nothing may be unpickled."""
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    mlflow.pyfunc.save_model(
        tmp_path / "model",
        python_model=serving.__file__,
        artifacts={ARTIFACT: str(file)},
        signature=signature(3),
        input_example=example(),
        pip_requirements=[],
    )
    request = pd.DataFrame({"image": [encoded(coloured("lime"))]})
    answers = mlflow.pyfunc.load_model(tmp_path / "model").predict(request)
    assert answers.loc[0, "class_1"] == "green"
    assert not list(tmp_path.rglob("*.pkl"))
