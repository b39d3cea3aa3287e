"""What is trained: whole blocks from one upward, with BatchNorm at its statistics unless told otherwise."""

import keras
import numpy as np

from efficientnet_finetuning.models.architectures import ARCHITECTURES
from efficientnet_finetuning.models.heads import averaged_maps


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
        The frozen part, from pixels to what crosses the cut, in one row ``(batch, numbers)``: the activations at the
        cut and, for the head, the pooled stages below it. And the trained part, from there to logits.
    """
    frozen = frozen_blocks(backbone, unfreeze_from)
    crossing = [pool.output for layer, pool in averaged_maps(model) if layer.name.split("_")[0] in frozen]
    if unfreeze_from != "head":
        cut = [layer for layer in model.layers if layer.name.split("_")[0] in frozen][-1]
        crossing.insert(0, cut.output)
    rows = [keras.layers.Flatten()(tensor) for tensor in crossing]
    row = keras.layers.Concatenate()(rows) if len(rows) > 1 else rows[0]
    inputs = keras.Input(row.shape[1:])
    ends = np.cumsum([tensor.shape[1] for tensor in rows])
    parts = [
        keras.layers.Reshape(tensor.shape[1:])(inputs[:, end - flat.shape[1] : end])
        for tensor, flat, end in zip(crossing, rows, ends.tolist(), strict=True)
    ]
    above = keras.Model(crossing, model.output)
    # Not above(parts), which would hide its layers in one.
    return keras.Model(model.input, row), keras.Model(inputs, above.call(parts))


def frozen_blocks(backbone: str, unfreeze_from: str) -> tuple[str, ...]:
    """Names of the blocks below the one from which training starts."""
    blocks = ARCHITECTURES[backbone].blocks
    if unfreeze_from == "head":
        return blocks
    return blocks[: 0 if unfreeze_from == "all" else blocks.index(unfreeze_from)]


def _count(weights: list[keras.Variable]) -> int:
    return sum(int(keras.ops.size(weight)) for weight in weights)
