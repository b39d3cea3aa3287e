"""Batches of stored rows for Keras: shuffled and augmented as a function of seed, epoch and step, on any backend."""

import keras
import numpy as np

from efficientnet_finetuning.training.augmentation import Augmentation, seed_of


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

    @property
    def all_batches(self) -> int:
        """Batches of a whole epoch."""
        return -(-len(self.labels) // self.batch_size)

    @property
    def num_batches(self) -> int:
        return self.all_batches - self.skipped

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        index += self.skipped
        # Sorted rows are read from a memory map in one sweep; their order within a batch changes nothing.
        rows = np.sort(self._order()[index * self.batch_size : (index + 1) * self.batch_size])
        views = len(self.inputs) // len(self.labels)
        inputs = self.inputs[rows + self.epoch % views * len(self.labels)]
        if inputs.dtype == np.float16:
            inputs = inputs.astype(np.float32)
        if self.augmentation is not None and self.shuffle_seed is not None:
            inputs = self.augmentation(inputs, seed_of(self.shuffle_seed, self.epoch, index))
        return inputs, np.asarray(self.labels[rows], np.float32)

    def _order(self) -> np.ndarray:
        if self.shuffle_seed is None:
            return np.arange(len(self.labels))
        return np.random.default_rng((self.shuffle_seed, self.epoch)).permutation(len(self.labels))
