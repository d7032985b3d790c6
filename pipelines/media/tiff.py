"""Just enough of the TIFF format to tell the kinds that Pillow reads wrongly, or not at all."""

import struct

from PIL.TiffImagePlugin import COMPRESSION_INFO, OPEN_INFO

from pipelines.media.pillow import PILLOW_ERRORS, open_image

_WIDTH, _HEIGHT, BITS_PER_SAMPLE, PHOTOMETRIC = 256, 257, 258, 262
WHITE_IS_ZERO = 0
_COMPRESSION, _SAMPLES_PER_PIXEL, _PLANAR = 259, 277, 284
_EXTRA_SAMPLES, _SAMPLE_FORMAT = 338, 339
# Where the pixels are, in strips or in tiles: the tags of their offsets, and of their numbers of bytes.
_PLACES = (273, 279), (324, 325)
_SEPARATE_PLANES, _SIGNED, _FLOATING_POINT = 2, 2, 3
_COLOURS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "Lab", 9: "Lab", 10: "Lab"} | {
    32803: "camera raw",
    32844: "LogL",
    32845: "LogLuv",
    34892: "camera raw",
}
_NUMBERS = {3: "H", 4: "I", 16: "Q"}  # the types of unsigned numbers, as in `struct`
_MAX_TAGS, _MAX_VALUES = 1000, 10_000


def tags(encoded: bytes) -> dict[int, tuple[int, ...]]:
    """The numbers in the first directory of a TIFF or BigTIFF, by tag; only what is whole of a damaged one."""
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
            if kind in _NUMBERS and values <= _MAX_VALUES:
                numbers = f"{order}{values}{_NUMBERS[kind]}"
                is_inline = struct.calcsize(numbers) <= inline
                (place,) = (at,) if is_inline else struct.unpack_from(order + offset, encoded, at)
                if place + struct.calcsize(numbers) <= len(encoded):
                    found[tag] = struct.unpack_from(numbers, encoded, place)
            at += inline
    except (struct.error, OverflowError):
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
        (is_planar and len(bits) == 2, "planar grey with transparency in TIFF; convert it to PNG"),
    ]
    return next((reason for applies, reason in kinds if applies), "")


def unopened_kind(encoded: bytes) -> str:
    """Name a whole TIFF of a kind that Pillow cannot open, and what to do; empty for every other."""
    found = tags(encoded)
    if not _is_whole(encoded, found) or _can_open(encoded):
        return ""
    bits, extra = found[BITS_PER_SAMPLE], found.get(_EXTRA_SAMPLES, ())
    photometric = next(iter(found.get(PHOTOMETRIC, ())), -1)
    colours = _COLOURS.get(photometric)
    unknown = [code for code in found.get(_COMPRESSION, ()) if code not in COMPRESSION_INFO]
    is_opened = not unknown and (photometric, bits, extra) in {(key[1], key[4], key[5]) for key in OPEN_INFO}
    if is_opened or not colours:
        return ""  # so other tags are damaged, or this one is
    channels = max([len(bits), *found.get(_SAMPLES_PER_PIXEL, ())])
    number = "1 channel" if channels == 1 else f"{channels} channels"
    depth = " and ".join(map(str, sorted(set(bits))))
    compressed = "".join(f", with compression {code}," for code in unknown)
    return f"{colours} TIFF with {number} of {depth} bits{compressed} is not read; convert it to PNG"


def _is_whole(encoded: bytes, found: dict[int, tuple[int, ...]]) -> bool:
    """Whether there are the tags that every picture has, and all its parts lie within the file."""
    parts = [(found[at], found[size]) for at, size in _PLACES if at in found and size in found]
    if not parts or not all(any(found.get(tag, ())) for tag in (_WIDTH, _HEIGHT, BITS_PER_SAMPLE)):
        return False
    return all(at + size <= len(encoded) for part in parts for at, size in zip(*part, strict=False))


def _can_open(encoded: bytes) -> bool:
    try:
        with open_image(encoded, "tiff"):
            return True
    except PILLOW_ERRORS:
        return False
