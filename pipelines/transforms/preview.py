"""Augmented examples of a few image files, as `ddk show-augment` draws them."""

from pathlib import Path

import numpy as np

from pipelines.decoding import load_image
from pipelines.exceptions import DataError
from pipelines.media.headers import UnreadableError
from pipelines.transforms.augmenter import Augmenter, Chain


def augmented(paths: list[Path], chain: Chain, image_size: int, *, draws: int, seed: int) -> list[list[np.ndarray]]:
    """A row for each image: as decoded, then as so many steps of a training see it.

    Returns:
        Rows of uint8 (height, width, 3).

    Raises:
        DataError: a file cannot be read, is no image, or a damaged one.
    """
    augmenter = Augmenter(chain, image_size, seed=seed)
    images = np.stack([_load(path, image_size) for path in paths])
    seen = [np.rint(augmenter(images, step=step)).astype(np.uint8) for step in range(draws)]
    return [list(row) for row in zip(images, *seen, strict=True)]


def _load(path: Path, image_size: int) -> np.ndarray:
    try:
        return load_image(path, image_size)
    except UnreadableError as error:
        raise DataError(f"{path} cannot be shown: {error}") from error
