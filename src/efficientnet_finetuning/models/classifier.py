"""A trained classifier: a Keras network with the information that is needed to use it."""

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
    """A network, the preparation of its inputs, and the meaning of its outputs.

    ``bundle.classifier.Classifier`` extends it for use on photographs.

    Attributes:
        model: from ``(batch, image_size, image_size, 3)`` pixels in 0–255, uint8 or float, to float32 logits ``(batch,
            num_classes)``. It has plain Keras layers only, so ``keras.models.load_model`` reads it anywhere.
        class_names: in the order of the logits.
        backbone: name of the architecture.
        image_size: side of the square input in pixels.
        resize: ``stretch``, ``center_crop`` or ``pad``, as in training.
        interpolation: ``bicubic`` or ``bilinear``, as in training.
        background: ``#rrggbb`` behind transparent and padded areas, as in training.
        class_weight: ``none`` or ``balanced``, as in the loss of its training.
        flip: whether predictions average the logits of an image and its mirror image.
        temperature: divisor of the logits before the softmax, for calibrated confidences.
    """

    # Attributes that are stored as separate arrays in the file.
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
        """A classifier whose preparation of images is given by the parameters; ``others`` are further attributes."""
        size, how = image_size(preprocessing, backbone), preprocessing.model_dump(exclude={"image_size"})
        return cls(model, tuple(class_names), backbone.name, size, **how, **others)

    def predict_logits(self, images: Images, batch_size: int = 64, map_blocks: MapBlocks = map) -> np.ndarray:
        """Logits, float32 ``(N, num_classes)``, of pixels ``(N, image_size, image_size, 3)`` in 0–255.

        They are averaged over mirror images if ``flip`` is set. See
        :func:`~efficientnet_finetuning.models.inference.predict`.
        """
        return predict(self.model, images, batch_size, "images", flip=self.flip, map_blocks=map_blocks)

    def check_fits(self, image_size: int, class_names: Sequence[str]) -> None:
        """Check that images have the size and the classes of the training.

        Raises:
            InputError: they differ.
        """
        if image_size != self.image_size:
            mismatch = f"takes images of {self.image_size} px, but these have {image_size} px"
        elif tuple(class_names) != self.class_names:
            mismatch = f"knows the classes {shorten(self.class_names)}; these images have {shorten(class_names)}"
        else:
            return
        raise InputError(
            f"The model {mismatch}. It was trained on another set. Train again, or load versions that belong together "
            "(--load-versions)."
        )

    def _checked(self) -> dict[str, bool]:
        """Whether each attribute of a loaded file is valid."""
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
        """All attributes except the model and the arrays, as JSON."""
        metadata = {name: value for name, value in self.__dict__.items() if name not in ("model", *self._ARRAYS)}
        return json.dumps(metadata, ensure_ascii=False, indent=2)

    def save(self, path: Path) -> None:
        """Write a ``.keras`` file that also contains the metadata as ``classifier.json``."""
        self.model.save(path)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(METADATA_NAME, self.metadata())
            for name in self._ARRAYS:
                if (array := getattr(self, name)) is not None:
                    with archive.open(f"{name}.npy", "w") as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a file of :meth:`save`, in the safe mode of Keras.

        Raises:
            InputError: the file is missing, damaged, unsafe, or not from this project.
        """
        # Here, because Keras takes seconds to import and must not open a file before it is checked.
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
                raise ValueError(f"invalid {', '.join(wrong)}")
            return loaded
        except InputError:
            raise
        except Exception as error:  # damaged files raise many kinds of errors
            raise InputError(f"{path} is not a classifier that this project saved, or is damaged: {error}") from error
