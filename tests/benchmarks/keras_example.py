"""The Keras example "Image classification via fine-tuning with EfficientNet", as one would type it from the page.

Author: Yixing Fu (2020), https://keras.io/examples/vision/image_classification_efficientnet_fine_tuning/. Its data is
given as arrays here, its backbone is whichever is compared; all else is its recipe.
"""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

BATCH_SIZE = 64


def run_example(
    backbone: keras.Model,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    after_epoch: Callable[[str, keras.Model], None],
) -> None:
    """Train 25 epochs frozen, then 4 with the last 20 layers, and call ``after_epoch`` after each.

    Args:
        backbone: pretrained, from pixels in 0–255 to a feature map.
        train: uint8 images and one-hot labels, as they are stored.
        test: likewise; the example looks at it after every epoch.
        after_epoch: is told which stage it is and gets the model.
    """
    layers = [
        keras.layers.RandomRotation(factor=0.15),
        keras.layers.RandomTranslation(height_factor=0.1, width_factor=0.1),
        keras.layers.RandomFlip(),
        keras.layers.RandomContrast(factor=0.1),
    ]

    def augment(images, labels):
        for layer in layers:
            images = layer(images, training=True)
        return images, labels

    num_classes = train[1].shape[1]
    ds_train = tf.data.Dataset.from_tensor_slices((train[0], train[1].astype(np.float32)))
    ds_train = ds_train.batch(BATCH_SIZE, drop_remainder=True).map(augment, num_parallel_calls=tf.data.AUTOTUNE)
    ds_train = ds_train.prefetch(tf.data.AUTOTUNE)
    ds_test = tf.data.Dataset.from_tensor_slices((test[0], test[1].astype(np.float32)))
    ds_test = ds_test.batch(BATCH_SIZE, drop_remainder=True)

    backbone.trainable = False
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(backbone.output)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(0.2, name="top_dropout")(x)
    outputs = keras.layers.Dense(num_classes, activation="softmax", name="pred")(x)
    model = keras.Model(backbone.input, outputs, name="EfficientNet")
    optimizer = keras.optimizers.Adam(learning_rate=1e-2)
    model.compile(optimizer=optimizer, loss="categorical_crossentropy", metrics=["accuracy"])
    model.fit(ds_train, epochs=25, validation_data=ds_test, callbacks=[_After("frozen", after_epoch)], verbose=0)

    for layer in model.layers[-20:]:
        if not isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = True
    optimizer = keras.optimizers.Adam(learning_rate=1e-5)
    model.compile(optimizer=optimizer, loss="categorical_crossentropy", metrics=["accuracy"])
    model.fit(ds_train, epochs=4, validation_data=ds_test, callbacks=[_After("unfrozen", after_epoch)], verbose=0)


class _After(keras.callbacks.Callback):
    def __init__(self, stage: str, after_epoch: Callable[[str, keras.Model], None]) -> None:
        super().__init__()
        self._stage, self._after_epoch = stage, after_epoch

    def on_epoch_end(self, epoch, logs=None):
        self._after_epoch(f"{self._stage} {epoch + 1}", self.model)
