"""How a network sees an image: squashed, or in windows; from files, decoded images and damaged files alike."""

import numpy as np
import pytest
import tensorflow as tf
from tiny import encode

from pipelines.views import (
    Squash,
    Windowed,
    Windows,
    flat,
    load_images,
    try_view,
)

VIEW = Windows(32, 4)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def as_png(pixels) -> bytes:
    return tf.io.encode_png(pixels).numpy()


def test_windows_are_padded_to_their_number_and_counted():
    pixels, counts = VIEW.of_image(tf.constant(noise(32, 48)))
    assert pixels.shape == (4, 32, 32, 3)
    assert counts.numpy() == 2
    np.testing.assert_array_equal(pixels[:2], [noise(32, 48)[:, :32], noise(32, 48)[:, 16:]])
    assert not pixels[2:].numpy().any()


@pytest.mark.parametrize("view", [Squash(32), VIEW])
def test_files_decoded_images_and_images_of_one_size_give_the_same(view):
    images = np.stack([noise(50, 70, 1), noise(50, 70, 2)])
    of_files = view.of_files(tf.constant([as_png(image) for image in images]))
    of_each = tf.nest.map_structure(lambda *values: tf.stack(values), *map(view.of_image, tf.constant(images)))
    for other in (of_each, view.of_images(tf.constant(images))):
        for values, expected in zip(tf.nest.flatten(other), tf.nest.flatten(of_files), strict=True):
            np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("view", [Squash(32), VIEW])
def test_damaged_files_are_black_beside_others_whose_order_is_kept(view, tmp_path):
    contents = [as_png(noise(40, 60, 1)), b"rubbish", encode(), b"", as_png(noise(20, 10, 2))]
    whole = view.of_files(tf.constant([content for content in contents if len(content) > 7]))
    seen, sides = try_view(tf.constant(contents), view)
    assert sides.numpy().tolist()[1::2] == [0, 0]
    assert sides.numpy().tolist()[::4] == [40, 10]
    paths = [tmp_path / str(number) for number in range(5)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    loaded, errors = load_images(paths, view)
    assert sorted(errors) == [1, 3]
    for values in (seen, loaded):
        for found, expected in zip(tf.nest.flatten(values), tf.nest.flatten(whole), strict=True):
            np.testing.assert_array_equal(np.asarray(found)[[0, 2, 4]], expected)
    black = seen.pixels if isinstance(seen, Windowed) else seen
    assert not black.numpy()[[1, 3]].any()


def test_a_batch_of_nothing_but_rubbish_has_its_size():
    pixels, sides = try_view(tf.constant([b"rubbish"] * 3), VIEW)
    assert (pixels.pixels.shape, pixels.counts.numpy().tolist(), sides.numpy().tolist()) == (
        (3, 4, 32, 32, 3),
        [1, 1, 1],
        [0, 0, 0],
    )


def test_padding_is_left_out_before_the_network():
    seen = VIEW.of_files(tf.constant([as_png(noise(32, 48)), as_png(noise(64, 64)), as_png(noise(9, 9))]))
    assert seen.counts.numpy().tolist() == [2, 4, 1]
    assert flat(seen).shape == (7, 32, 32, 3)


def test_the_whole_image_comes_before_its_windows():
    view = Windows(32, 4, whole=True)
    image = tf.constant(noise(32, 48))
    pixels, count = view.of_image(image)
    assert (pixels.shape, count) == ((5, 32, 32, 3), 3)
    np.testing.assert_array_equal(pixels[0], Squash(32).of_image(image))
    np.testing.assert_array_equal(pixels[1:3], VIEW.of_image(image).pixels[:2])


def test_a_line_a_hundred_thousand_pixels_long_has_windows_of_its_own():
    line = np.random.default_rng(0).integers(0, 256, (1, 100_000, 3), np.uint8)
    pixels, count = VIEW.of_image(tf.constant(line))
    assert count == 4
    assert (pixels.numpy() == pixels.numpy()[:, :1]).all(), "one row, continued by mirroring"
