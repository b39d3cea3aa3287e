import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def tfds_sets() -> ModuleType:
    """The writers of small TFDS sets."""
    return _load(Path(__file__).with_name("tfds_sets.py"))


@pytest.fixture(scope="session")
def nasty() -> ModuleType:
    """The writer of a folder with every fault."""
    return _load(Path(__file__).parents[1] / "nasty.py")


def _load(file: Path) -> ModuleType:
    """Load a module by path, for tests are no package."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def write_images():
    """Writes images of noise, so that none is like another; the red channel is the position in the listing."""

    def write(root: Path, *names: str, size: tuple[int, int] = (12, 8)) -> Path:
        generator = np.random.default_rng(0)
        for index, name in enumerate(names):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256, (size[1], size[0], 3), np.uint8)
            pixels[..., 0] = index
            Image.fromarray(pixels).save(path)
        return root

    return write


@pytest.fixture
def write_classes(write_images):
    """Writes so many images of each class: ``{"train/cat": 3}``."""

    def write(root: Path, counts: Mapping[str, int]) -> Path:
        return write_images(root, *(f"{name}/{index}.png" for name, count in counts.items() for index in range(count)))

    return write
