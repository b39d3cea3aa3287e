import numpy as np
import pytest

from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.models.backbones import build_backbone
from efficientnet_finetuning.models.heads import attach_head
from efficientnet_finetuning.parameters import ChoiceParameters, HeadParameters, TrainingParameters
from efficientnet_finetuning.training.candidates import measure_candidates, step_memory

pytestmark = pytest.mark.slow

HEAD = HeadParameters(inverse_regularizations=(0.01,))
TRAINING = TrainingParameters(epochs=2, batch_size=8, learning_rate=1e-4)


def images(size: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.eye(2, dtype=np.uint8)[np.arange(24) % 2]
    noise = np.random.default_rng(0).integers(0, 120, (24, size, size, 3), dtype=np.uint8)
    noise[labels[:, 1] == 1, ..., 0] += 120
    return noise, labels


def measure(num_train: int = 24, **choice) -> list[dict]:
    given = {"image_sizes": (32,), "time_budget_minutes": 60} | choice
    return measure_candidates(images, num_train, ChoiceParameters(**given), HEAD, TRAINING)


def test_candidates_are_measured_and_what_is_missing_or_too_slow_is_listed_with_the_reason(
    monkeypatch, tmp_path, caplog
):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    rows = measure(backbones=("EfficientNetLite0", "EfficientNetB0"), image_sizes=(32, 8000))
    first, missing, slow, still_missing = rows
    assert first["accuracy"] == 1
    assert first["images"] == 24
    assert first["milliseconds"] > 0
    assert 0 < first["training_minutes"] < 60
    assert missing["note"] == still_missing["note"] == "The ImageNet weights of EfficientNetB0 could not be downloaded"
    assert slow["note"].startswith("fine-tuning would take about ")
    assert "held out" not in caplog.text, "the head's path is nothing to read here"


def test_without_any_backbone_there_is_an_error_that_says_why(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"No backbone .* EfficientNetB0: The ImageNet weights"):
        measure(backbones=("EfficientNetB0",))


def test_memory_grows_with_the_batch_and_with_the_pixels():
    small, large = (attach_head(build_backbone("EfficientNetLite0", size, "none"), 2, 0.0) for size in (32, 64))
    state = 16 * small.count_params()
    one, eight = step_memory(small, 1) - state, step_memory(small, 8) - state
    assert eight == 8 * one
    assert 3.5 < (step_memory(large, 1) - state) / one < 4.1
