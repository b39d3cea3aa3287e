"""The last step of fine-tuning: a new head on the fine-tuned backbone."""

import keras
import numpy as np

from efficientnet_finetuning.models.heads import assemble, backbone_of, dense_head, feature_extractor
from efficientnet_finetuning.models.inference import mirrored, predict_all
from efficientnet_finetuning.parameters import HeadParameters, TrainingParameters
from efficientnet_finetuning.training.head import FittedHead, fit_head
from efficientnet_finetuning.workers import MapBlocks

Arrays = tuple[np.ndarray, np.ndarray]


def refit_head(
    model: keras.Model,
    train: Arrays,
    validation: Arrays,
    training: TrainingParameters,
    *,
    flip: bool = False,
    map_blocks: MapBlocks = map,
) -> tuple[keras.Model, np.ndarray]:
    """Fit a head on the averages of all stages, on training and validation images.

    Args:
        model: from pixels to logits, with a head on the last feature map.
        train: uint8 images ``(N, size, size, 3)`` and one-hot labels.
        validation: as ``train``, but unknown to the backbone.
        training: its class weights and its dropout in the head are used.
        flip: average the validation logits of each image and its mirror image.
        map_blocks: as in :func:`~efficientnet_finetuning.models.inference.predict`.

    Returns:
        A model from pixels to logits, which shares the backbone's layers with ``model``, and logits ``(M,
        num_classes)`` of the validation images by a head that was fitted on the training images only.
    """
    backbone = backbone_of(model)
    splits = {"train": train[0], "validation": validation[0]}
    if flip:
        splits["mirrored"] = mirrored(validation[0])
    features = predict_all(feature_extractor(backbone), splits, 64, map_blocks=map_blocks)
    seen = features["train"], train[1]
    unseen = features["validation"], validation[1]
    everything = tuple(np.concatenate(pair) for pair in zip(seen, unseen, strict=True))

    def fitted_on(images: np.ndarray, labels: np.ndarray) -> FittedHead:
        # The backbone was trained on most of the images, so folds cannot choose the strength. The strength of the mean
        # loss was among the best at all sizes.
        head = HeadParameters(inverse_regularizations=(1 / len(labels),), folds=0, class_weight=training.class_weight)
        return fit_head(images, labels, *unseen, head, mirrored=features.get("mirrored"), quiet=True)

    whole = fitted_on(*everything)
    model = assemble(backbone, dense_head(whole.kernel, whole.bias), training.head_dropout)
    return model, fitted_on(*seen).held_out_logits
