"""Cached activations of the frozen blocks. They never change, so they are computed once, not in every epoch."""

import math
from pathlib import Path

import keras
import numpy as np

from efficientnet_finetuning.models.inference import Images, predict_batches
from efficientnet_finetuning.storage import check_free_space, find_damage, read_commit, written_as_a_whole
from efficientnet_finetuning.workers import MapBlocks

_BATCH_SIZE = 64


def cache_activations(frozen: keras.Model, images: Images, folder: Path, map_blocks: MapBlocks = map) -> np.ndarray:
    """Compute the activations of images and store them in ``folder``, or read them from an earlier call.

    ``frozen`` is a model from pixels to activations, ``images`` are uint8 ``(N, size, size, 3)``, ``map_blocks`` is as
    in :func:`~efficientnet_finetuning.models.inference.predict`. Returns float16 ``(N, …)``, as a memory map.

    Raises:
        InputError: the disk is full.
    """
    record = read_commit(folder)
    if record is None or find_damage(folder, record):
        _write(frozen, images, folder, map_blocks)
    activations: np.ndarray = np.load(folder / "activations.npy", mmap_mode="r", allow_pickle=False)
    return activations


def _write(frozen: keras.Model, images: Images, folder: Path, map_blocks: MapBlocks) -> None:
    shape = (len(images), *frozen.output_shape[1:])
    check_free_space(folder, 2 * math.prod(shape), "Storing the activations at the freeze point")
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float16)), "fortran_order": False, "shape": shape}
    # Not with a memory map: its pages count as memory of this process, and a full disk kills the process.
    with written_as_a_whole(folder, {}) as staged, (staged / "activations.npy").open("wb") as stream:
        np.lib.format.write_array_header_2_0(stream, header)
        what = "activations below the freeze point"
        for batch in predict_batches(frozen, images, _BATCH_SIZE, what, map_blocks=map_blocks):
            stream.write(batch.astype(np.float16).data)
