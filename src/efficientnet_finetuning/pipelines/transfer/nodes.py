"""Transfer: the backbone stays frozen, so its features are computed once, and only a head is fitted."""

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from efficientnet_finetuning.data.examples import Examples
from efficientnet_finetuning.data.groups import groups_of
from efficientnet_finetuning.device import device_name, peak_memory
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.evaluation.calibration import fit_temperature
from efficientnet_finetuning.models.classifier import TrainedClassifier
from efficientnet_finetuning.models.inference import Images, KerasModel, mirrored, predict_all
from efficientnet_finetuning.parameters import (
    BackboneParameters,
    DeviceParameters,
    HeadParameters,
    PreprocessingParameters,
    image_size,
)
from efficientnet_finetuning.workers import Workers

if TYPE_CHECKING:
    from efficientnet_finetuning.training.head import FittedHead


def build_pretrained_backbone(
    backbone: BackboneParameters, preprocessing: PreprocessingParameters, device: DeviceParameters, seed: int
) -> KerasModel:
    """Build the backbone with the weights that the parameters name."""
    from efficientnet_finetuning.models.backbones import build_backbone

    return build_backbone(
        backbone.name,
        image_size(preprocessing, backbone),
        backbone.weights,
        dtype_policy=device.dtype_policy,
        seed=seed,
    )


def extract_features(
    backbone: KerasModel,
    train_images: Examples,
    validation_images: Examples,
    head: HeadParameters,
    flip: bool,
    seed: int,
    workers: Workers,
) -> dict[str, np.ndarray]:
    """Compute features of every view of the training images, and of the validation images.

    Returns:
        float32 ``train`` ``(views × N, channels)``, view by view, and ``validation`` ``(N, channels)``; the ``seconds``
        spent; with ``flip`` also ``mirrored``: features of the mirrored held-out images.
    """
    from efficientnet_finetuning.models.heads import feature_extractor
    from efficientnet_finetuning.training.augmentation import Augmentation, Views
    from efficientnet_finetuning.training.head import number_of_folds

    started = time.perf_counter()
    extractor = feature_extractor(backbone)
    train, validation = train_images.arrays[0], validation_images.arrays[0]
    views = Views(train, head.views, Augmentation(head.augmentation), seed)
    images: dict[str, Images] = {"train": views, "validation": validation}
    if flip:
        images["mirrored validation"] = mirrored(validation)
        if number_of_folds(head, len(views), len(validation)):
            images["mirrored train"] = mirrored(train)
    features = predict_all(extractor, images, head.batch_size, "features of ", map_blocks=workers.map_blocks)
    of_mirror_images = [features.pop(name) for name in ("mirrored train", "mirrored validation") if name in features]
    if of_mirror_images:
        features["mirrored"] = np.concatenate(of_mirror_images)
    return features | {"seconds": np.asarray(time.perf_counter() - started)}


def fit_head(
    features: dict[str, np.ndarray],
    train_images: Examples,
    validation_images: Examples,
    manifest: pd.DataFrame,
    head: HeadParameters,
) -> tuple[KerasModel, dict[str, np.ndarray], pd.DataFrame]:
    """Fit the head; held-out images, with groups kept whole, choose its regularization.

    Returns:
        The head; ``logits``, ``labels`` and ``ids`` of the held-out images; and the regularization path as a history,
        whose first row includes the seconds of feature extraction.
    """
    from efficientnet_finetuning.models.heads import dense_head

    fitted = _fit(features, slice(None), train_images, validation_images, manifest, head, use_all=True)
    path = fitted.path
    path[0]["seconds"] += float(features["seconds"])
    about: dict[str, Any] = {
        "class_weight": head.class_weight,
        "device": device_name(),
        "peak_memory_gb": peak_memory() / 1e9,
    }
    history = pd.DataFrame(path).assign(**about, images=0)
    history.loc[0, "images"] = len(features["train"])  # the backbone processes them once for all strengths
    logits = fitted.held_out_logits
    labels, ids = (
        np.concatenate([getattr(images, name) for images in (train_images, validation_images)])[-len(logits) :]
        for name in ("labels", "ids")
    )
    return dense_head(fitted.kernel, fitted.bias), {"logits": logits, "labels": labels, "ids": ids}, history


def fit_start(
    backbone: KerasModel,
    features: dict[str, np.ndarray],
    train_images: Examples,
    validation_images: Examples,
    manifest: pd.DataFrame,
    class_names: list[str],
    backbone_parameters: BackboneParameters,
    preprocessing: PreprocessingParameters,
    head: HeadParameters,
) -> TrainedClassifier:
    """Build the classifier that fine-tuning starts from: the backbone with a head on its last feature map.

    A head on all stages is two to three points better, but a worse start with few images; see
    ``tests/benchmarks/sizes.py``.
    """
    from efficientnet_finetuning.models.heads import assemble, dense_head

    last_map = slice(-backbone.output_shape[-1], None)
    fitted = _fit(features, last_map, train_images, validation_images, manifest, head, quiet=True)
    model = assemble(backbone, dense_head(fitted.kernel, fitted.bias), head.head_dropout)
    return TrainedClassifier.of(model, class_names, backbone_parameters, preprocessing, class_weight=head.class_weight)


def _fit(
    features: dict[str, np.ndarray],
    channels: slice,
    train_images: Examples,
    validation_images: Examples,
    manifest: pd.DataFrame,
    head: HeadParameters,
    **options: bool,
) -> "FittedHead":
    """Fit a head on some channels of the features."""
    from efficientnet_finetuning.training.head import fit_head as fit

    images = head.views * len(train_images), len(validation_images)
    if (len(features["train"]), len(features["validation"])) != images:
        raise InputError(
            "The stored features belong to other images. Compute them again: --from-nodes transfer.extract_features."
        )
    return fit(
        features["train"][:, channels],
        np.tile(train_images.labels, (head.views, 1)),
        features["validation"][:, channels],
        validation_images.labels,
        head,
        mirrored=features["mirrored"][:, channels] if "mirrored" in features else None,
        groups=groups_of(manifest, np.concatenate([train_images.ids, validation_images.ids])),
        **options,
    )


def assemble_classifier(
    backbone: KerasModel,
    fitted_head: KerasModel,
    held_out: dict[str, np.ndarray],
    class_names: list[str],
    backbone_parameters: BackboneParameters,
    preprocessing: PreprocessingParameters,
    head: HeadParameters,
    flip: bool,
) -> TrainedClassifier:
    """Put the fitted head on the backbone: one model from pixels to logits, with its temperature."""
    from efficientnet_finetuning.models.heads import assemble

    model = assemble(backbone, fitted_head, head.head_dropout)
    return TrainedClassifier.of(
        model,
        class_names,
        backbone_parameters,
        preprocessing,
        class_weight=head.class_weight,
        flip=flip,
        temperature=fit_temperature(held_out["logits"], held_out["labels"]),
    )
