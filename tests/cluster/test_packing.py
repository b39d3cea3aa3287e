"""What other processes are given."""

import keras
import numpy as np
import pytest

from efficientnet_finetuning.cluster.packing import pack, unpack

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), np.uint8)
VIEWS = {
    "whole": lambda images: images,
    "rows": lambda images: images[3:7],
    "every second row": lambda images: images[1::2],
    "mirrored": lambda images: images[:, :, ::-1],
    "mirrored rows of a part": lambda images: images[2:9][1:4, :, ::-1],
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    file = tmp_path_factory.mktemp("images") / "images.npy"
    np.save(file, IMAGES)
    return np.load(file, mmap_mode="r")


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_what_lies_in_a_file_goes_by_its_name(stored, view):
    packed = pack(view(stored))
    assert len(packed) < 500
    np.testing.assert_array_equal(unpack(packed), view(IMAGES))


def test_an_array_in_memory_goes_as_it_is(stored):
    chosen = stored[np.array([4, 1])]
    np.testing.assert_array_equal(unpack(pack(chosen)), IMAGES[[4, 1]])


def test_a_network_arrives_with_its_weights_its_frozen_layers_and_its_seeds():
    network = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3), keras.layers.Dropout(0.5)])
    network.layers[0].trainable = False
    network.compile("adam", "mse")
    received = unpack(pack(network))
    assert not received.layers[0].trainable
    assert not received.compiled
    for ours, theirs in zip(received.variables, network.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    ones = np.ones((5, 4), np.float32)
    np.testing.assert_array_equal(received(ones, training=True), network(ones, training=True))
