"""Small JPEG previews."""

import io

from PIL import Image

from pipelines.media.headers import image_format
from pipelines.media.pillow import open_image, upright

SIDE = 160  # pixels at most


def small_jpeg(image: Image.Image, side: int = SIDE) -> bytes:
    """Encode an image as a JPEG whose longer side has at most `side` pixels; smaller images keep their size."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def thumbnail(encoded: bytes) -> bytes:
    """Make the same of an encoded image, turned upright as it is decoded.

    Raises:
        One of `pillow.PILLOW_ERRORS`: it is not an image, or a damaged one.
    """
    with open_image(encoded) as image:
        image.draft("RGB", (2 * SIDE, 2 * SIDE))  # decode a large JPEG at a fraction of its size
        return small_jpeg(upright(image, image_format(encoded)))
