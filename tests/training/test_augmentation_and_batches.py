import keras
import numpy as np
import pytest

from efficientnet_finetuning.parameters import AugmentationParameters
from efficientnet_finetuning.training.augmentation import Augmentation, Views
from efficientnet_finetuning.training.batches import Batches

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 32, 40, 3), dtype=np.uint8)
NOTHING = AugmentationParameters(flip="none")


@pytest.mark.parametrize(
    "change",
    [
        {"flip": "horizontal"},
        {"translation": 0.2},
        {"rotation": 0.1},
        {"contrast": 0.5},
        {"color_jitter": 0.3},
        {"erasing": 0.9},
    ],
    ids=str,
)
def test_each_change_alone_depends_on_the_seed_and_keeps_shape_and_range(change):
    augmentation = Augmentation(AugmentationParameters(**{"flip": "none"} | change))
    first, again, other = augmentation(IMAGES, 1), augmentation(IMAGES, 1), augmentation(IMAGES, 2)
    assert (first.shape, first.dtype) == (IMAGES.shape, np.uint8)
    assert (first == again).all()
    assert (first != other).any()
    assert (first != IMAGES).any()


@pytest.mark.parametrize(
    "change",
    [
        {"flip": "horizontal_and_vertical"},
        {"rotation": 0.1},
        {"contrast": 0.5},
        {"color_jitter": 0.3},
        {"erasing": 0.9},
    ],
    ids=str,
)
def test_every_image_of_a_batch_is_changed_in_its_own_way(change):
    augmentation = Augmentation(AugmentationParameters(**{"flip": "none"} | change))
    changed = augmentation(np.repeat(IMAGES[:1], 16, axis=0), 2**32 - 1)
    assert len({image.tobytes() for image in changed}) > 2


def test_nothing_asked_for_changes_nothing():
    assert (Augmentation(NOTHING)(IMAGES, 1) == IMAGES).all()


def test_a_flip_is_a_mirror_image():
    flipped = Augmentation(AugmentationParameters(flip="horizontal"))(IMAGES, 3)
    mirrored = [(new == old[:, ::-1]).all() for new, old in zip(flipped, IMAGES, strict=True)]
    kept = [(new == old).all() for new, old in zip(flipped, IMAGES, strict=True)]
    assert all(a or b for a, b in zip(mirrored, kept, strict=True))
    assert any(mirrored)


