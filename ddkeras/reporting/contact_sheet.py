"""Images in rows on one sheet."""

import numpy as np
from PIL import Image

_GAP = 4  # pixels between images


def draw(rows: list[list[np.ndarray]], heading: np.ndarray | None = None) -> Image.Image:
    """Draw rows of images on one sheet.

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
    return sheet
