"""Augmented versions of a few image files, as `ddk show-augment` displays them."""

from pathlib import Path

import numpy as np

from pipelines.exceptions import DataError
from pipelines.media.headers import UnreadableError
from pipelines.transforms.augmenter import Augmenter, Chain
from pipelines.views import load_image


def augmented_rows(
    paths: list[Path], chain: Chain, image_size: int, *, draws: int, seed: int
) -> list[list[np.ndarray]]:
    """A row for each image: first as decoded, then as the first `draws` steps of a training see it.

    Returns:
        Rows of uint8 (height, width, 3), RGB.

    Raises:
        DataError: a file cannot be read, or is not an intact image.
    """
    augmenter = Augmenter(chain, image_size, seed=seed)
    images = np.stack([_load(path, image_size) for path in paths])
    augmented = [np.rint(augmenter(images, step=step)).astype(np.uint8) for step in range(draws)]
    return [list(row) for row in zip(images, *augmented, strict=True)]


def _load(path: Path, image_size: int) -> np.ndarray:
    try:
        return load_image(path, image_size)
    except UnreadableError as error:
        raise DataError(f"{path} cannot be shown: {error}") from error
