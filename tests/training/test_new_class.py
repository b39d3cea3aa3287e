import numpy as np
import pytest

from efficientnet_finetuning.training.new_class import fit_new_class

GENERATOR = np.random.default_rng(0)
CHANNELS = 12


def features(centre: int, rows: int) -> np.ndarray:
    """Around an axis: two classes of neighbouring axes overlap."""
    noise = GENERATOR.normal(size=(rows, CHANNELS))
    return (noise + 2 * np.eye(CHANNELS)[centre]).astype(np.float32)


KERNEL = np.eye(CHANNELS, 3, dtype=np.float32)
LABELS = np.repeat([0, 1, 2], 100)
KNOWN = np.concatenate([features(label, 100) for label in range(3)])
UNSEEN = np.concatenate([features(label, 400) for label in range(3)])
HELD_OUT = np.where(np.arange(300)[:, None] % 2, KNOWN @ KERNEL, np.nan)


def added(new: np.ndarray, max_loss: float):
    return fit_new_class((KNOWN, KNOWN @ KERNEL), (new, new @ KERNEL), LABELS, HELD_OUT, max_loss)


def lost(column) -> float:
    """Share of unseen images of the known classes that the new class takes from the right one."""
    logits = UNSEEN @ KERNEL
    is_right = logits.argmax(1) == np.repeat([0, 1, 2], 400)
    return float((is_right & (UNSEEN @ column.kernel + column.bias > logits.max(1))).mean())


@pytest.mark.parametrize("count", [10, 100])
def test_a_new_class_is_recognized_and_the_others_lose_no_more_than_is_allowed(count):
    column = added(features(5, count), 0.01)
    unseen = features(5, 400)
    recognized = (unseen @ column.kernel + column.bias > (unseen @ KERNEL).max(1)).mean()
    assert lost(column) < 0.02
    assert recognized > 0.3
    assert column.is_recognized.mean() == pytest.approx(recognized, abs=0.35 if count == 10 else 0.12)


def test_the_more_may_be_lost_the_more_is_recognized():
    new = features(0, 40)  # as one of the known classes
    careful, careless = added(new, 0.003), added(new, 0.2)
    assert lost(careful) < 0.03 < lost(careless)
    assert careful.is_recognized.sum() < careless.is_recognized.sum()


def test_two_images_are_enough_and_nothing_needs_to_be_held_out():
    column = fit_new_class(
        (KNOWN, KNOWN @ KERNEL), (KNOWN[:2], KNOWN[:2] @ KERNEL), LABELS, np.full((300, 3), np.nan), 0.003
    )
    assert np.isfinite(column.kernel).all()
    assert column.is_recognized.shape == (2,)


def test_images_of_the_new_class_weigh_as_much_as_those_of_an_average_known_class():
    new = features(5, 10)
    column = added(new, 0.99)  # so that the bias stays as it was fitted
    pixels, is_new = np.concatenate([KNOWN, new]), np.repeat([0.0, 1.0], [300, 10])
    rest = np.log(np.exp(pixels @ KERNEL).sum(1))
    probabilities = 1 / (1 + np.exp(rest - pixels @ column.kernel - column.bias))
    pulls = np.where(is_new, 100 / 10, 1.0) * (probabilities - is_new)  # 100 images of each known class
    assert abs(pulls.sum()) < 0.01 * np.abs(pulls).sum(), "the bias is where they balance"


def test_a_held_out_image_is_judged_by_all_others():
    of_two_kinds = 6 * np.eye(CHANNELS, dtype=np.float32)[[5] * 5 + [6] * 5]
    assert added(of_two_kinds, 0.99).is_recognized.all(), "each fold learns from both kinds"
