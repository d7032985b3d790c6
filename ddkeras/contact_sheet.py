"""Images in rows, as one PNG."""

from pathlib import Path

import numpy as np
from PIL import Image

from pipelines import atomic
from pipelines.augmentation import Augmenter, Chain
from pipelines.decoding import load_image
from pipelines.errors import DataError
from pipelines.headers import UnreadableError

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


def write(path: Path, rows: list[list[np.ndarray]]) -> None:
    """Write rows of images to `path`, whole or not at all.

    Args:
        rows: of uint8 (height, width, 3); smaller ones are centred in places of the largest one's size.
    """
    side = max(max(image.shape[:2]) for row in rows for image in row)
    columns = max(map(len, rows))
    step = side + _GAP
    sheet = Image.new("RGB", (columns * step + _GAP, len(rows) * step + _GAP), "white")
    for top, row in enumerate(rows):
        for left, image in enumerate(row):
            height, width = image.shape[:2]
            place = (_GAP + left * step + (side - width) // 2, _GAP + top * step + (side - height) // 2)
            sheet.paste(Image.fromarray(image), place)
    with atomic.file(path) as partial:
        sheet.save(partial, "PNG")
