import keras
import numpy as np
import pytest

from efficientnet_finetuning.models.backbones import build_backbone


@pytest.fixture(scope="session")
def lite0() -> keras.Model:
    """Shared: tests must not change it; `with_rates` gives a copy with layers of its own."""
    return build_backbone("EfficientNetLite0", 32, "imagenet")


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
