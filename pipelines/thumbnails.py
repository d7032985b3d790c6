"""Images made small, for a page to show."""

import io

from PIL import Image

SIDE = 160  # pixels at most


def small_jpeg(image: Image.Image, side: int = SIDE) -> bytes:
    """An image as a JPEG of at most `side` pixels each way; one that is smaller keeps its size."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