def test_height_and_width_shift_independently_by_every_number_of_pixels_up_to_the_largest():
    # A ramp in each direction: what the pixel in the middle shows tells the shift.
    ramp = np.zeros((300, 64, 48, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(64)[:, None], np.arange(48)
    shifted = Augmentation(AugmentationParameters(flip="none", translation=0.1))(ramp, 0).astype(int)
    down, right = (shifted[:, 32, 24, :2] - (32, 24)).T
    assert set(down) == set(range(-6, 7))
    assert set(right) == set(range(-5, 6))
    assert abs(np.corrcoef(down, right)[0, 1]) < 0.2
    by_hand = np.pad(ramp[0], ((6, 6), (5, 5), (0, 0)), "symmetric")[6 + down[0] :, 5 + right[0] :][:64, :48]
    np.testing.assert_array_equal(shifted[0], by_hand)


def test_erasing_paints_one_square_in_one_colour_into_its_share_of_the_images():
    images = np.random.default_rng(1).integers(0, 256, (400, 40, 60, 3), dtype=np.uint8)
    before = images.copy()
    erased = Augmentation(AugmentationParameters(flip="none", erasing=0.25))(images, 0)
    assert (images == before).all(), "what is stored stays"
    changed = (erased != images).any(axis=3)
    assert 70 <= changed.any(axis=(1, 2)).sum() <= 130
    for image, pixels in zip(erased, changed, strict=True):
        rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
        if len(rows):
            inside = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert (inside == inside[0, 0]).all()
            assert 8 - 1 <= min(inside.shape[:2]) <= max(inside.shape[:2]) <= 20


def test_colours_change_by_brightness_contrast_and_saturation_one_after_the_other():
    generator = np.random.default_rng(2)
    images = generator.integers(60, 180, (8, 6, 6, 3), dtype=np.uint8)
    jittered = Augmentation(AugmentationParameters(flip="none", color_jitter=0.3))(images, 4)
    factors = np.random.default_rng(4).uniform(0.7, 1.3, (3, 8))
    for image, new, brightness, contrast, saturation in zip(images, jittered, *factors, strict=True):
        expected = brightness * image.astype(float)
        expected = expected.mean((0, 1)) + contrast * (expected - expected.mean((0, 1)))
        grey = expected.mean(2, keepdims=True)
        expected = np.clip(grey + saturation * (expected - grey), 0, 255)
        assert np.abs(new - expected).max() <= 0.51


def rows_of(batches: Batches) -> list[np.ndarray]:
    return [batches[index][0].ravel() for index in range(batches.num_batches)]


@pytest.fixture
def stored(tmp_path) -> tuple[np.ndarray, np.ndarray]:
    """Eleven numbered rows in a memory map, with one-hot labels."""
    np.save(tmp_path / "rows.npy", np.arange(11)[:, None])
    return np.load(tmp_path / "rows.npy", mmap_mode="r"), np.eye(3, dtype=np.uint8)[np.arange(11) % 3]


def test_an_epoch_has_every_row_exactly_once(stored):
    batches = Batches(*stored, 4, shuffle_seed=0)
    assert [len(rows) for rows in rows_of(batches)] == [4, 4, 3]
    assert sorted(np.concatenate(rows_of(batches))) == list(range(11))


def test_keras_is_served_every_row_once_an_epoch_in_changing_company(stored):
    served = []

    class Recorder(Batches):
        def __getitem__(self, index):
            inputs, labels = super().__getitem__(index)
            served.append((self.epoch, frozenset(inputs.ravel().tolist())))
            return inputs.astype("float32"), labels

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    recorder = Recorder(*stored, 4, shuffle_seed=0)
    follow = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: setattr(recorder, "epoch", epoch))
    model.fit(recorder, epochs=3, verbose=0, shuffle=False, callbacks=[follow])
    by_epoch = {}
    for epoch, rows in served[2:]:  # Keras looks at two batches first, to learn their shapes
        by_epoch.setdefault(epoch, []).append(rows)
    assert [sorted(row for rows in epoch for row in rows) for epoch in by_epoch.values()] == [list(range(11))] * 3
    assert len({frozenset(epoch) for epoch in by_epoch.values()}) == 3


def test_batches_that_are_skipped_are_the_first_ones_of_the_epoch(stored):
    whole, rest = (Batches(*stored, 4, shuffle_seed=0, augmentation=Augmentation(NOTHING)) for _ in range(2))
    rest.skipped = 2
    assert (whole.num_batches, rest.num_batches) == (3, 1)
    assert (rest[0][0] == whole[2][0]).all()


def test_rows_keep_their_labels(stored):
    batches = Batches(*stored, 4, shuffle_seed=0)
    for index in range(3):
        rows, labels = batches[index]
        assert labels.argmax(1).tolist() == (rows.ravel() % 3).tolist()
        assert labels.dtype == np.float32


def test_epochs_differ_and_a_run_that_goes_on_sees_what_it_would_have_seen(stored):
    undisturbed = Batches(*stored, 4, shuffle_seed=7)
    first = rows_of(undisturbed)
    undisturbed.epoch += 1
    second = rows_of(undisturbed)
    assert any((a != b).any() for a, b in zip(first, second, strict=True))
    resumed = Batches(*stored, 4, shuffle_seed=7)
    resumed.epoch = 1
    assert all((a == b).all() for a, b in zip(second, rows_of(resumed), strict=True))


def test_without_a_seed_the_stored_order_stays(stored):
    assert np.concatenate(rows_of(Batches(*stored, 4))).tolist() == list(range(11))


def test_images_are_augmented_anew_in_every_epoch():
    labels = np.eye(2)[np.arange(6) % 2]
    augmentation = Augmentation(AugmentationParameters(flip="none", translation=0.3))
    batches = Batches(IMAGES, labels, 6, shuffle_seed=1, augmentation=augmentation)
    first = batches[0][0]
    assert (first == batches[0][0]).all()
    batches.epoch += 1
    assert (first != batches[0][0]).any()


def test_views_are_the_images_themselves_and_then_augmented_ones():
    augmentation = Augmentation(AugmentationParameters(translation=0.2))
    views = Views(IMAGES, 3, augmentation, seed=1)
    assert views.shape == (18, *IMAGES.shape[1:])
    np.testing.assert_array_equal(views[:6], IMAGES)
    second, third = views[6:12], views[12:18]
    assert (second != IMAGES).any()
    assert (second != third).any()
    np.testing.assert_array_equal(views[6:12], second)
    assert views[4:14].shape[0] == 10, "a slice may reach over views"
    np.testing.assert_array_equal(views[4:14][:2], IMAGES[4:])
    assert views[16:99].shape[0] == 2


def test_each_epoch_takes_the_next_view_and_half_precision_is_served_as_single():
    labels = np.eye(2, dtype=np.uint8)[np.arange(4) % 2]
    inputs = np.arange(12, dtype=np.float16)[:, None]  # three views of four rows
    batches = Batches(inputs, labels, 2, shuffle_seed=0)
    seen = []
    for batches.epoch in range(4):
        served = [batches[index] for index in range(batches.num_batches)]
        assert all(values.dtype == np.float32 for values, _ in served)
        assert all((values[:, 0] % 2 == rows.argmax(1)).all() for values, rows in served), "labels follow their rows"
        seen.append(sorted(float(value) for values, _ in served for value in values[:, 0]))
    assert seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [0, 1, 2, 3]]


def test_no_pipeline_that_tunes_itself_stands_between_batches_and_training(stored):
    # With one worker it does, and now and then the end of an epoch waits for its tuner to wake up.
    assert Batches(*stored, 4, shuffle_seed=0).workers > 1
