"""The chunks of a PNG file, as https://www.w3.org/TR/png-3/#5DataRep lays them out."""

from collections.abc import Iterator
from typing import BinaryIO

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MOST = 100_000  # chunks of one file; common encoders make one for each 8 KiB


def chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """The kind of each chunk and how many bytes it says to hold, with `file` where they begin.

    Check sums are not looked at. It ends with the last chunk, where the file is cut short, and after 100,000 chunks.
    """
    at = len(SIGNATURE)
    for _ in range(_MOST):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        yield kind, length
        if kind == b"IEND":
            return
        at += 12 + length  # both of these, the content, its check sum
