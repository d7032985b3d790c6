"""The standard JPEG quantization tables, and how libjpeg scales them by a quality setting."""

import numpy as np

# At quality 50: tables K.1 and K.2 of ITU-T T.81, Annex K.
LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
CHROMINANCE = np.array(
    [
        [17, 18, 24, 47, 99, 99, 99, 99],
        [18, 21, 26, 66, 99, 99, 99, 99],
        [24, 26, 56, 99, 99, 99, 99, 99],
        [47, 66, 99, 99, 99, 99, 99, 99],
        [99, 99, 99, 99, 99, 99, 99, 99],
        [99, 99, 99, 99, 99, 99, 99, 99],
        [99, 99, 99, 99, 99, 99, 99, 99],
        [99, 99, 99, 99, 99, 99, 99, 99],
    ]
)


def at_every_quality(table: np.ndarray) -> np.ndarray:
    """Scale a table to each quality setting, as `jpeg_set_quality` of libjpeg does.

    Args:
        table: int (8, 8), LUMINANCE or CHROMINANCE.

    Returns:
        int (100, 8, 8), from 1 to 255: the tables at quality 1, 2, ... 100.
    """
    quality = np.arange(1, 101)
    percent = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((table * percent[:, None, None] + 50) // 100, 1, 255)
