"""Add a class to the champion from a folder of photographs."""

from typing import Any

import numpy as np

from efficientnet_finetuning.bundle import new_class
from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.bundle.photographs import find_photographs
from efficientnet_finetuning.parameters import AddClassParameters


def add_class(
    champion_model: Classifier, champion_features: dict[str, np.ndarray], add_class: AddClassParameters
) -> tuple[Classifier, dict[str, Any]]:
    """Add a class to the champion, and measure its effect; see :func:`new_class.add_class`."""
    assert add_class.path is not None, "the run's hooks check it"
    photographs = find_photographs(add_class.path)
    images, unreadable = new_class.read_photographs(champion_model, photographs)
    name = add_class.name or add_class.path.name
    wider, found = new_class.add_class(champion_model, champion_features, name, images, add_class.max_loss)
    return wider, found | {"unreadable": unreadable}
