"""Images in rows, as one PNG."""

from pathlib import Path

import numpy as np
from PIL import Image

from pipelines import atomic
from pipelines.decoding import load_image
from pipelines.exceptions import DataError
from pipelines.media.headers import UnreadableError
from pipelines.transforms.augmenter import Augmenter, Chain

_GAP = 4  # pixels between images


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


def write(path: Path, rows: list[list[np.ndarray]], heading: np.ndarray | None = None) -> None:
    """Write rows of images to `path`, whole or not at all.

    Args:
        rows: of uint8 (height, width, 3); smaller ones are centred in places of the size of the largest.
        heading: uint8 (height, width, 3), above them all.
    """
    height, width = (max(image.shape[axis] for row in rows for image in row) for axis in (0, 1))
    top = 0 if heading is None else heading.shape[0] + _GAP
    size = (max(map(len, rows)) * (width + _GAP) + _GAP, top + len(rows) * (height + _GAP) + _GAP)
    sheet = Image.new("RGB", size, "white")
    if heading is not None:
        sheet.paste(Image.fromarray(heading), (_GAP, _GAP))
    for down, row in enumerate(rows):
        for across, image in enumerate(row):
            left = _GAP + across * (width + _GAP) + (width - image.shape[1]) // 2
            above = top + _GAP + down * (height + _GAP) + (height - image.shape[0]) // 2
            sheet.paste(Image.fromarray(image), (left, above))
    with atomic.file(path) as partial:
        sheet.save(partial, "PNG")
