"""A trained classifier: a Keras network together with what one must know to feed it and to read its answer."""

import json
import math
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from efficientnet_finetuning.errors import InputError, printable, shorten
from efficientnet_finetuning.models.inference import Images, predict
from efficientnet_finetuning.parameters import BackboneParameters, PreprocessingParameters, image_size
from efficientnet_finetuning.workers import MapBlocks

if TYPE_CHECKING:
    import keras

METADATA_NAME = "classifier.json"


@dataclass(frozen=True)
class TrainedClassifier:
    """A network, how to feed it, and what its answer is.

    ``bundle.classifier.Classifier`` is one that was made ready for use on photographs.

    Attributes:
        model: from ``(batch, image_size, image_size, 3)`` pixels in 0–255, uint8 or float, to float32 logits
            ``(batch, num_classes)``. Plain Keras layers only: ``keras.models.load_model`` reads it anywhere.
        class_names: in the order of the logits.
        backbone: name of the architecture.
        image_size: side of the square input in pixels.
        resize: ``stretch``, ``center_crop`` or ``pad``, as images were prepared for training.
        interpolation: ``bicubic`` or ``bilinear``, likewise.
        background: ``#rrggbb`` behind transparent and padded images, likewise.
        class_weight: ``none`` or ``balanced``, as the loss of its training weighed the classes.
        flip: whether its answer averages the logits of an image and of its mirror image.
        temperature: what to divide those by before the softmax, so that confidences can be believed.
    """

    # Attributes that are arrays, which have members of their own in the file.
    _ARRAYS: ClassVar[tuple[str, ...]] = ()

    model: "keras.Model"
    class_names: tuple[str, ...]
    backbone: str
    image_size: int
    resize: str
    interpolation: str
    background: str = "#ffffff"
    class_weight: str = "none"
    flip: bool = False
    temperature: float = 1.0

    @classmethod
    def of(
        cls,
        model: "keras.Model",
        class_names: Sequence[str],
        backbone: BackboneParameters,
        preprocessing: PreprocessingParameters,
        **others: Any,
    ) -> Self:
        """A network whose images are prepared as the parameters say; ``others`` are further attributes."""
        size, how = image_size(preprocessing, backbone), preprocessing.model_dump(exclude={"image_size"})
        return cls(model, tuple(class_names), backbone.name, size, **how, **others)

    def predict_logits(self, images: Images, batch_size: int = 64, map_blocks: MapBlocks = map) -> np.ndarray:
        """Logits of images, every one exactly once, those of the uneven last batch too.

        They are the classifier's answer: where ``flip`` says so, those of an image and of its mirror image averaged.

        Args:
            images: pixels ``(N, image_size, image_size, 3)`` in 0–255.
            batch_size: images in a forward pass.
            map_blocks: who computes them, as in :func:`~efficientnet_finetuning.models.inference.predict`.

        Returns:
            float32 ``(N, num_classes)``.
        """
        return predict(self.model, images, batch_size, "images", flip=self.flip, map_blocks=map_blocks)

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

    def _checked(self) -> dict[str, bool]:
        """By attribute, whether it is what it can be: a file may hold anything."""
        names = self.class_names
        return {
            "image_size": self.model.input_shape[1:] == (self.image_size, self.image_size, 3),
            "class_names": self.model.output_shape[1:] == (len(names),)
            and all(printable(name) == name for name in names),
            "backbone": isinstance(self.backbone, str),
            "resize": self.resize in ("stretch", "center_crop", "pad"),
            "interpolation": self.interpolation in ("bicubic", "bilinear"),
            "background": bool(re.fullmatch("#[0-9a-fA-F]{6}", self.background)),
            "flip": isinstance(self.flip, bool),
            "temperature": 0 < self.temperature < math.inf,
        }

    def metadata(self) -> str:
        """All attributes but the model and arrays, as JSON."""
        metadata = {name: value for name, value in self.__dict__.items() if name not in ("model", *self._ARRAYS)}
        return json.dumps(metadata, ensure_ascii=False, indent=2)

    def save(self, path: Path) -> None:
        """Write a ``.keras`` file that also holds the metadata, as ``classifier.json`` in the same archive."""
        self.model.save(path)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(METADATA_NAME, self.metadata())
            for name in self._ARRAYS:
                if (array := getattr(self, name)) is not None:
                    with archive.open(f"{name}.npy", "w") as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read what :meth:`save` wrote, in Keras' safe mode.

        Raises:
            InputError: the file is missing, damaged, a ``.keras`` file without this metadata, or one that could run
                code.
        """
        # Here, since Keras takes seconds to import, and must not see a file before it is known to be harmless.
        from efficientnet_finetuning.models.untrusted import check_keras_file

        if not Path(path).is_file():  # a pipe would wait for its writer
            raise InputError(f"There is no classifier at {path}.")
        try:
            check_keras_file(Path(path))
            import keras

            with zipfile.ZipFile(path) as archive:
                metadata = json.loads(archive.read(METADATA_NAME))
                for name in cls._ARRAYS:
                    if f"{name}.npy" in archive.namelist():
                        content = BytesIO(archive.read(f"{name}.npy"))
                        metadata[name] = np.lib.format.read_array(content, allow_pickle=False)
            metadata["class_names"] = tuple(metadata["class_names"])
            loaded = cls(model=keras.models.load_model(path, safe_mode=True), **metadata)
            if wrong := [name for name, is_sound in loaded._checked().items() if not is_sound]:
                raise ValueError(f"no classifier has such {', '.join(wrong)}")
            return loaded
        except InputError:
            raise
        except Exception as error:  # a damaged file fails in as many ways as it can be damaged
            raise InputError(f"{path} is not a classifier that this project saved, or is damaged: {error}") from error
