"""Predictions with explanations: activation maps, similar training images, and mistakes."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, NamedTuple, Self

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.bundle.photographs import Reader
from efficientnet_finetuning.data.decode import open_image, resize_to_square, upright_rgb
from efficientnet_finetuning.data.encoded import EncodedImage
from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.errors import InputError, percent
from efficientnet_finetuning.evaluation.pictures import gallery, worth_a_look
from efficientnet_finetuning.models.classifier import TrainedClassifier
from efficientnet_finetuning.models.inference import KerasModel, mirrored, predict

# Photographs at once, and limits of each; the page that receives them checks the megabytes.
MAX_PHOTOGRAPHS, MAX_MEGABYTES, MAX_MEGAPIXELS = 10, 20, 50
# Side of a picture on the page, in pixels.
_PICTURE_SIDE = 480
# Training images to compare with; their features take a few seconds on two cores.
_MAX_COMPARED = 500

# Problem and remedy by kind of fault; {why} is the reader's reason.
_FAULTS = {
    "empty": ("is empty", "Copy it again from its source."),
    "undecodable": ("is not a readable picture", "Save it as JPEG or PNG, and try that file."),
    "too_large": (f"is too large ({{why}}; the limit is {MAX_MEGAPIXELS})", "Make it smaller, and try again."),
    "too_small": ("is too small: {why}", "Take a larger picture."),
    "truncated": ("is damaged ({why})", "Copy it again from its source, or save it as JPEG or PNG."),
}
_OTHER_FAULT = ("cannot be read ({why})", "Save it as JPEG or PNG, and try that file.")


class Fault(NamedTuple):
    """A photograph without a prediction: its name, and a message with the reason and a remedy."""

    name: str
    message: str


class Answer(NamedTuple):
    """A classifier's prediction for one photograph.

    Attributes:
        classes: the likeliest first.
        probabilities: of these, calibrated, 0–1.
        unanswered: why the classifier does not answer; empty if it does.
        photograph: upright RGB, small enough to show.
        evidence: the square that the network sees, under the activation map of the likeliest class.
        square: the network's input, uint8 ``(image_size, image_size, 3)``.
    """

    name: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    unanswered: str
    photograph: Image.Image
    evidence: Image.Image
    square: np.ndarray


def explain(classifier: Classifier, photographs: Sequence[EncodedImage], top: int = 5) -> list[Answer | Fault]:
    """Classify photographs; returns an answer with ``top`` classes, or a fault, for each photograph in their order.

    Raises ``InputError`` if there are more than :data:`MAX_PHOTOGRAPHS`.
    """
    if len(photographs) > MAX_PHOTOGRAPHS:
        raise InputError(
            f"You dropped {len(photographs)} photographs; at most {MAX_PHOTOGRAPHS} are possible at once. "
            f"Remove {len(photographs) - MAX_PHOTOGRAPHS}."
        )
    reader = Reader(photographs, classifier, MAX_MEGAPIXELS)
    squares = reader[:]
    sound = [row for row, reason in enumerate(reader.reasons) if not reason]
    answers = dict(
        zip(sound, _answers(classifier, [photographs[row] for row in sound], squares[sound], top), strict=True)
    )
    return [
        answers.get(row) or _fault(photograph.id, reader.reasons[row]) for row, photograph in enumerate(photographs)
    ]


def show_predictions(model: TrainedClassifier, images: np.ndarray, predictions: pd.DataFrame) -> Figure:
    """The most confident mistakes and the least confident hits, with activation maps of the predicted class."""
    rows = worth_a_look(predictions)  # the index is the image's row
    shown = images[rows.index]
    return gallery(shown, rows, _evidence(model, shown, rows["predicted"].tolist()))


def _answers(
    classifier: Classifier, photographs: Sequence[EncodedImage], squares: np.ndarray, top: int
) -> list[Answer]:
    if not photographs:
        return []
    table = classifier.predict(list(squares), top)
    maps = _evidence(classifier, squares, table["class_1"].tolist())
    answers = []
    for photograph, row, square, speaks in zip(photographs, table.to_dict("records"), squares, maps, strict=True):
        picture = _picture(photograph, classifier)
        answers.append(
            Answer(
                name=photograph.id,
                classes=tuple(value for name, value in row.items() if str(name).startswith("class_")),
                probabilities=tuple(value for name, value in row.items() if str(name).startswith("probability_")),
                unanswered="" if row["answered"] else _why_unanswered(classifier, row),
                photograph=picture,
                evidence=_overlaid(_square(picture, classifier), speaks),
                square=square,
            )
        )
    return answers


def _why_unanswered(classifier: Classifier, row: Mapping[Any, Any]) -> str:
    if row.get("distance", 0.0) > classifier.max_distance:
        return (
            f"This picture is unlike all training images: its distance is {row['distance']:.2f}, and the classifier "
            f"answers up to {classifier.max_distance:.2f}."
        )
    likeliest = f"The likeliest class is {row['class_1']} with {percent(row['probability_1'])}."
    if classifier.threshold is None:
        return f"Not confident enough to answer. {likeliest} No probability of this classifier is reliable enough."
    return (
        f"Not confident enough to answer. {likeliest} The classifier answers from {percent(classifier.threshold)} on."
    )


def _evidence(classifier: TrainedClassifier, squares: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Activation maps ``(N, height, width)`` of one class per image; their mean is the class' logit."""
    # Imported here, because Keras takes seconds, and the launcher only needs the limits.
    from efficientnet_finetuning.models.activation_maps import class_activation_maps

    indices = np.array([classifier.class_names.index(name) for name in classes])
    maps = class_activation_maps(classifier.model, squares, indices)
    if not classifier.flip:
        return maps
    of_mirrored = class_activation_maps(classifier.model, mirrored(squares), indices)
    averaged: np.ndarray = (maps + of_mirrored[:, :, ::-1]) / 2
    return averaged


