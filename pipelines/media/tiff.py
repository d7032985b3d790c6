"""Just enough of the TIFF format to tell the kinds that Pillow reads wrongly, or not at all."""

import struct

BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262
WHITE_IS_ZERO = 0
_PLANAR, _SAMPLE_FORMAT = 284, 339
_SEPARATE_PLANES, _SIGNED, _FLOATING_POINT = 2, 2, 3
_SHORT = 3
_MAX_TAGS, _MAX_SAMPLES = 1000, 16


def tags(encoded: bytes) -> dict[int, tuple[int, ...]]:
    """The 16-bit numbers of the first directory of a TIFF or BigTIFF, by tag; only what is whole of a damaged one."""
    found: dict[int, tuple[int, ...]] = {}
    order = "<" if encoded.startswith(b"II") else ">"
    try:
        (version,) = struct.unpack_from(f"{order}H", encoded, 2)
        is_big = version == 43
        number, offset, entry = ("Q", "Q", f"{order}HHQ") if is_big else ("H", "I", f"{order}HHI")
        (directory,) = struct.unpack_from(order + offset, encoded, 8 if is_big else 4)
        (count,) = struct.unpack_from(order + number, encoded, directory)
        at = directory + struct.calcsize(order + number)
        inline = struct.calcsize(order + offset)
        for _ in range(min(count, _MAX_TAGS)):
            tag, kind, values = struct.unpack_from(entry, encoded, at)
            at += struct.calcsize(entry)
            if kind == _SHORT and values <= _MAX_SAMPLES:
                (place,) = (at,) if 2 * values <= inline else struct.unpack_from(order + offset, encoded, at)
                found[tag] = struct.unpack_from(f"{order}{values}H", encoded, place)
            at += inline
    except struct.error:
        pass  # damaged, which the decoder will say
    return found


def unsupported_kind(encoded: bytes) -> str:
    """Name a TIFF that is whole but of a kind that is not read, and what to do; empty for every other."""
    found = tags(encoded)
    bits = found.get(BITS_PER_SAMPLE, (1,))
    deepest, has_colours = max(bits, default=1), len(bits) > 1
    formats = found.get(_SAMPLE_FORMAT, ())
    is_planar = found.get(_PLANAR) == (_SEPARATE_PLANES,)
    kinds = [
        (encoded.startswith(b"MM\0+"), "BigTIFF with the big end first is not read; convert it to PNG"),
        (_FLOATING_POINT in formats, "floating-point samples in TIFF; convert it to 8 or 16 bits"),
        (_SIGNED in formats, "signed samples in TIFF; convert it to unsigned ones"),
        (deepest > 16, f"{deepest}-bit samples in TIFF; convert it to 8 or 16 bits"),
        (has_colours and 8 < deepest < 16, f"{deepest}-bit colours in TIFF; convert it to 8 or 16 bits"),
        (has_colours and is_planar and deepest == 16, "planar 16-bit colours in TIFF; convert it to 8 bits"),
    ]
    return next((reason for applies, reason in kinds if applies), "")
