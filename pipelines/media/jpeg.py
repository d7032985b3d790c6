"""The segments of a JPEG file (ITU-T T.81, annex B), up to its pixels."""

from collections.abc import Iterator
from typing import BinaryIO

APP1, APP2 = 0xE1, 0xE2  # EXIF and XMP; colour profiles and gain maps
_COMMENT, _START_OF_SCAN = 0xFE, 0xDA
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
        if len(head) < 4 or head[0] != 0xFF or head[1] == _START_OF_SCAN or length < 2:
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
