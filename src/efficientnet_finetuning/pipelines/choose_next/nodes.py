"""Rank unlabelled photographs by the benefit of labelling them."""

import logging

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.bundle.new_class import features_of
from efficientnet_finetuning.bundle.photographs import Reader, find_photographs
from efficientnet_finetuning.errors import InputError, counted, shorten
from efficientnet_finetuning.evaluation.calibration import log_softmax
from efficientnet_finetuning.evaluation.pictures import image_grid
from efficientnet_finetuning.parameters import PredictParameters
from efficientnet_finetuning.quality.next_images import margins, rank_images

logger = logging.getLogger(__name__)

_NUM_SHOWN = 9


def rank_photographs(
    champion_model: Classifier, predict: PredictParameters, seed: int
) -> tuple[list[pd.DataFrame], Figure]:
    """Rank photographs by :func:`~efficientnet_finetuning.quality.next_images.rank_images`.

    Returns:
        A table in one part: ``id``, ``rank`` (1: label first), ``uncertainty`` (0–1), ``likeliest`` class and its
        ``probability``; and a figure of the first photographs.

    Raises:
        InputError: the path has no readable photograph.
    """
    assert predict.path is not None, "the run's hooks check it"
    photographs = find_photographs(predict.path)
    reader = Reader(photographs, champion_model)
    seen = features_of(champion_model, {"photographs": reader}, predict.batch_size)["photographs"]
    unreadable = [f"{one.id} ({why})" for one, why in zip(photographs, reader.reasons, strict=True) if why]
    if unreadable:
        logger.warning("%s cannot be read: %s", counted(len(unreadable), "photograph"), shorten(unreadable, limit=3))
    if len(unreadable) == len(photographs):
        raise InputError(f"No photograph in {predict.path} can be read: {shorten(unreadable, limit=3)}.")
    readable = np.flatnonzero(reader.reasons == "")
    probabilities = np.exp(log_softmax(seen.logits[readable], champion_model.temperature))
    order = rank_images(probabilities, seen.head_inputs[readable], seed)
    probabilities, chosen = probabilities[order], [photographs[row] for row in readable[order]]
    table = pd.DataFrame(
        {
            "id": [one.id for one in chosen],
            "rank": np.arange(1, len(order) + 1),
            "uncertainty": 1 - margins(probabilities),
            "likeliest": np.asarray(champion_model.class_names, object)[probabilities.argmax(1)],
            "probability": probabilities.max(1),
        }
    )
    first = table.head(_NUM_SHOWN)
    titles = [
        f"{name} {100 * share:.0f} %" for name, share in zip(first["likeliest"], first["probability"], strict=True)
    ]
    squares = Reader(chosen[:_NUM_SHOWN], champion_model)[:]
    return [table], image_grid(squares, titles, "Label these first (shown with the likeliest class)")
