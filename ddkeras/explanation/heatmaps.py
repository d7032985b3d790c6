"""Heatmaps: from the coarse grid on which they are computed to pixels, and to a scale of 0 to 1."""

import numpy as np


def interpolation_matrix(positions: np.ndarray, size: int) -> np.ndarray:
    """The matrix that interpolates values at some positions linearly to every pixel of a row.

    Before the first position and after the last it repeats their values.

    Args:
        positions: (n,), ascending, in pixels from the edge of the image.
        size: pixels of the row.

    Returns:
        float32 (size, n).
    """
    pixels = np.arange(size) + 0.5
    columns = [np.interp(pixels, positions, unit_vector) for unit_vector in np.eye(len(positions))]
    return np.stack(columns, axis=1).astype(np.float32)


def normalize(heatmaps: np.ndarray) -> np.ndarray:
    """Divide each of (n, height, width), 0 or more, by its maximum; a heatmap of zeros stays one."""
    peaks = heatmaps.max(axis=(1, 2), keepdims=True)
    return np.divide(heatmaps, peaks, out=np.zeros_like(heatmaps), where=peaks > 0)
