"""Prepared images or features with their labels, as runs store them."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np

from efficientnet_finetuning.errors import naming_unreadable


@dataclass(frozen=True)
class Examples:
    """The images of one split.

    Attributes:
        images: uint8 ``(N, size, size, 3)`` RGB in 0–255, a memory map.
        labels: one-hot uint8 ``(N, num_classes)``.
        ids: strings ``(N,)``, as in the manifest.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Memory-map a folder's ``.npy`` files; raises ``InputError`` if one is missing or damaged."""
        with naming_unreadable(str(folder)):
            files = (folder / f"{field.name}.npy" for field in fields(cls))
            opened = cls(*(np.load(file, mmap_mode="r", allow_pickle=False) for file in files))
            if opened.labels.ndim == 2 and len(opened.images) == len(opened.labels) == len(opened):
                return opened
            raise ValueError("its arrays have different lengths")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels, as training takes them."""
        return self.images, self.labels