def _picture(photograph: EncodedImage, classifier: Classifier) -> Image.Image:
    with photograph.open() as stream, open_image(stream) as opened:
        picture = upright_rgb(opened, classifier.background)
        picture.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
        return picture


def _square(picture: Image.Image, classifier: Classifier) -> Image.Image:
    """The picture's part that the network sees, in more pixels."""
    return resize_to_square(picture, _PICTURE_SIDE, classifier.resize, classifier.interpolation, classifier.background)


def _overlaid(square: Image.Image, speaks: np.ndarray) -> Image.Image:
    """A grey square under a colour map: the brighter a place, the more it supports the class."""
    scaled = (speaks - speaks.min()) / (np.ptp(speaks) or 1)
    smooth = Image.fromarray(scaled.astype(np.float32)).resize(square.size, Image.Resampling.BICUBIC)
    colours = Image.fromarray(mpl.colormaps["inferno"](np.asarray(smooth).clip(0, 1), bytes=True)[..., :3])
    return Image.blend(square.convert("L").convert("RGB"), colours, 0.5)


def _fault(name: str, reason: str) -> Fault:
    kind, _, why = reason.partition(": ")
    what, remedy = _FAULTS.get(kind, _OTHER_FAULT)
    return Fault(name, f"{name} {what.format(why=why)}. {remedy}")


def samples(classifier: Classifier, images: Examples, count: int) -> list[EncodedImage]:
    """The first image of each of the first classes, as examples to try."""
    pixels, one_hot = images.arrays
    labels, rows = np.unique(one_hot.argmax(1), return_index=True)
    found = []
    for label, row in zip(labels[:count].tolist(), rows, strict=False):
        stream = BytesIO()
        Image.fromarray(pixels[row]).save(stream, "PNG")
        found.append(EncodedImage(f"A test image of {classifier.class_names[label]}", stream.getvalue(), label))
    return found


class Neighbours:
    """Training images of a classifier, to find those most similar to a photograph."""

    def __init__(self, extractor: KerasModel, images: np.ndarray, labels: np.ndarray) -> None:
        """Compute features of all images, uint8 ``(N, image_size, image_size, 3)``, with class indices ``(N,)``."""
        self.images, self.labels = images, labels
        self._extractor = extractor
        features = predict(extractor, images, 64, "training images")
        self._mean, self._deviation = features.mean(0), features.std(0) + 1e-6
        self._directions = self._standardized(features)

    @classmethod
    def of(cls, classifier: Classifier, train: Examples) -> Self:
        """Use the first training images of each class, equally many, at most 500 in all."""
        from efficientnet_finetuning.models.heads import backbone_of, feature_extractor  # imports Keras

        images, one_hot = train.arrays
        labels = one_hot.argmax(1)
        per_class = max(1, _MAX_COMPARED // len(classifier.class_names))
        rows = [np.flatnonzero(labels == label)[:per_class] for label in range(len(classifier.class_names))]
        chosen = np.sort(np.concatenate(rows)[:_MAX_COMPARED])
        return cls(feature_extractor(backbone_of(classifier.model)), images[chosen], labels[chosen])

    def nearest(self, squares: np.ndarray, labels: Sequence[int], count: int) -> list[np.ndarray]:
        """For each square, the most similar images of a class, by the angle between their features.

        Args:
            squares: uint8 ``(M, image_size, image_size, 3)``.
            labels: a class index for each square.
            count: maximum number of images.

        Returns:
            For each square, uint8 ``(count, image_size, image_size, 3)`` or fewer, nearest first.
        """
        similarities = self._standardized(predict(self._extractor, squares, 64, "photographs")) @ self._directions.T
        found = []
        for similarity, label in zip(similarities, labels, strict=True):
            rows = np.flatnonzero(self.labels == label)
            found.append(self.images[rows[np.argsort(-similarity[rows], kind="stable")[:count]]])
        return found

    def _standardized(self, features: np.ndarray) -> np.ndarray:
        """Standardize the channels, whose scales differ by orders of magnitude, then scale rows to unit length."""
        scaled = (features - self._mean) / self._deviation
        directions: np.ndarray = scaled / (np.linalg.norm(scaled, axis=1, keepdims=True) + 1e-12)
        return directions
