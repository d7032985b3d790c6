"""Pillow with every plug-in it has and that of pillow-heif, registered at the first use."""

import functools
import io
import logging
import struct
import warnings
from typing import BinaryIO

import pillow_heif
from PIL import ExifTags, Image, ImageFile

# What Pillow raises on damaged files, depending on format and damage; collected by corrupting thousands at random.
PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    RuntimeError,
    EOFError,
    IndexError,
    OverflowError,
    struct.error,
    Image.DecompressionBombError,
)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(source: bytes | BinaryIO, image_format: str | None = None) -> ImageFile.ImageFile:
    """`PIL.Image.open` on bytes or a file; no pixel is decoded yet.

    Args:
        source: an encoded image.
        image_format: the only format to try, as `headers.image_format` names it; None for any.

    Raises:
        One of `PILLOW_ERRORS`: it is not an image of that format, or a damaged one.
    """
    load_plugins()
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    return Image.open(file, formats=None if image_format is None else [_plugin(image_format)])


def orientation(image: Image.Image, image_format: str) -> int:
    """How an opened image is to be turned upright, from 1 (not at all) to 8, as EXIF numbers it.

    The rule is Pillow's: EXIF decides and, without its tag Orientation, XMP. It holds for JPEG, and for AVIF, whose
    own rotation Pillow gives as EXIF. Pillow itself turns TIFF and HEIC; in other formats an orientation is ignored,
    as viewers mostly do.

    Args:
        image: the image, or one made from it.
        image_format: the file's, as `headers.image_format` names it.
    """
    if image_format not in ("jpeg", "avif"):
        return 1
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except PILLOW_ERRORS:  # damaged metadata, which does not affect the image
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def upright(image: Image.Image, image_format: str) -> Image.Image:
    """Turn an image upright by its `orientation`.

    `ImageOps.exif_transpose` does the same and changes the metadata to fit, which fails where they are damaged.
    """
    turn = _TURNS.get(orientation(image, image_format))
    return image if turn is None else image.transpose(turn)


def can_open(image_format: str) -> bool:
    """Whether a plug-in for the format is installed."""
    load_plugins()
    return _plugin(image_format) in Image.OPEN


@functools.cache  # without a lock: threads that get here together each register the same plug-ins
def load_plugins() -> None:
    """Register all plug-ins; the functions above do so themselves."""
    Image.init()
    pillow_heif.register_heif_opener()


def silence() -> None:
    """Keep Pillow's remarks on damaged files off the terminal. This is process-wide: for commands and workers only.

    Nothing is lost, because damage that matters raises as well.
    """
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _plugin(image_format: str) -> str:
    return {"heic": "HEIF"}.get(image_format, image_format.upper())
