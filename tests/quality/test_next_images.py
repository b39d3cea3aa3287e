import numpy as np

from efficientnet_finetuning.quality.next_images import margins, rank_images

GENERATOR = np.random.default_rng(0)


def test_unsure_images_come_before_sure_ones():
    sure = GENERATOR.uniform(0.5, 1, 12)
    order = rank_images(np.stack([sure, 1 - sure], axis=1), GENERATOR.normal(size=(12, 4)).astype(np.float32), 0)
    assert list(order) == list(np.argsort(sure)), "so few images are no clusters"


def test_the_first_images_are_not_copies_of_one_another():
    """Eight kinds of images, ten nearly the same of each, the first kind the least sure."""
    kinds = np.repeat(np.arange(8), 10)
    features = 5 * np.eye(8, 16)[kinds] + 0.01 * GENERATOR.normal(size=(80, 16))
    sure = 0.5 + kinds / 20 + 0.001 * GENERATOR.random(80)
    order = rank_images(np.stack([sure, 1 - sure], axis=1), features.astype(np.float32), 0)
    assert sorted(order) == list(range(80))
    assert len(set(kinds[order[:8]])) >= 6
    assert (np.diff(sure[order[:8]]) > 0).all(), "in a turn the least sure comes first"


def test_sixteen_images_are_two_clusters():
    kinds = np.repeat([0, 1], 8)
    sure = 0.5 + kinds / 4 + np.arange(16) / 100
    features = (5 * np.eye(2, 4)[kinds] + 0.01 * GENERATOR.normal(size=(16, 4))).astype(np.float32)
    order = rank_images(np.stack([sure, 1 - sure], axis=1), features, 0)
    assert list(order[:4]) == [0, 8, 1, 9]


def test_the_margin_is_that_of_the_two_likeliest_classes():
    assert margins(np.array([[0.1, 0.2, 0.7], [0.4, 0.4, 0.2], [1, 0, 0]])).tolist() == [0.7 - 0.2, 0, 1]


def test_a_rare_class_of_which_the_classifier_is_sure_has_its_turn():
    rare, generator = np.arange(400) % 20 == 0, np.random.default_rng(0)
    features = generator.normal(size=(400, 16))
    features[:, 0] = 30 * rare  # nothing else looks like it
    sure = np.where(rare, 0.99, generator.uniform(0.5, 0.9, 400))
    order = rank_images(np.stack([sure, 1 - sure], axis=1), features.astype(np.float32), 0)
    assert rare[order[:50]].any()


def test_one_image_and_the_same_seed():
    assert list(rank_images(np.array([[0.5, 0.5]]), np.ones((1, 3), np.float32), 0)) == [0]
    probabilities, features = GENERATOR.dirichlet(np.ones(3), 200), GENERATOR.normal(size=(200, 99)).astype(np.float32)
    assert np.array_equal(rank_images(probabilities, features, 1), rank_images(probabilities, features, 1))
