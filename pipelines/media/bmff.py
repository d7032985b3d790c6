"""The boxes of HEIF and AVIF files (ISO/IEC 14496-12 and 23008-12), as far as they tell what else is in a file."""

from collections.abc import Iterator

_MAX_BOXES = 10_000
_CONTAINERS = {b"iprp": 0, b"ipco": 0, b"meta": 4, b"iinf": 6}  # and the bytes before the boxes within
_HDR_GAIN_MAP = b"urn:com:apple:photo:2020:aux:hdrgainmap"


def has_gain_map(file: bytes) -> bool:
    """Whether an item is a tone map (`tmap`) or an auxiliary image of Apple's kind."""
    for kind, content in _boxes(file):
        if kind == b"infe" and content[8:12] == b"tmap":
            return True
        if kind == b"auxC" and content[4:].startswith(_HDR_GAIN_MAP):
            return True
    return False


def has_motion_photo(file: bytes) -> bool:
    """Whether a video follows in the box of a motion photo."""
    return any(kind == b"mpvd" for kind, _ in _boxes(file))


def _boxes(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and the first bytes of the content of each box, with the boxes in it."""
    ranges, found = [(0, len(file))], 0
    while ranges:
        at, end = ranges.pop()
        while at + 8 <= end and found < _MAX_BOXES:
            found += 1
            size, kind, head = int.from_bytes(file[at : at + 4], "big"), file[at + 4 : at + 8], 8
            if size == 1:  # the size follows as 64 bits
                size, head = int.from_bytes(file[at + 8 : at + 16], "big"), 16
            size = size or end - at
            if size < head:
                break
            stop = min(at + size, end)
            yield kind, file[at + head : min(stop, at + head + 256)]
            if kind in _CONTAINERS:
                ranges.append((at + head + _CONTAINERS[kind], stop))
            at += size
