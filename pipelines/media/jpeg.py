"""The segments of a JPEG file (ITU-T T.81, annex B), up to its pixels."""

import io
from collections.abc import Iterator
from typing import BinaryIO

APP1, APP2 = 0xE1, 0xE2  # EXIF and XMP; colour profiles and gain maps
START_OF_SCAN = 0xDA  # the last segment before the pixels
FILL, BARE_MARKERS = 0xFF, range(0xD0, 0xDA)  # what may precede a marker; markers without a segment
STARTS_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # the segments with the dimensions
ADOBE_MARKER = b"\xff\xee\0\x0eAdobe"  # the segment that tells whether colours are inks
_LOSSLESS = (0xC3, 0xC7, 0xCB, 0xCF)
_JPEG_LS = 0xF7
_COMMENT = 0xFE
_MAX_SEGMENTS = 10_000


def segments(file: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """Iterate over the segments before the pixels; nothing if the file is not a JPEG.

    Yields:
        The marker of each segment, the position of its content and its length, with `file` positioned there.
    """
    file.seek(0)
    at = 2 if file.read(2) == b"\xff\xd8" else -1
    for _ in range(_MAX_SEGMENTS if at > 0 else 0):
        file.seek(at)
        head = file.read(4)
        length = int.from_bytes(head[2:], "big")
        if len(head) < 4 or head[0] != 0xFF or head[1] == START_OF_SCAN or length < 2:
            return
        yield head[1], at + 4, length - 2
        at += 2 + length


def metadata_end(file: BinaryIO) -> int:
    """The position up to which a file holds only the segments of applications and comments, and no picture."""
    end = 2
    for marker, at, length in segments(file):
        if not (0xE0 <= marker <= 0xEF or marker == _COMMENT):
            break
        end = at + length
    return end


def unsupported_kind(encoded: bytes) -> str:
    """Name a JPEG that is whole but of a kind that no decoder here reads, and what to do; empty for every other."""
    marker, frame = _frame(encoded)
    if marker == _JPEG_LS or marker in _LOSSLESS:
        kind = "JPEG-LS" if marker == _JPEG_LS else "lossless JPEG"
        return f"{kind} is not read; convert it to PNG"
    return f"{frame[0]}-bit samples in JPEG; convert it to 8 bits" if frame and frame[0] > 8 else ""


def has_inverted_inks(encoded: bytes) -> bool:
    """Whether it is CMYK without an Adobe marker, whose inks viewers and Pillow invert, but TensorFlow does not."""
    _, frame = _frame(encoded)
    return frame[5:6] == b"\4" and ADOBE_MARKER not in encoded


def _frame(encoded: bytes) -> tuple[int, bytes]:
    """The marker and the content of the segment with bits, dimensions and number of channels; 0 and empty without."""
    for marker, at, length in segments(io.BytesIO(encoded)):
        if marker in STARTS_OF_FRAME or marker == _JPEG_LS:
            return marker, encoded[at : at + length]
    return 0, b""
