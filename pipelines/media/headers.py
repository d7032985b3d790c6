"""What the beginning of an image file says of it, told by content and before any pixel is decoded."""

import contextlib
import io
import logging
import os
import stat
import struct
import warnings
from dataclasses import dataclass

from PIL import Image

from pipelines.media import png

# What TensorFlow decodes comes first; the others Pillow may read.
_SIGNATURES = (
    ("jpeg", 0, b"\xff\xd8\xff"),
    ("png", 0, png.SIGNATURE),
    ("gif", 0, b"GIF8"),
    ("bmp", 0, b"BM"),
    ("webp", 8, b"WEBP"),
    ("tiff", 0, b"II*\0"),
    ("tiff", 0, b"MM\0*"),
    ("avif", 4, b"ftypavif"),
    ("avif", 4, b"ftypavis"),
    ("heic", 4, b"ftypheic"),
    ("heic", 4, b"ftypheix"),
    ("heic", 4, b"ftypmif1"),
)
# What Pillow raises on damaged files, depending on the format and the damage: found by damaging thousands at random.
DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    RuntimeError,
    EOFError,
    IndexError,
    struct.error,
    Image.DecompressionBombError,
)
_APP1 = 0xE1  # the segment that EXIF lies in
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # with the dimensions; the three are something else
MAX_PIXELS = 100_000_000  # of one image: 300 MB decoded
LARGEST = 512 * 2**20  # bytes of a file; no image comes near, and what does would fill the memory

Image.init()
# Of every oddity in a file it tells the terminal; what matters raises.
logging.getLogger("PIL").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module=r"PIL\.")
with contextlib.suppress(ImportError):
    import pillow_heif

    pillow_heif.register_heif_opener()


class UnreadableError(ValueError):
    """A file is no image that can be read; the message says why, in a few words."""


class TooLargeError(UnreadableError):
    """An image has more pixels than are allowed."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of its image. `height` and `width` are of the image upright, as it is decoded."""

    format: str  # jpeg, png, gif, bmp, webp, tiff, avif or heic
    height: int
    width: int
    frames: int
    bits: int  # per sample


def read_file(path: str | os.PathLike) -> bytes:
    """The bytes of a file.

    Raises:
        OSError: it cannot be read.
        UnreadableError: it is too large for any image, or no file but a pipe, which would be waited for without end.
    """
    content, status = read_with_status(path)
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableError("not a file")
    if status.st_size > LARGEST:
        raise UnreadableError(f"more than {LARGEST // 2**20} MiB")
    return content


def read_with_status(path: str | os.PathLike) -> tuple[bytes, os.stat_result]:
    """The bytes of a file and what the system says of it; no bytes where it is too large, or no file but a pipe.

    Raises:
        OSError: it cannot be read.
    """
    # Without the layers of open(), which take longer than reading a small file; and without waiting, should it be a
    # named pipe.
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        status = os.fstat(file)
        parts = []
        if status.st_size > LARGEST:
            return b"", status
        while sum(map(len, parts)) < status.st_size and (part := os.read(file, status.st_size)):
            parts.append(part)
        return b"".join(parts), status
    finally:
        os.close(file)


def image_format(encoded: bytes) -> str:
    """The format that the first bytes tell, whatever the file's name: `jpeg`, `png`, ... or `unknown`."""
    return next((name for name, at, magic in _SIGNATURES if encoded.startswith(magic, at)), "unknown")


def read_header(encoded: bytes, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Read the header of an encoded image.

    Raises:
        UnreadableError: it has none.
        TooLargeError: it says that the image has more than `max_pixels`.
    """
    header = _plain_jpeg_header(encoded) or _png_header(encoded) or _header_by_pillow(encoded, max_pixels)
    if header.height * header.width > max_pixels:
        size = f"{header.width} x {header.height} pixels"
        raise TooLargeError(f"{size}, more than {max_pixels:,}")
    return header


def _plain_jpeg_header(encoded: bytes) -> Header | None:
    """The header of a JPEG without EXIF, which most images in a data set are; None for everything else.

    It costs a tenth of opening the file with Pillow, which would be half of converting small images.
    """
    if not encoded.startswith(b"\xff\xd8\xff"):
        return None
    at = 2
    while at + 9 <= len(encoded) and encoded[at] == 0xFF:
        marker, length = encoded[at + 1], int.from_bytes(encoded[at + 2 : at + 4], "big")
        if marker == _APP1 or length < 2:
            return None
        if marker in _START_OF_FRAME:
            bits, height, width = encoded[at + 4], encoded[at + 5 : at + 7], encoded[at + 7 : at + 9]
            height, width = int.from_bytes(height, "big"), int.from_bytes(width, "big")
            return Header("jpeg", height, width, 1, bits) if height and width else None
        at += 2 + length
    return None


def _png_header(encoded: bytes) -> Header | None:
    """The header of a PNG; None for everything else.

    Pillow would open none that has a damaged text, or one too long for it: what TensorFlow passes over.
    """
    if not encoded.startswith(png.SIGNATURE) or encoded[12:16] != b"IHDR":
        return None
    width, height = int.from_bytes(encoded[16:20], "big"), int.from_bytes(encoded[20:24], "big")
    if len(encoded) < 33 or not width or not height:
        return None
    file, frames = io.BytesIO(encoded), 1
    for kind, _ in png.chunks(file):
        if kind == b"acTL":  # an animation; it stands before the pixels
            frames = max(int.from_bytes(file.read(4), "big"), 1)
        if kind == b"IDAT":
            break
    return Header("png", height, width, frames, bits=encoded[24])


def _header_by_pillow(encoded: bytes, max_pixels: int) -> Header:
    kind = image_format(encoded)
    plugin = {"heic": "HEIF"}.get(kind, kind.upper())
    if plugin not in Image.OPEN:
        raise UnreadableError(why_unreadable(encoded))
    try:
        with Image.open(io.BytesIO(encoded), formats=[plugin]) as image:
            width, height = _upright_size(image) if kind == "jpeg" else image.size
            frames = 1 if kind == "jpeg" else getattr(image, "n_frames", 1)  # a phone's JPEG may have previews behind
            bits = _bits(encoded, kind, image.mode)
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"more than {max_pixels:,} pixels") from error
    except DAMAGED as error:
        raise UnreadableError(why_unreadable(encoded)) from error
    return Header(kind, height, width, frames, bits)


def _upright_size(jpeg: Image.Image) -> tuple[int, int]:
    try:
        orientation = jpeg.getexif().get(0x0112) if "exif" in jpeg.info else 1
    except DAMAGED:  # the metadata, which says nothing about the image
        orientation = 1
    return jpeg.size[::-1] if orientation in (5, 6, 7, 8) else jpeg.size


def _bits(encoded: bytes, kind: str, mode: str) -> int:
    if kind == "png":
        return encoded[24]  # of IHDR; Pillow's mode hides it
    return {"I": 32, "F": 32}.get(mode, 16 if mode.startswith("I;16") else 8)


def why_unreadable(encoded: bytes) -> str:
    """A few words for a person on why these bytes cannot be decoded."""
    if not encoded:
        return "the file is empty"
    kind = image_format(encoded)
    if kind == "unknown":
        return "not an image in a known format"
    if kind == "heic" and "HEIF" not in Image.OPEN:
        return "HEIC is read with pillow-heif alone: pip install 'ddkeras[heif]', or convert it to PNG"
    if kind == "avif" and "AVIF" not in Image.OPEN:
        return "AVIF is read by Pillow 11.3 and later: upgrade Pillow, or convert it to PNG"
    return f"damaged or cut short {kind.upper()}"
