"""Pillow with every plug-in it has and that of pillow-heif, registered at the first use."""

import functools
import io
import logging
import struct
import warnings
from typing import BinaryIO

import pillow_heif
from PIL import Image, ImageFile

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
