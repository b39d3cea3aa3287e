"""A classifier: a Keras network together with everything that one must know to use it."""

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from efficientnet_finetuning.errors import InputError, shorten
from efficientnet_finetuning.models.inference import predict_all

if TYPE_CHECKING:
    import keras

_METADATA_NAME = "classifier.json"


@dataclass(frozen=True)
class Classifier:
    """A network and how to feed it.

    Attributes:
        model: from ``(batch, image_size, image_size, 3)`` pixels in 0–255, uint8 or float, to float32 logits
            ``(batch, num_classes)``. Plain Keras layers only: ``keras.models.load_model`` reads it anywhere.
        class_names: in the order of the logits.
        backbone: name of the architecture.
        image_size: side of the square input in pixels.
        resize: ``stretch`` or ``center_crop``, as images were prepared for training.
        interpolation: ``bicubic`` or ``bilinear``, likewise.
        background: ``#rrggbb`` behind transparent images, likewise.
        class_weight: ``none`` or ``balanced``, as the loss of its training weighed the classes.
        temperature: what to divide logits by before the softmax, so that confidences can be believed.
    """

    model: "keras.Model"
    class_names: tuple[str, ...]
    backbone: str
    image_size: int
    resize: str
    interpolation: str
    background: str = "#ffffff"
    class_weight: str = "none"
    temperature: float = 1.0

    def predict_logits(self, images: np.ndarray, batch_size: int = 64, flip: bool = False) -> np.ndarray:
        """Logits of images, every one exactly once, those of the uneven last batch too.

        Args:
            images: pixels ``(N, image_size, image_size, 3)`` in 0–255.
            batch_size: images in a forward pass.
            flip: average over each image and its mirror image: about a point of accuracy for twice the time.

        Returns:
            float32 ``(N, num_classes)``.
        """
        return self.predict_splits({"images": images}, batch_size, flip)["images"]

    def predict_splits(
        self, splits: Mapping[str, np.ndarray], batch_size: int = 64, flip: bool = False
    ) -> dict[str, np.ndarray]:
        """:meth:`predict_logits` for several arrays of images by name, which costs less than one after the other."""
        mirrored = {f"mirrored {name}": images[:, :, ::-1] for name, images in splits.items()} if flip else {}
        logits = predict_all(self.model, {**splits, **mirrored}, batch_size)
        return {name: (logits[name] + logits[f"mirrored {name}"]) / 2 if flip else logits[name] for name in splits}

    def check_fits(self, image_size: int, class_names: Sequence[str]) -> None:
        """Refuse images of another size or of other classes than those that this classifier learnt.

        Raises:
            InputError: they differ.
        """
        if image_size != self.image_size:
            mismatch = f"takes images of {self.image_size} px, these have {image_size} px"
        elif tuple(class_names) != self.class_names:
            mismatch = f"knows the classes {shorten(self.class_names)}; these images have {shorten(class_names)}"
        else:
            return
        raise InputError(
            f"The model {mismatch}. It was trained on another set: train again, or load versions that belong together "
            "(--load-versions)."
        )

    def save(self, path: Path) -> None:
        """Write a ``.keras`` file that also holds the metadata, as ``classifier.json`` in the same archive."""
        self.model.save(path)
        metadata = {name: value for name, value in self.__dict__.items() if name != "model"}
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(_METADATA_NAME, json.dumps(metadata, ensure_ascii=False, indent=2))

    @classmethod
    def load(cls, path: Path) -> "Classifier":
        """Read what :meth:`save` wrote, in Keras' safe mode.

        Raises:
            InputError: the file is missing, damaged, or a ``.keras`` file without this metadata.
        """
        import keras

        try:
            with zipfile.ZipFile(path) as archive:
                metadata = json.loads(archive.read(_METADATA_NAME))
            metadata["class_names"] = tuple(metadata["class_names"])
            return cls(model=keras.models.load_model(path, safe_mode=True), **metadata)
        except FileNotFoundError:
            raise InputError(f"There is no classifier at {path}.") from None
        except (zipfile.BadZipFile, zlib.error, KeyError, OSError, TypeError, ValueError) as error:
            raise InputError(f"{path} is not a classifier that this project saved, or is damaged: {error}") from error
