"""Headers of image files."""

import io

import pytest
from PIL import Image
from tiny import encode

from pipelines.media.headers import UnreadableError, read_header


def test_a_jpeg_truncated_anywhere_in_its_header_is_unreadable():
    encoded = encode()
    for length in range(1, encoded.index(b"\xff\xc0") + 9):
        with pytest.raises(UnreadableError):
            read_header(encoded[:length])


def test_huge_dimensions_are_refused():
    buffer = io.BytesIO()
    Image.new("1", (1, 1)).save(buffer, "BMP")
    encoded = bytearray(buffer.getvalue())
    encoded[18:26] = (30_000).to_bytes(4, "little") * 2
    with pytest.raises(UnreadableError, match="more than 100,000,000"):
        read_header(bytes(encoded))
    with pytest.raises(UnreadableError, match="40 x 40 pixels, more than 1,599"):
        read_header(encode(), max_pixels=1_599)
    assert read_header(encode(), max_pixels=1_600).width == 40
