"""Training batches for Keras. Order and augmentation depend only on seed, epoch and step."""

from collections.abc import Mapping

import keras
import numpy as np

from efficientnet_finetuning.training.augmentation import Augmentation, seed_of
from efficientnet_finetuning.training.ranks import Ranks


class Batches(keras.utils.PyDataset):
    """Rows of arrays in batches. Each epoch contains every row once, also those of a smaller last batch.

    There is no random state, so a run that resumes at epoch ``n`` sees the same batches as an uninterrupted one.

    Attributes:
        epoch: the current epoch, set by the training.
        skipped: batches at the start of the epoch that an earlier process has already used.
    """

    def __init__(
        self,
        inputs: np.ndarray,
        labels: np.ndarray,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        augmentation: Augmentation | None = None,
    ) -> None:
        """Serve inputs with labels. Memory maps are read batch by batch.

        Args:
            inputs: images or activations ``(N, …)``, or several views ``(views × N, …)``, view by view; each epoch uses
                the next view. float16 is served as float32.
            labels: one-hot ``(N, num_classes)``.
            batch_size: rows in a batch.
            shuffle_seed: seed of the order and the augmentation; ``None`` keeps the stored order.
            augmentation: applied to every batch; needs a ``shuffle_seed``.
        """
        # With one worker, Keras uses a self-tuning tf.data pipeline, whose tuner sometimes delays the end of an epoch
        # by up to the length of the epoch. With two workers it does not.
        super().__init__(workers=2)
        self.inputs, self.labels, self.batch_size = inputs, labels, batch_size
        self.shuffle_seed, self.augmentation = shuffle_seed, augmentation
        self.epoch = 0
        self.skipped = 0
        self._last_order = -1, np.arange(0)
        self._ranks, self._pad = Ranks(), False
        self._class_weights: np.ndarray | None = None

    def share(self, ranks: Ranks, *, pad: bool, class_weights: Mapping[int, float] | None = None) -> None:
        """Serve only this rank's part of each batch, weighted so that the mean over all ranks is the loss of the batch.

        Args:
            ranks: the ranks that share each batch. Together they see the same images as a single process.
            pad: add blank images with weight 0, so that all parts have the same size. Otherwise, up to ``ranks.count -
                1`` images at the end of each batch are dropped.
            class_weights: weight of an image by label.
        """
        self._ranks, self._pad = ranks, pad
        self._class_weights = np.array([*class_weights.values()] if class_weights else np.ones(self.labels.shape[1]))

    @property
    def all_batches(self) -> int:
        """Batches of a complete epoch."""
        batches, rest = divmod(len(self.labels), self.batch_size)
        return batches + (rest > 0 if self._pad else rest >= self._ranks.count)

    @property
    def num_batches(self) -> int:
        return self.all_batches - self.skipped

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        index += self.skipped
        # Sorted rows are read faster from a memory map. The order within a batch does not matter.
        rows = np.sort(self._order()[index * self.batch_size : (index + 1) * self.batch_size])
        ranks = self._ranks
        padded = -(-self.batch_size // ranks.count) * ranks.count if self._pad else len(rows)
        part = ranks.part_of(padded)
        mine = rows[part]
        views = len(self.inputs) // len(self.labels)
        inputs = self.inputs[mine + self.epoch % views * len(self.labels)]
        if inputs.dtype == np.float16:
            inputs = inputs.astype(np.float32)
        if self.augmentation is not None and self.shuffle_seed is not None:
            inputs = self.augmentation(inputs, seed_of(self.shuffle_seed, self.epoch, index), part.start, len(rows))
        labels = np.asarray(self.labels[mine], np.float32)
        if self._class_weights is None:
            return inputs, labels
        # Keras averages over all rows, including the blank ones.
        weights = labels @ self._class_weights * (padded / len(rows))
        blank = part.stop - part.start - len(mine)
        return _extend(inputs, blank), _extend(labels, blank), _extend(np.asarray(weights, np.float32), blank)

    def _order(self) -> np.ndarray:
        if self.shuffle_seed is None:
            return np.arange(len(self.labels))
        epoch, order = self._last_order
        if epoch != self.epoch:  # shuffling a million rows takes as long as a step
            epoch = self.epoch
            order = np.random.default_rng((self.shuffle_seed, epoch)).permutation(len(self.labels))
            self._last_order = epoch, order
        return order


def _extend(rows: np.ndarray, blank: int) -> np.ndarray:
    return np.concatenate([rows, np.zeros((blank, *rows.shape[1:]), rows.dtype)]) if blank else rows
