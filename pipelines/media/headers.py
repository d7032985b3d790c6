"""What the header of an image file says, read from its content before any pixel is decoded."""

import io
import os
import stat
from dataclasses import dataclass

from PIL import Image

from pipelines.media import jpeg, png, tiff
from pipelines.media.pillow import PILLOW_ERRORS, can_open, open_image, orientation

JPEG_SIGNATURE = b"\xff\xd8\xff"
# Of single images and of sequences, as pillow-heif reads them.
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
JPEG_XL_SIGNATURES = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
# Format, offset and magic bytes. TensorFlow decodes the first five; JPEG XL is refused; Pillow reads the others.
_SIGNATURES = (
    ("jpeg", 0, JPEG_SIGNATURE),
    ("png", 0, png.SIGNATURE),
    ("gif", 0, b"GIF8"),
    ("bmp", 0, b"BM"),
    ("webp", 8, b"WEBP"),
    ("tiff", 0, b"II*\0"),
    ("tiff", 0, b"MM\0*"),
    ("tiff", 0, b"II+\0"),
    ("tiff", 0, b"MM\0+"),
    ("avif", 4, b"ftypavif"),
    ("avif", 4, b"ftypavis"),
    *(("heic", 4, b"ftyp" + brand) for brand in _HEIC_BRANDS),
    *(("jpeg xl", 0, signature) for signature in JPEG_XL_SIGNATURES),
)
_BMP_MASKS = b"\3"  # the compression of a BMP whose channels have masks
MAX_PIXELS = 100_000_000  # of one image: 300 MB decoded
MAX_FILE_BYTES = 512 * 2**20  # larger than any image; reading such a file would only fill the memory


class UnreadableError(ValueError):
    """A file cannot be read as an image; the message says why, in a few words."""


class TooLargeError(UnreadableError):
    """An image has more pixels than allowed."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of its image. `height` and `width` are those of the decoded image, turned upright."""

    format: str  # jpeg, png, gif, bmp, webp, tiff, avif or heic
    height: int
    width: int
    frames: int
    bits: int  # per sample


def read_file(path: str | os.PathLike) -> bytes:
    """Read an image file.

    Raises:
        OSError: it cannot be read.
        UnreadableError: it is larger than `MAX_FILE_BYTES`, or not a regular file, such as a pipe, which could
        block forever.
    """
    content, status = read_with_status(path)
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableError("not a file")
    if status.st_size > MAX_FILE_BYTES:
        raise UnreadableError(f"more than {MAX_FILE_BYTES // 2**20} MiB")
    return content


def read_with_status(path: str | os.PathLike) -> tuple[bytes, os.stat_result]:
    """Read a file and its status; the bytes are empty if it is larger than `MAX_FILE_BYTES` or not a regular file.

    Raises:
        OSError: it cannot be read.
    """
    # The layers of open() take longer than reading a small file. O_NONBLOCK keeps a named pipe from blocking.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if status.st_size > MAX_FILE_BYTES:
            return b"", status
        parts: list[bytes] = []
        while sum(map(len, parts)) < status.st_size and (part := os.read(descriptor, status.st_size)):
            parts.append(part)
        return b"".join(parts), status
    finally:
        os.close(descriptor)


def image_format(encoded: bytes) -> str:
    """The format by the first bytes, whatever the file's name: `jpeg`, `png`, ... or `unknown`."""
    return next((name for name, at, magic in _SIGNATURES if encoded.startswith(magic, at)), "unknown")


