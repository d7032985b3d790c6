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


def normalize(heatmap: np.ndarray) -> np.ndarray:
    """Divide a heatmap, 0 or more, or NaN, by its maximum; one of zeros stays one."""
    peak = np.nanmax(heatmap)
    return heatmap / peak if peak > 0 else heatmap
