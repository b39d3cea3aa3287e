"""Freezing: which blocks are trained, and whether BatchNorm is."""

import keras

from efficientnet_finetuning.models.architectures import ARCHITECTURES


def unfreeze(model: keras.Model, backbone: str, unfreeze_from: str, freeze_batch_norm: bool) -> tuple[int, int]:
    """Set which layers of a classifier are trained, and return the numbers of trainable and frozen parameters.

    Only whole blocks are trained, because a block's shortcut and its branch must change together. BatchNorm should stay
    frozen, because changed statistics destroy what the first epoch has learnt. Source: the Keras example "Image
    classification via fine-tuning with EfficientNet".

    Args:
        model: changed in place; compile it afterwards.
        backbone: name of its architecture.
        unfreeze_from: ``all``, the lowest trained block, or ``head``.
        freeze_batch_norm: keep the BatchNorm of the backbone in inference mode, including gamma and beta.
    """
    frozen = frozen_blocks(backbone, unfreeze_from)
    for layer in model.layers:
        block = layer.name.split("_")[0]
        is_batch_norm = isinstance(layer, keras.layers.BatchNormalization) and block != "head"
        layer.trainable = block not in frozen and not (is_batch_norm and freeze_batch_norm)
    return _count(model.trainable_weights), _count(model.non_trainable_weights)


def split(model: keras.Model, backbone: str, unfreeze_from: str) -> tuple[keras.Model, keras.Model]:
    """Split a classifier where its frozen part ends. The parts share its layers.

    At least one block must be below ``unfreeze_from`` (a block or ``head``).

    Returns:
        The frozen part, from pixels to activations ``(batch, height, width, channels)`` or, for ``head``, to features
        ``(batch, channels)``; and the trained part, from there to logits.
    """
    frozen = frozen_blocks(backbone, unfreeze_from)
    if unfreeze_from == "head":
        cut = model.get_layer("avg_pool")
    else:
        cut = [layer for layer in model.layers if layer.name.split("_")[0] in frozen][-1]
    return keras.Model(model.input, cut.output), keras.Model(cut.output, model.output)


def frozen_blocks(backbone: str, unfreeze_from: str) -> tuple[str, ...]:
    """Names of the blocks below the lowest trained one."""
    blocks = ARCHITECTURES[backbone].blocks
    if unfreeze_from == "head":
        return blocks
    return blocks[: 0 if unfreeze_from == "all" else blocks.index(unfreeze_from)]


def _count(weights: list[keras.Variable]) -> int:
    return sum(int(keras.ops.size(weight)) for weight in weights)
