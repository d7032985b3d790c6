"""The quantization tables are those of libjpeg."""

import io

import numpy as np
from PIL import Image
from tiny import encode

from pipelines.media.jpeg_tables import CHROMINANCE, LUMINANCE, at_every_quality


def test_the_tables_are_those_of_libjpeg_at_every_quality():
    luminance, chrominance = at_every_quality(LUMINANCE), at_every_quality(CHROMINANCE)
    for quality in range(1, 101):
        with Image.open(io.BytesIO(encode(size=8, quality=quality))) as image:
            tables = image.quantization
        np.testing.assert_array_equal(luminance[quality - 1].ravel(), tables[0])
        np.testing.assert_array_equal(chrominance[quality - 1].ravel(), tables[1])
