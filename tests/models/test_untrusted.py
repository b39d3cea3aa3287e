"""Files that could run code are refused by name, and a canary proves that nothing ran."""

import json
import shutil
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.models.classifier import TrainedClassifier
from efficientnet_finetuning.models.untrusted import check_keras_file, check_weights


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    inputs = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(pooled))
    path = tmp_path_factory.mktemp("sound") / "sound.keras"
    TrainedClassifier(model, ("a", "b"), "EfficientNetLite0", 8, "stretch", "bilinear").save(path)
    return path


def rewritten(sound: Path, target: Path, change=dict) -> Path:
    """A copy of a classifier's file whose members were changed."""
    with zipfile.ZipFile(sound) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as error:
        TrainedClassifier.load(path)
    return str(error.value)


def test_a_classifier_of_ours_is_opened(sound, tmp_path):
    check_keras_file(sound)
    assert TrainedClassifier.load(rewritten(sound, tmp_path / "copy.keras")).class_names == ("a", "b")


def test_a_lambda_is_refused_and_does_not_run(tmp_path, sound, recwarn):
    canary = tmp_path / "canary"
    name = str(canary)  # Keras keeps a lambda's closure
    inputs = keras.Input((8, 8, 3))
    code = keras.layers.Lambda(lambda x: (open(name, "w").close(), x)[1], output_shape=(8, 8, 3))  # noqa: PTH123
    keras.Model(inputs, code(inputs)).save(tmp_path / "lambda.keras")
    canary.unlink(missing_ok=True)  # building the model has run it
    with zipfile.ZipFile(tmp_path / "lambda.keras", "a") as archive, zipfile.ZipFile(sound) as ours:
        archive.writestr("classifier.json", ours.read("classifier.json"))
    recwarn.clear()
    assert "not opened: Lambda, __lambda__ could run code" in refusal(tmp_path / "lambda.keras")
    assert not canary.exists()
    assert not len(recwarn), "no warning of Keras' comes first"


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        ({"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "/tmp/x"}}, "TFSMLayer"),
        ({"module": "os", "class_name": "system", "config": {"command": "touch canary"}}, "os.system"),
        ({"module": "builtins", "class_name": "function", "config": "exec"}, "builtins.function"),
        ({"class_name": "Mine", "config": {}, "registered_name": "custom>Mine"}, "Mine"),
        ({"module": "keras_evil.layers", "class_name": "Dense", "config": {}}, "keras_evil.layers.Dense"),
    ],
)
def test_what_is_no_plain_layer_is_refused_by_name_wherever_it_hides(sound, tmp_path, layer, named):
    def hide(members):
        config = json.loads(members["config.json"])
        config["config"]["layers"][1]["config"]["kernel_initializer"] = {"nested": [layer]}
        members["config.json"] = json.dumps(config).encode()

    assert f"not opened: {named} could run code" in refusal(rewritten(sound, tmp_path / "foreign.keras", hide))


@pytest.mark.parametrize("name", ["../../evil.py", "/etc/cron.d/evil", "assets/evil.pkl", "model.weights.h5 "])
def test_a_member_that_does_not_belong_there_is_refused_and_not_written(sound, tmp_path, name):
    path = rewritten(sound, tmp_path / "more.keras", lambda members: members.update({name: b"x"}))
    assert repr(name) in refusal(path)
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["more.keras"]


def test_a_bomb_is_refused_before_it_is_unpacked(sound, tmp_path):
    path = rewritten(sound, tmp_path / "bomb.keras", lambda members: members.update({"config.json": bytes(50 << 20)}))
    assert "config.json has 52,428,800 bytes" in refusal(path)


@pytest.mark.parametrize("kind", ["external link", "soft link", "external array", "virtual array"])
def test_weights_that_lie_elsewhere_are_refused(sound, tmp_path, kind):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["kernel"] = np.ones(4, np.float32)
    weights = tmp_path / "model.weights.h5"
    with h5py.File(weights, "w") as file:
        group = file.create_group("layers/dense/vars")
        if kind == "external link":
            group["0"] = h5py.ExternalLink(str(secret), "kernel")
        elif kind == "soft link":
            group["0"] = h5py.SoftLink("/elsewhere")
        elif kind == "external array":
            group.create_dataset("0", (4,), "f4", external=[(str(secret), 0, 16)])
        else:
            layout = h5py.VirtualLayout((4,), "f4")
            layout[:] = h5py.VirtualSource(str(secret), "kernel", (4,))
            group.create_virtual_dataset("0", layout)
    with pytest.raises(InputError, match="not opened: /layers/dense/vars/0 leads to another file"):
        check_weights(weights, "weights")
    packed = rewritten(
        sound, tmp_path / "model.keras", lambda members: members.update({"model.weights.h5": weights.read_bytes()})
    )
    assert "not opened: /layers/dense/vars/0 leads to another file" in refusal(packed)


def test_a_file_that_is_no_archive_says_so(tmp_path, sound):
    shutil.copy(sound, tmp_path / "a.keras")
    (tmp_path / "text.keras").write_text("a text")
    assert "is not a classifier that this project saved" in refusal(tmp_path / "text.keras")
