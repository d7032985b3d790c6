"""What training does to its images."""

import numpy as np

from pipelines.augmentation import augmenter

IMAGES = np.random.default_rng(0).uniform(0, 255, (64, 8, 8, 3)).astype("float32")


def test_some_images_are_mirrored_each_on_its_own():
    out = np.asarray(augmenter(8, 8)(IMAGES, training=True))
    kept = (out == IMAGES).all(axis=(1, 2, 3))
    mirrored = (out == IMAGES[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (kept ^ mirrored).all()
    assert 16 <= mirrored.sum() <= 48  # 32 expected of 64; four standard deviations are 16


def test_one_seed_gives_one_sequence():
    def sequence(seed):
        layer = augmenter(8, 5, seed=seed)
        return np.stack([layer(IMAGES, training=True) for _ in range(2)])

    np.testing.assert_array_equal(sequence(1), sequence(1))
    assert not np.array_equal(sequence(1), sequence(2))
    assert not np.array_equal(*sequence(1)), "the second batch must have its own draws"


def test_each_image_is_cut_elsewhere_and_its_pixels_kept():
    out = np.asarray(augmenter(8, 5, flip=False)(IMAGES, training=True))
    assert out.shape == (64, 5, 5, 3)
    places = [(row, column) for row in range(4) for column in range(4)]
    drawn = [
        [place for place in places if (cut == image[place[0] :, place[1] :][:5, :5]).all()]
        for image, cut in zip(IMAGES, out, strict=True)
    ]
    assert all(len(found) == 1 for found in drawn)
    rows, columns = np.transpose([found[0] for found in drawn])
    assert set(rows) == set(columns) == {0, 1, 2, 3}, "every place can be drawn, the last one too"
    assert (rows != columns).any()


def test_the_whole_image_is_kept_when_nothing_is_to_be_cut_or_mirrored():
    np.testing.assert_array_equal(augmenter(8, 8, flip=False)(IMAGES, training=True), IMAGES)
