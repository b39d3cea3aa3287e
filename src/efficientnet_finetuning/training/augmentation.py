"""Random changes of training images that depend only on the seed."""

import math

import keras
import numpy as np

from efficientnet_finetuning.parameters import AugmentationParameters

_ERASED = (0.2, 0.5)


class Augmentation:
    """Random changes of images, by NumPy where no interpolation is needed, else by Keras layers.

    The same seed gives the same images. Keras' RandomFlip, RandomTranslation and RandomErasing compute in float32 and
    are several times slower; its RandomColorJitter shifts dark and light images equally. Used directly, Keras layers
    draw from a counter that a resumed run would have to restore.
    """

    def __init__(self, parameters: AugmentationParameters) -> None:
        mirrored = {"none": (), "horizontal": (2,), "horizontal_and_vertical": (2, 1)}
        self._mirrored_axes: tuple[int, ...] = mirrored[parameters.flip]
        self._translation = parameters.translation
        self._color_jitter, self._erasing = parameters.color_jitter, parameters.erasing
        self._layers: list[keras.Layer] = []
        if parameters.rotation:
            self._layers.append(keras.layers.RandomRotation(parameters.rotation))
        if parameters.contrast:
            self._layers.append(keras.layers.RandomContrast(parameters.contrast))

    def __call__(self, images: np.ndarray, seed: int, first: int = 0, batch: int | None = None) -> np.ndarray:
        """Change every image of a batch, or of a part of it, independently.

        Images are uint8 ``(rows, height, width, 3)``; the seed is 0 to 2**32 - 1. For a part, ``first`` is its position
        in the batch, and ``batch`` the size of the batch.
        """
        batch = len(images) if batch is None else batch
        part = slice(first, first + len(images))
        generator = np.random.default_rng(seed)
        for axis in self._mirrored_axes:
            chosen = generator.random(batch)[part] < 0.5
            images = images.copy()
            images[chosen] = np.flip(images[chosen], axis)
        if self._translation:
            images = _translate(images, self._translation, generator, part, batch)
        if self._layers:
            images = self._by_layers(images, seed, part, batch)
        if self._color_jitter:
            images = _jitter_colors(images, self._color_jitter, generator, part, batch)
        return _erase(images, self._erasing, generator, part, batch) if self._erasing else images

    def _by_layers(self, images: np.ndarray, seed: int, part: slice, batch: int) -> np.ndarray:
        # With an integer, every draw of a layer would give the same numbers.
        generator = keras.random.SeedGenerator(seed)
        whole = np.zeros((batch, *images.shape[1:]), np.float32)  # Keras draws for all at once
        whole[part] = images
        with keras.device("cpu"):
            changed = keras.ops.convert_to_tensor(whole)
            for layer in self._layers:
                transformation = layer.get_random_transformation(changed, training=True, seed=generator)
                changed = layer.transform_images(changed, transformation, training=True)
            changed = keras.ops.cast(keras.ops.round(keras.ops.clip(changed, 0, 255)), "uint8")
            return keras.ops.convert_to_numpy(changed)[part]


class Views:
    """Several views of uint8 images ``(N, height, width, 3)``: the originals, then augmented ones, made when read."""

    def __init__(self, images: np.ndarray, views: int, augmentation: Augmentation, seed: int) -> None:
        self._images, self._augmentation, self._seed = images, augmentation, seed
        self.shape, self.dtype = (views * len(images), *images.shape[1:]), images.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """The images of a range of rows; always the same for the same range."""
        parts = []
        row, stop, _ = rows.indices(len(self))
        while row < stop:
            view, first = divmod(row, len(self._images))
            part = self._images[first : first + stop - row]
            parts.append(part if view == 0 else self._augmentation(part, seed_of(self._seed, view, first)))
            row += len(part)
        return np.concatenate(parts)


def seed_of(*parts: int) -> int:
    """A seed, 0 to 2**32 - 1, for a combination of numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _translate(
    images: np.ndarray, translation: float, generator: np.random.Generator, part: slice, batch: int
) -> np.ndarray:
    """Shift each image by up to ``translation`` of its size, in whole pixels. The edges are mirrored."""
    height, width = images.shape[1:3]
    down, right = round(translation * height), round(translation * width)
    padded = np.pad(images, ((0, 0), (down, down), (right, right), (0, 0)), "symmetric")
    corners = generator.integers(0, (2 * down + 1, 2 * right + 1), (batch, 2))[part]
    windows = [image[y : y + height, x : x + width] for image, (y, x) in zip(padded, corners, strict=True)]
    return np.stack(windows) if windows else images


def _jitter_colors(
    images: np.ndarray, amount: float, generator: np.random.Generator, part: slice, batch: int
) -> np.ndarray:
    """Multiply brightness, contrast and saturation of each image by random factors in 1 ± ``amount``."""
    brightness, contrast, saturation = generator.uniform(1 - amount, 1 + amount, (3, batch, 1, 1))[:, part]
    # Together, the three are one linear map of the colours.
    colors = saturation * np.eye(3) + (1 - saturation) / 3
    means = images.mean(axis=(1, 2), dtype=np.float32)[:, None] @ colors
    offsets = brightness * (1 - contrast) * means + 0.5  # to the nearest integer
    pixels = images.reshape(len(images), math.prod(images.shape[1:3]), 3).astype(np.float32)
    changed = pixels @ (brightness * contrast * colors).astype(np.float32)
    changed += offsets.astype(np.float32)
    return np.clip(changed, 0, 255, out=changed).astype(np.uint8).reshape(images.shape)


def _erase(images: np.ndarray, share: float, generator: np.random.Generator, part: slice, batch: int) -> np.ndarray:
    """Paint a square of one colour, a fifth to a half of the image wide, into a share of the images."""
    images = images.copy()
    height, width = images.shape[1:3]
    for row in np.flatnonzero(generator.random(batch) < share) - part.start:
        side = int(min(height, width) * generator.uniform(*_ERASED))
        top, left = generator.integers(0, (height - side + 1, width - side + 1))
        color = generator.integers(0, 256, 3)
        if 0 <= row < len(images):
            images[row, top : top + side, left : left + side] = color
    return images
