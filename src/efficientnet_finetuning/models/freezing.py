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
        unfreeze_from: ``all``, the lowest block that is trained, or ``head``.
        freeze_batch_norm: keep the backbone's BatchNorm in inference mode, its gamma and beta too.

    Returns:
        Numbers of trainable and of frozen parameters.
    """
    frozen = frozen_blocks(backbone, unfreeze_from)
    for layer in model.layers:
        block = layer.name.split("_")[0]
        is_batch_norm = isinstance(layer, keras.layers.BatchNormalization) and block != "head"
        layer.trainable = block not in frozen and not (is_batch_norm and freeze_batch_norm)
    return _count(model.trainable_weights), _count(model.non_trainable_weights)


def split(model: keras.Model, backbone: str, unfreeze_from: str) -> tuple[keras.Model, keras.Model]:
    """Cut a classifier's network where its frozen part ends.

    Args:
        model: the network; both parts share its layers.
        backbone: name of its architecture.
        unfreeze_from: the lowest block that is trained, or ``head``; some block lies below it.

    Returns:
        The frozen part, from pixels to activations ``(batch, height, width, channels)``, or features
        ``(batch, channels)`` where only the head is trained; and the trained part, from there to logits.
    """
    frozen = frozen_blocks(backbone, unfreeze_from)
    if unfreeze_from == "head":
        cut = model.get_layer("avg_pool")
    else:
        cut = [layer for layer in model.layers if layer.name.split("_")[0] in frozen][-1]
    return keras.Model(model.input, cut.output), keras.Model(cut.output, model.output)


def frozen_blocks(backbone: str, unfreeze_from: str) -> tuple[str, ...]:
    """Names of the blocks below the one from which training starts."""
    blocks = ARCHITECTURES[backbone].blocks
    if unfreeze_from == "head":
        return blocks
    return blocks[: 0 if unfreeze_from == "all" else blocks.index(unfreeze_from)]


def _count(weights: list[keras.Variable]) -> int:
    return sum(int(keras.ops.size(weight)) for weight in weights)
