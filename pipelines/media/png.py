"""The chunks of a PNG file (https://www.w3.org/TR/png-3/#5DataRep)."""

from collections.abc import Iterator
from typing import BinaryIO

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_CHUNKS = 100_000  # of one file; common encoders write one for each 8 KiB


def chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Iterate over the chunks of a PNG.

    Checksums are not verified. The iteration ends after the IEND chunk, at the end of a truncated file, and after
    100,000 chunks.

    Yields:
        Type and declared length of each chunk, with `file` positioned at its content.
    """
    at = len(SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return
        length, chunk_type = int.from_bytes(head[:4], "big"), head[4:]
        yield chunk_type, length
        if chunk_type == b"IEND":
            return
        at += 12 + length  # length, type, content, checksum
