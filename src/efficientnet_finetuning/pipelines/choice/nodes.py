"""Choose a backbone and an image size for this set on this machine."""

import logging
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from efficientnet_finetuning.data.groups import groups_of
from efficientnet_finetuning.data.prepare import prepare
from efficientnet_finetuning.data.sources import Source
from efficientnet_finetuning.evaluation.backbone_choice import format_candidates, recommend
from efficientnet_finetuning.evaluation.figures import backbone_front
from efficientnet_finetuning.parameters import (
    ChoiceParameters,
    DeviceParameters,
    HeadParameters,
    PreprocessingParameters,
    TrainingParameters,
)

logger = logging.getLogger(__name__)


def measure_backbones(
    source: Source,
    manifest: pd.DataFrame,
    class_names: list[str],
    choice: ChoiceParameters,
    preprocessing: PreprocessingParameters,
    head: HeadParameters,
    training: TrainingParameters,
    device: DeviceParameters,
    seed: int,
) -> pd.DataFrame:
    """Accuracy, speed and memory of each backbone at each size, on some training images; one row per candidate."""
    from efficientnet_finetuning.training.candidates import measure_candidates

    train = manifest[manifest["split"] == "train"]
    share = min(1.0, choice.max_images / len(train))
    # Take the same share of each class, to keep the imbalance of the set.
    sample = train.groupby("label").sample(frac=share, random_state=seed).sort_index()

    def images(size: int) -> tuple[np.ndarray, np.ndarray]:
        examples = prepare(
            source,
            sample,
            len(class_names),
            "train",
            image_size=size,
            **preprocessing.model_dump(exclude={"image_size"}),
        )
        return np.array(examples.images), examples.labels

    return pd.DataFrame(
        measure_candidates(
            images,
            len(train),
            choice,
            head,
            training,
            groups=groups_of(sample, sample["id"].to_numpy()),
            dtype_policy=device.dtype_policy,
            seed=seed,
        )
    )


def recommend_backbone(candidates: pd.DataFrame, choice: ChoiceParameters) -> tuple[dict[str, Any], Figure]:
    """Recommend a candidate for the available time, with reasons; and plot all candidates."""
    chosen = recommend(candidates, choice.time_budget_minutes)
    logger.info("%s\n\n%s", format_candidates(candidates), chosen["words"])
    return chosen, backbone_front(candidates, chosen)
