"""Images made small, for a page to show."""

import io

from PIL import Image, ImageOps

SIDE = 160  # pixels at most


def small_jpeg(image: Image.Image, side: int = SIDE) -> bytes:
    """An image as a JPEG of at most `side` pixels each way; one that is smaller keeps its size."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def thumbnail(encoded: bytes) -> bytes:
    """The same of an encoded image, upright.

    Raises:
        One of `headers.DAMAGED`: it is no image, or a damaged one.
    """
    with Image.open(io.BytesIO(encoded)) as image:
        image.draft("RGB", (2 * SIDE, 2 * SIDE))  # of a large JPEG, decode no more than is needed
        return small_jpeg(ImageOps.exif_transpose(image))
