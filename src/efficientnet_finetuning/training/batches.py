"""Batches of stored rows for Keras: shuffled and augmented as a function of seed, epoch and step, on any backend."""

from collections.abc import Mapping

import keras
import numpy as np

from efficientnet_finetuning.training.augmentation import Augmentation, seed_of
from efficientnet_finetuning.training.ranks import Ranks


class Batches(keras.utils.PyDataset):
    """Rows of arrays in batches, every row once an epoch, the uneven last batch included.

    A run that goes on at epoch ``n`` sees what the undisturbed run would have seen: nothing is drawn from a state.

    Attributes:
        epoch: which one it is; whoever trains sets it.
        skipped: batches at the beginning of the epoch that are not served, since an earlier process had them.
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
        """Serve inputs with one-hot labels; memory maps are read by batch.

        Args:
            inputs: images or activations ``(N, …)``, or several views of them ``(views × N, …)``, view by view: each
                epoch then has its own, in turn. float16 is served as float32.
            labels: one-hot ``(N, num_classes)``.
            batch_size: rows in a batch.
            shuffle_seed: seed of the order and of the augmentation; ``None`` keeps the stored order.
            augmentation: applied to every batch; needs a ``shuffle_seed``.
        """
        # Keras serves a single worker's batches through a tf.data pipeline that tunes itself, and the end of an epoch
        # now and then misses the tuner, which sleeps on: for up to the length of the epoch. With several it does not.
        super().__init__(workers=2)
        self.inputs, self.labels, self.batch_size = inputs, labels, batch_size
        self.shuffle_seed, self.augmentation = shuffle_seed, augmentation
        self.epoch = 0
        self.skipped = 0
        self._last_order = -1, np.arange(0)
        self._ranks, self._pad = Ranks(), False
        self._class_weights: np.ndarray | None = None

    def share(self, ranks: Ranks, *, pad: bool, class_weights: Mapping[int, float] | None = None) -> None:
        """Serve this rank's part of each batch, with weights that make the mean loss over all ranks the batch's.

        Args:
            ranks: that share each batch. They see the same images, changed in the same way, as one process would.
            pad: add blank images with weight 0, so that all batches have the same number of rows. Otherwise up to
                ``ranks.count - 1`` images of each batch are left out, of those that come last.
            class_weights: how much an image of each class counts, by label.
        """
        self._ranks, self._pad = ranks, pad
        self._class_weights = np.array([*class_weights.values()] if class_weights else np.ones(self.labels.shape[1]))

    @property
    def all_batches(self) -> int:
        """Batches of a whole epoch."""
        batches, rest = divmod(len(self.labels), self.batch_size)
        return batches + (rest > 0 if self._pad else rest >= self._ranks.count)

    @property
    def num_batches(self) -> int:
        return self.all_batches - self.skipped

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        index += self.skipped
        # Sorted rows are read from a memory map in one sweep; their order within a batch changes nothing.
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
        # Keras takes the mean over all rows, the blank ones too.
        weights = labels @ self._class_weights * (padded / len(rows))
        blank = part.stop - part.start - len(mine)
        return _extend(inputs, blank), _extend(labels, blank), _extend(np.asarray(weights, np.float32), blank)

    def _order(self) -> np.ndarray:
        if self.shuffle_seed is None:
            return np.arange(len(self.labels))
        epoch, order = self._last_order
        if epoch != self.epoch:  # a million rows take as long as a step
            epoch = self.epoch
            order = np.random.default_rng((self.shuffle_seed, epoch)).permutation(len(self.labels))
            self._last_order = epoch, order
        return order


def _extend(rows: np.ndarray, blank: int) -> np.ndarray:
    return np.concatenate([rows, np.zeros((blank, *rows.shape[1:]), rows.dtype)]) if blank else rows
