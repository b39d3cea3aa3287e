"""The table of backbones: name, native resolution and blocks. It imports nothing heavy."""

from dataclasses import dataclass
from itertools import chain
from math import ceil
from string import ascii_lowercase


@dataclass(frozen=True)
class Architecture:
    """A backbone: native image side in pixels, and the number of blocks per stage from input to output."""

    resolution: int
    repeats: tuple[int, ...]

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks from input to output: ``stem``, ``block1a``, …, ``top``."""
        stages = (
            [f"block{stage}{ascii_lowercase[index]}" for index in range(repeats)]
            for stage, repeats in enumerate(self.repeats, start=1)
        )
        return ("stem", *chain.from_iterable(stages), "top")


def _efficientnet(resolution: int, depth: float) -> Architecture:
    # Tan and Le 2019 (arXiv:1905.11946), table 1 scaled by the depth coefficient.
    return Architecture(resolution, tuple(ceil(depth * repeats) for repeats in (1, 2, 2, 3, 3, 4, 1)))


ARCHITECTURES: dict[str, Architecture] = {
    "EfficientNetB0": _efficientnet(224, 1.0),
    "EfficientNetB1": _efficientnet(240, 1.1),
    "EfficientNetB2": _efficientnet(260, 1.1),
    "EfficientNetB3": _efficientnet(300, 1.4),
    "EfficientNetB4": _efficientnet(380, 1.8),
    "EfficientNetB5": _efficientnet(456, 2.2),
    "EfficientNetB6": _efficientnet(528, 2.6),
    "EfficientNetB7": _efficientnet(600, 3.1),
    # Tan and Le 2021 (arXiv:2104.00298).
    "EfficientNetV2B0": Architecture(224, (1, 2, 2, 3, 5, 8)),
    "EfficientNetV2B1": Architecture(240, (2, 3, 3, 4, 6, 9)),
    "EfficientNetV2B2": Architecture(260, (2, 3, 3, 4, 6, 10)),
    "EfficientNetV2B3": Architecture(300, (2, 3, 3, 5, 7, 12)),
    "EfficientNetV2S": Architecture(384, (2, 4, 4, 6, 9, 15)),
    "EfficientNetV2M": Architecture(480, (3, 5, 5, 7, 14, 18, 5)),
    "EfficientNetV2L": Architecture(480, (4, 7, 7, 10, 19, 25, 7)),
    # Google's EfficientNet-Lite: no squeeze-and-excitation, ReLU6, first and last stage not deepened.
    "EfficientNetLite0": Architecture(224, (1, 2, 2, 3, 3, 4, 1)),
    "EfficientNetLite1": Architecture(240, (1, 3, 3, 4, 4, 5, 1)),
    "EfficientNetLite2": Architecture(260, (1, 3, 3, 4, 4, 5, 1)),
}
