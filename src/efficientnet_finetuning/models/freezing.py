"""What is trained: whole blocks from one upward, with BatchNorm at its statistics unless told otherwise."""

import keras

from efficientnet_finetuning.models.architectures import ARCHITECTURES


def unfreeze(model: keras.Model, backbone: str, unfreeze_from: str, freeze_batch_norm: bool) -> tuple[int, int]:
    """Set what a classifier trains. Compile it afterwards.

    Only whole blocks: a block's shortcut and its branch must move together (the Keras example "Image classification
    via fine-tuning with EfficientNet" says so and why BatchNorm stays frozen: its statistics would wreck what the
    first epoch has learnt).

    Args:
        model: the classifier's network, changed in place.
        backbone: name of its architecture.
        unfreeze_from: ``all`` or the lowest block that is trained.
        freeze_batch_norm: keep BatchNorm in inference mode, its gamma and beta too.

    Returns:
        Numbers of trainable and of frozen parameters.
    """
    blocks = ARCHITECTURES[backbone].blocks
    frozen = blocks[: 0 if unfreeze_from == "all" else blocks.index(unfreeze_from)]
    for layer in model.layers:
        is_batch_norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = layer.name.split("_")[0] not in frozen and not (is_batch_norm and freeze_batch_norm)
    return _count(model.trainable_weights), _count(model.non_trainable_weights)


def _count(weights: list[keras.Variable]) -> int:
    return sum(int(keras.ops.size(weight)) for weight in weights)
