"""What training does to its images."""

import numpy as np

from pipelines.augmentation import augmenter

IMAGES = np.random.default_rng(0).uniform(0, 255, (64, 8, 8, 3)).astype("float32")


def test_some_images_are_mirrored_each_on_its_own():
    out = np.asarray(augmenter(8)(IMAGES, training=True))
    kept = (out == IMAGES).all(axis=(1, 2, 3))
    mirrored = (out == IMAGES[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (kept ^ mirrored).all()
    assert 16 <= mirrored.sum() <= 48  # 32 expected of 64; four standard deviations are 16


def test_one_seed_gives_one_sequence():
    def sequence(seed):
        layer = augmenter(8, seed=seed)
        return np.stack([layer(IMAGES, training=True) for _ in range(2)])

    np.testing.assert_array_equal(sequence(1), sequence(1))
    assert not np.array_equal(sequence(1), sequence(2))
    assert not np.array_equal(*sequence(1)), "the second batch must have its own draws"


def test_nothing_happens_outside_training():
    np.testing.assert_array_equal(augmenter(8)(IMAGES, training=False), IMAGES)
