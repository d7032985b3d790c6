"""Heatmaps from coarse places to pixels: interpolation and scaling."""

import numpy as np


def spread(at: np.ndarray, size: int) -> np.ndarray:
    """What makes a row of pixels of values that lie `at` some places, rising, in pixels from the edge.

    Between two of them it interpolates linearly; before the first and after the last it goes on with their values.

    Returns:
        float32 (size, values), which values are multiplied with.
    """
    pixels = np.arange(size) + 0.5
    return np.stack([np.interp(pixels, at, one) for one in np.eye(len(at))], axis=1).astype(np.float32)


def scaled(heats: np.ndarray) -> np.ndarray:
    """Each of float32 (n, height, width), 0 or more, with its highest value as 1; all 0 where that is 0."""
    peaks = heats.max(axis=(1, 2), keepdims=True)
    return np.divide(heats, peaks, out=np.zeros_like(heats), where=peaks > 0)
