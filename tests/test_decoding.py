"""One decode, one resize."""

import io

import numpy as np
import pytest
import tensorflow as tf
from conftest import encode
from PIL import Image

from pipelines.decoding import decode, decode_and_resize, image_format, why_unreadable


@pytest.mark.parametrize(
    ("kind", "name"), [("JPEG", "jpeg"), ("PNG", "png"), ("WEBP", "webp"), ("BMP", "bmp"), ("GIF", "gif")]
)
def test_the_format_is_told_by_content_and_decodes_to_rgb(kind, name):
    encoded = encode(kind)
    assert image_format(encoded) == name
    image = decode(tf.constant(encoded))
    assert image.dtype == tf.uint8
    assert image.shape == (40, 40, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_pixels_equal_pillows(kind):
    encoded = encode(kind)
    expected = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    np.testing.assert_array_equal(decode(tf.constant(encoded)), expected)


def test_grey_and_transparent_images_become_rgb():
    for mode, value, expected in (("L", 70, [70, 70, 70]), ("RGBA", (10, 20, 30, 0), [10, 20, 30])):
        buffer = io.BytesIO()
        Image.new(mode, (3, 2), value).save(buffer, "PNG")
        assert decode(tf.constant(buffer.getvalue())).numpy().tolist() == [[expected] * 3] * 2


def test_resizing_keeps_the_range_and_averages_what_it_shrinks():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    buffer = io.BytesIO()
    Image.fromarray(stripes).save(buffer, "PNG")
    small = decode_and_resize(tf.constant(buffer.getvalue()), 16)
    assert small.dtype == tf.float32
    assert small.shape == (16, 16, 3)
    np.testing.assert_allclose(small[4:-4, 4:-4], 127.5, atol=4)  # without anti-aliasing: 0 or 255


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "the file is empty"),
        (b"<html>not found</html>", "not an image in a known format"),
        (encode("JPEG")[:-200], "damaged or cut short JPEG"),
        (encode("PNG")[:-200], "damaged or cut short PNG"),
        (encode("TIFF"), "TIFF cannot be read yet; convert it to PNG"),
    ],
)
def test_what_cannot_be_decoded_is_refused_with_a_reason(encoded, reason):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(tf.constant(encoded))
    assert why_unreadable(encoded) == reason
