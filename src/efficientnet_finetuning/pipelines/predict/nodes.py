"""Prediction: the champion classifies unlabelled photographs."""

from collections.abc import Iterator

import pandas as pd

from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.bundle.photographs import find_photographs
from efficientnet_finetuning.parameters import PredictParameters


def answer_photographs(champion_model: Classifier, predict: PredictParameters) -> Iterator[pd.DataFrame]:
    """Classes and probabilities of every photograph, part by part; see :meth:`Classifier.answer`."""
    assert predict.path is not None, "the run's hooks check it"
    return champion_model.answer(find_photographs(predict.path), predict.top, predict.batch_size)
