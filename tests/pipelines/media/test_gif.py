"""GIFs reduced to their first image."""

import contextlib
import io

import numpy as np
import tensorflow as tf
from PIL import Image

from pipelines.decoding import decodable, decode
from pipelines.media.gif import first_image
from pipelines.media.headers import UnreadableError


def saved(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "GIF", **options)
    return buffer.getvalue()


def test_a_gif_is_cut_off_after_its_first_image():
    frames = [Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)) for seed in (0, 1)]
    one = saved(frames[0], comment=b"a comment")
    two = saved(frames[0], save_all=True, append_images=frames[1:], comment=b"a comment")
    assert first_image(one) == one
    assert len(first_image(two)) < len(two) * 0.6
    np.testing.assert_array_equal(decode(tf.constant(decodable(two))), decode(tf.constant(one)))
    for length in range(0, len(two), 23):  # wherever it is cut, nothing else is raised
        with contextlib.suppress(UnreadableError):
            decodable(two[:length])
