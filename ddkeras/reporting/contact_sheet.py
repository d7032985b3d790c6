"""Contact sheets: images in rows on one sheet."""

import numpy as np
from PIL import Image

_GAP = 4  # pixels between images


def draw(rows: list[list[np.ndarray]], heading: np.ndarray | None = None) -> Image.Image:
    """Draw rows of images on one sheet.

    Args:
        rows: uint8 images (height, width, 3). Every cell has the size of the largest image; smaller ones are centred.
        heading: uint8 (height, width, 3), drawn above the rows.
    """
    height, width = (max(image.shape[axis] for row in rows for image in row) for axis in (0, 1))
    cell_height, cell_width = height + _GAP, width + _GAP
    first_row = _GAP if heading is None else heading.shape[0] + 2 * _GAP
    sheet_size = (max(map(len, rows)) * cell_width + _GAP, first_row + len(rows) * cell_height)
    sheet = Image.new("RGB", sheet_size, "white")
    if heading is not None:
        sheet.paste(Image.fromarray(heading), (_GAP, _GAP))
    for row_index, row in enumerate(rows):
        for column, image in enumerate(row):
            left = _GAP + column * cell_width + (width - image.shape[1]) // 2
            top = first_row + row_index * cell_height + (height - image.shape[0]) // 2
            sheet.paste(Image.fromarray(image), (left, top))
    return sheet
