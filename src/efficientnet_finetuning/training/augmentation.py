"""Random changes of training images, as a function of the seed alone."""

import keras
import numpy as np

from efficientnet_finetuning.parameters import AugmentationParameters


class Augmentation:
    """Keras' own augmentation layers, driven without state: the same seed gives the same images, always.

    Called by themselves these layers draw from a counter that a resumed run would have to restore.
    """

    def __init__(self, parameters: AugmentationParameters) -> None:
        self._layers: list[keras.Layer] = []
        # One layer a direction: Keras draws once for both, and would only ever turn an image upside down.
        directions = {"none": (), "horizontal": ("horizontal",), "horizontal_and_vertical": ("horizontal", "vertical")}
        self._layers.extend(keras.layers.RandomFlip(direction) for direction in directions[parameters.flip])
        if parameters.translation:
            self._layers.append(keras.layers.RandomTranslation(parameters.translation, parameters.translation))
        if parameters.rotation:
            self._layers.append(keras.layers.RandomRotation(parameters.rotation))
        if parameters.contrast:
            self._layers.append(keras.layers.RandomContrast(parameters.contrast))

    def __call__(self, images: np.ndarray, seed: int) -> np.ndarray:
        """Change every image of a batch in its own way.

        Args:
            images: ``(batch, height, width, 3)`` pixels in 0–255, uint8 or float.
            seed: any integer in 0 to 2**32 - 1.

        Returns:
            uint8 of the same shape.
        """
        if not self._layers:
            return images
        # A plain integer would give every draw of a layer the same numbers, height and width alike.
        generator = keras.random.SeedGenerator(seed)
        with keras.device("cpu"):
            changed = keras.ops.cast(images, "float32")
            for layer in self._layers:
                transformation = layer.get_random_transformation(changed, training=True, seed=generator)
                changed = layer.transform_images(changed, transformation, training=True)
            changed = keras.ops.cast(keras.ops.round(keras.ops.clip(changed, 0, 255)), "uint8")
            return keras.ops.convert_to_numpy(changed)