def read_header(encoded: bytes, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Read the header of an encoded image.

    Raises:
        UnreadableError: it has none, or a damaged one.
        TooLargeError: the image has more than `max_pixels` pixels.
    """
    header = _plain_jpeg_header(encoded) or _png_header(encoded) or _pillow_header(encoded, max_pixels)
    if header.height * header.width > max_pixels:
        size = f"{header.width} x {header.height} pixels"
        raise TooLargeError(f"{size}, more than {max_pixels:,}")
    return header


def unreadable_reason(encoded: bytes) -> str:
    """Say in a few words why these bytes cannot be decoded."""
    if not encoded:
        return "the file is empty"
    name = image_format(encoded)
    if name == "unknown":
        return "not an image in a known format"
    if name == "avif" and not can_open(name):
        return "AVIF needs Pillow 11.3 or later: upgrade Pillow, or convert the file to PNG"
    if name == "bmp" and encoded[30:31] == _BMP_MASKS:
        return "damaged BMP, or one with unusual channel masks; convert it to PNG"
    kind = unsupported_kind(encoded) or (tiff.unopened_kind(encoded) if name == "tiff" else "")
    return kind or f"damaged or cut short {name.upper()}"


def unsupported_kind(encoded: bytes) -> str:
    """Name what a file is, and what to do, if it is a whole image of a kind that is not read; empty otherwise."""
    name = image_format(encoded)
    if name == "jpeg xl":
        return "JPEG XL is not read; convert it to PNG"
    if name == "jpeg":
        return jpeg.unsupported_kind(encoded)
    return tiff.unsupported_kind(encoded) if name == "tiff" else ""


def _plain_jpeg_header(encoded: bytes) -> Header | None:
    """The header of a JPEG without EXIF and XMP, as most images of a data set are; None for everything else.

    This takes a tenth of the time of opening the file with Pillow, which would be half of the time to convert a small
    image.
    """
    if not encoded.startswith(JPEG_SIGNATURE):
        return None
    at, header = 2, None
    while at + 9 <= len(encoded) and encoded[at] == 0xFF:
        marker, length = encoded[at + 1], int.from_bytes(encoded[at + 2 : at + 4], "big")
        if marker == jpeg.START_OF_SCAN:
            return header
        if marker in (jpeg.APP1, jpeg.FILL) or marker in jpeg.BARE_MARKERS or length < 2:
            return None
        if marker in jpeg.STARTS_OF_FRAME:
            height = int.from_bytes(encoded[at + 5 : at + 7], "big")
            width = int.from_bytes(encoded[at + 7 : at + 9], "big")
            header = Header("jpeg", height, width, frames=1, bits=encoded[at + 4]) if height and width else None
        at += 2 + length
    return None


def _png_header(encoded: bytes) -> Header | None:
    """The header of a PNG; None for everything else.

    Pillow refuses a PNG with a damaged or overlong text chunk, which TensorFlow ignores.
    """
    if not encoded.startswith(png.SIGNATURE) or encoded[12:16] != b"IHDR":
        return None
    width, height = int.from_bytes(encoded[16:20], "big"), int.from_bytes(encoded[20:24], "big")
    if len(encoded) < 33 or not width or not height:
        return None
    file, frames = io.BytesIO(encoded), 1
    for chunk_type, _ in png.chunks(file):
        if chunk_type == b"acTL":  # animation control, which precedes the pixels
            frames = max(int.from_bytes(file.read(4), "big"), 1)
        if chunk_type == b"IDAT":
            break
    return Header("png", height, width, frames, bits=encoded[24])


def _pillow_header(encoded: bytes, max_pixels: int) -> Header:
    name = image_format(encoded)
    if not can_open(name):
        raise UnreadableError(unreadable_reason(encoded))
    try:
        with open_image(encoded, name) as image:
            width, height = image.size if orientation(image, name) < 5 else image.size[::-1]
            # The further frames of a phone's JPEG are previews.
            frames = 1 if name == "jpeg" else getattr(image, "n_frames", 1)
            bits = _bits(encoded, name, image.mode)
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"more than {max_pixels:,} pixels") from error
    except PILLOW_ERRORS as error:
        raise UnreadableError(unreadable_reason(encoded)) from error
    return Header(name, height, width, frames, bits)


def _bits(encoded: bytes, name: str, mode: str) -> int:
    if name == "png":
        return encoded[24]  # from IHDR; Pillow's mode hides it
    return {"I": 32, "F": 32}.get(mode, 16 if mode.startswith("I;16") else 8)
