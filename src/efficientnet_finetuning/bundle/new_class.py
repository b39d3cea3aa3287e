"""Add a class to a champion in seconds: only the new photographs pass through the network."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.bundle.novelty import directions
from efficientnet_finetuning.bundle.photographs import Reader
from efficientnet_finetuning.data.encoded import EncodedImage
from efficientnet_finetuning.data.sources import is_showable
from efficientnet_finetuning.errors import InputError, percent, shorten
from efficientnet_finetuning.evaluation.verdict import paired_difference
from efficientnet_finetuning.models.classifier import TrainedClassifier
from efficientnet_finetuning.models.inference import Images, predict_all


class Features(NamedTuple):
    """A classifier's outputs for images, averaged over mirror images if its predictions are.

    Attributes:
        logits: float32 ``(N, num_classes)``.
        last_map: averages of its last feature map, ``(N, channels)``.
        head_inputs: inputs of its last layer, ``(N, head_channels)``.
    """

    logits: np.ndarray
    last_map: np.ndarray
    head_inputs: np.ndarray


def features_of(model: TrainedClassifier, images: Mapping[str, Images], batch_size: int) -> dict[str, Features]:
    """One forward pass over the images of each key, pixels ``(N, image_size, image_size, 3)`` in 0–255."""
    from efficientnet_finetuning.models.heads import logits_of, with_head_inputs  # imports Keras

    outputs = predict_all(with_head_inputs(model.model), images, batch_size, "features of ", flip=model.flip)
    num_classes, width = len(model.class_names), len(logits_of(model.model)[0])
    return {
        name: Features(values[:, :num_classes], values[:, num_classes:-width], values[:, -width:])
        for name, values in outputs.items()
    }


def read_photographs(classifier: Classifier, photographs: Sequence[EncodedImage]) -> tuple[np.ndarray, dict[str, str]]:
    """Read photographs of a new class as squares; also returns the reason for each unreadable one, by id.

    Raises ``InputError`` if fewer than two are readable, because then none can test the others.
    """
    reader = Reader(photographs, classifier)
    squares = reader[:]
    is_sound = reader.reasons == ""
    unreadable = {one.id: why for one, why in zip(photographs, reader.reasons, strict=True) if why}
    if is_sound.sum() < 2:
        why = f" Not readable: {shorten([f'{name} ({reason})' for name, reason in unreadable.items()])}."
        raise InputError(
            f"A new class needs at least two readable photographs, better twenty; there are {is_sound.sum()}."
            f"{why if unreadable else ''}"
        )
    return squares[is_sound], unreadable


def add_class(
    classifier: Classifier,
    learnt: Mapping[str, np.ndarray],
    name: str,
    images: np.ndarray,
    max_loss: float,
    batch_size: int = 64,
) -> tuple[Classifier, dict[str, Any]]:
    """Add a class to a classifier: one more column of its head.

    Args:
        classifier: a champion.
        learnt: ``head_inputs`` ``(N, head_channels)``, ``labels`` ``(N,)`` and ``held_out_logits`` ``(N,
            num_classes)``, as for :func:`~efficientnet_finetuning.training.new_class.fit_new_class`, and
            ``test_head_inputs`` and ``test_labels`` of test images.
        name: of the class.
        images: of the class, at least two: uint8 ``(M, image_size, image_size, 3)``.
        max_loss: share (0–1) of the known classes' images that may be lost to the new class.
        batch_size: images in a forward pass.

    Returns:
        The extended classifier, with the new class last; and ``class``, ``num_photographs``, ``num_recognized`` (when
        held out), ``num_test_images``, top-1 ``before`` and ``after`` on these (0–1), their
        :func:`~efficientnet_finetuning.evaluation.verdict.paired_difference`, and ``words``.

    Raises:
        InputError: the classifier has the class already, or its name cannot be shown.
    """
    from efficientnet_finetuning.models.heads import logits_of, with_class
    from efficientnet_finetuning.training.new_class import fit_new_class

    if not name.strip() or not is_showable(name):
        raise InputError(f"{name!a} cannot be the name of a class. Set add_class.name.")
    if name in classifier.class_names:
        raise InputError(
            f"The champion has the class {name!r} already. Add its photographs to the training images instead, or set "
            "add_class.name to another name."
        )
    new = features_of(classifier, {name: images}, batch_size)[name]
    kernel, bias = logits_of(classifier.model)
    known = learnt["head_inputs"], learnt["head_inputs"] @ kernel + bias
    column = fit_new_class(known, (new.head_inputs, new.logits), learnt["labels"], learnt["held_out_logits"], max_loss)
    wider = replace(
        classifier,
        model=with_class(classifier.model, column.kernel, column.bias),
        class_names=(*classifier.class_names, name),
        **_references(classifier, new.last_map),
    )
    test = learnt["test_head_inputs"]
    before = test @ kernel + bias
    after = np.c_[before, test @ column.kernel + column.bias]
    return wider, _judged(name, column.is_recognized, learnt["test_labels"], before, after)


def _references(classifier: Classifier, last_map: np.ndarray) -> dict[str, Any]:
    """The classifier's references, with the photographs of the new class."""
    if classifier.references is None or classifier.reference_labels is None:
        return {}
    labels = np.full(len(last_map), len(classifier.class_names), classifier.reference_labels.dtype)
    return {
        "references": np.concatenate([classifier.references, directions(last_map)]),
        "reference_labels": np.concatenate([classifier.reference_labels, labels]),
    }


def _judged(
    name: str, is_recognized: np.ndarray, labels: np.ndarray, before: np.ndarray, after: np.ndarray
) -> dict[str, Any]:
    hits = before.argmax(1) == labels, after.argmax(1) == labels
    found = paired_difference(*hits)
    counts = {"num_photographs": len(is_recognized), "num_recognized": int(is_recognized.sum())}
    top1 = {"before": float(hits[0].mean()), "after": float(hits[1].mean())}
    low, points, high = (100 * found[key] for key in ("low", "difference", "high"))
    words = (
        f"The class {name} was added. A model that was not trained on them recognizes {counts['num_recognized']} of "
        f"its {counts['num_photographs']} photographs. Of {len(labels):,} test images of the other classes, "
        f"{percent(top1['before'])} were predicted correctly before and {percent(top1['after'])} are now "
        f"({points:+.1f} points, 95 % interval {low:.1f} to {high:.1f})."
    )
    return {"class": name, **counts, "num_test_images": len(labels), **top1, **found, "words": words}
