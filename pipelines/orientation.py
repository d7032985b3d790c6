"""The orientation of a JPEG, as TensorFlow operations.

The rule is that of Pillow's `ImageOps.exif_transpose`, which `pipelines.media.pillow` follows outside of graphs:

- The tag Orientation in the first directory of EXIF decides, as cameras write it and browsers read it: an integer of
  any width, in either byte order, wherever the segment lies before the pixels.
- Without that tag, `tiff:Orientation` in XMP decides.
- Any value but 2 to 8 means upright, and so does EXIF that is damaged before the tag.
"""

import tensorflow as tf

from pipelines.media.headers import JPEG_SIGNATURE
from pipelines.media.jpeg import APP1, BARE_MARKERS, FILL, START_OF_SCAN

UPRIGHT = 1
_TRANSPOSED, _UPSIDE_DOWN, _MIRRORED = (5, 6, 7, 8), (3, 4, 7, 8), (2, 3, 6, 7)  # undone in this order


def is_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """Whether files, of any shape, are JPEGs, by their first bytes."""
    return tf.strings.substr(encoded, 0, len(JPEG_SIGNATURE)) == JPEG_SIGNATURE


# A graph even where it is called eagerly, because an eager loop takes longer than decoding.
@tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
def jpeg_orientations(encoded: tf.Tensor) -> tf.Tensor:
    """The orientations of JPEGs.

    Args:
        encoded: string (batch,), the bytes of each file; damaged files and those of other formats, too.

    Returns:
        int32 (batch,), from 1 to 8; 1 (upright) for a JPEG without orientation and for what is no JPEG.
    """
    exif, xmp = _metadata(encoded)
    has_any = tf.reduce_any(tf.strings.length(exif) + tf.strings.length(xmp) > 0)
    return tf.cond(has_any, lambda: _orientations(exif, xmp), lambda: tf.fill(tf.shape(encoded), UPRIGHT))


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turn stored pixels, (height, width, channels), upright: undo one of the eight orientations."""
    image = tf.cond(_is_one_of(orientation, *_TRANSPOSED), lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    image = tf.cond(_is_one_of(orientation, *_UPSIDE_DOWN), lambda: image[::-1], lambda: image)
    return tf.cond(_is_one_of(orientation, *_MIRRORED), lambda: image[:, ::-1], lambda: image)


def stored_part(
    corner: tf.Tensor, extent: tf.Tensor, shape: tf.Tensor, orientation: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Where a part of an upright image lies in the stored one.

    Args:
        corner: the first row and column of the part, int32 (2,).
        extent: its height and width, int32 (2,).
        shape: height and width of the upright image, int32 (2,).
        orientation: of the file, from 1 to 8.

    Returns:
        Its corner and extent in the stored image.
    """
    is_reversed = tf.stack([_is_one_of(orientation, *_UPSIDE_DOWN), _is_one_of(orientation, *_MIRRORED)])
    corner = tf.where(is_reversed, shape - corner - extent, corner)
    is_transposed = _is_one_of(orientation, *_TRANSPOSED)
    return tf.where(is_transposed, corner[::-1], corner), tf.where(is_transposed, extent[::-1], extent)


def upright_shape(stored: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Height and width of an upright image, int32 (2,), from those of the stored one."""
    return tf.where(_is_one_of(orientation, *_TRANSPOSED), stored[::-1], stored)


def _is_one_of(orientation: tf.Tensor, *numbers: int) -> tf.Tensor:
    return tf.reduce_any(orientation == tf.constant(numbers))


# --- segments of a JPEG ----------------------------------------------------------------------------------------

_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_MAX_SEGMENTS = 10_000  # a byte between segments counts as one


def _metadata(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """EXIF, joined where it is in several segments, and the last packet of XMP; string (batch,), empty without."""
    lengths, nothing = tf.strings.length(encoded), tf.fill(tf.shape(encoded), b"")

    def is_before_pixels(at: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        return tf.reduce_any(at < lengths)

    def read_segment(at: tf.Tensor, exif: tf.Tensor, xmp: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        first, marker, high, low = tf.unstack(_bytes(_part(encoded, at, 4), 4), axis=1)
        is_app1 = (first == FILL) & (marker == APP1)
        size = tf.maximum(256 * high + low, 2)  # of the segment, without its marker

        def collect() -> tuple[tf.Tensor, tf.Tensor]:
            content = _part(encoded, at + 4, tf.where(is_app1, size - 2, 0))
            has_xmp = _begins_with(content, _XMP)
            more = tf.where(_begins_with(content, _EXIF), _after(content, _EXIF), b"")
            return tf.strings.join([exif, more]), tf.where(has_xmp, _after(content, _XMP), xmp)

        exif, xmp = tf.cond(tf.reduce_any(is_app1), collect, lambda: (exif, xmp))
        is_bare = (marker == 0) | ((marker >= BARE_MARKERS.start) & (marker < BARE_MARKERS.stop))
        step = tf.where(is_bare, 2, 2 + size)
        step = tf.where((first != FILL) | (marker == FILL), 1, step)
        step = tf.where((first == FILL) & (marker == START_OF_SCAN), lengths, step)
        return tf.minimum(at + step, lengths), exif, xmp

    start = tf.where(is_jpeg(encoded), 2, lengths)
    _, exif, xmp = tf.while_loop(
        is_before_pixels, read_segment, (start, nothing, nothing), maximum_iterations=_MAX_SEGMENTS
    )
    return exif, xmp


def _part(text: tf.Tensor, at: tf.Tensor | int, size: tf.Tensor | int) -> tf.Tensor:
    """So many bytes of strings, (batch,), from a place on; less or nothing where they end before."""
    at = tf.minimum(at, tf.strings.length(text))
    return tf.strings.substr(text, at, tf.broadcast_to(size, tf.shape(at)))


def _begins_with(text: tf.Tensor, beginning: bytes) -> tf.Tensor:
    return tf.strings.substr(text, 0, len(beginning)) == beginning


def _after(text: tf.Tensor, beginning: bytes) -> tf.Tensor:
    return _part(text, len(beginning), tf.strings.length(text))


def _bytes(text: tf.Tensor, number: int | tf.Tensor) -> tf.Tensor:
    """So many bytes of each string, int32 (batch, number); 0 beyond its end."""
    return tf.cast(tf.io.decode_raw(text, tf.uint8, fixed_length=number), tf.int32)


# --- EXIF and XMP ----------------------------------------------------------------------------------------------

_TIFF_HEADERS = (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0")  # the latter two are mistakes that occur
_ORIENTATION = 0x0112
_MAX_ENTRIES = 512  # of the directory; a camera writes about twelve
_TYPE_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 0)  # of one value, by its type; 0 for unknown ones
_INTEGER_TYPES = (3, 4, 6, 8, 9, 13, 16)
_ABSENT = -1


def _orientations(exif: tf.Tensor, xmp: tf.Tensor) -> tf.Tensor:
    by_exif = _exif_orientation(exif)
    orientation = tf.where(by_exif == _ABSENT, _xmp_orientation(xmp), by_exif)
    return tf.where((orientation >= 1) & (orientation <= 8), orientation, UPRIGHT)


def _xmp_orientation(xmp: tf.Tensor) -> tf.Tensor:
    # `\C` is any byte; what does not match stays as it is.
    digit = tf.strings.regex_replace(xmp, r'^\C*?tiff:Orientation(?:="|>)([0-9])\C*$', r"\1")
    has_digit = (tf.strings.length(xmp) > 1) & (tf.strings.length(digit) == 1)
    return tf.where(has_digit, _bytes(digit, 1)[:, 0] - ord("0"), UPRIGHT)


def _exif_orientation(exif: tf.Tensor) -> tf.Tensor:
    """The value of the tag, int32 (batch,); `_ABSENT` without the tag; 0 if the value is no small integer."""
    exif = tf.strings.regex_replace(exif, r"^(?:Exif\x00\x00)+", "")  # once more by mistake
    lengths, is_big_endian = tf.strings.length(exif), _begins_with(exif, b"M")
    first, entries = _directory(exif, is_big_endian)
    tags, types, counts, places = (
        _number(digits, is_big_endian) for digits in tf.split(entries, (2, 2, 4, 4), axis=-1)
    )
    widths = tf.gather(tf.constant(_TYPE_BYTES, tf.int64), tf.minimum(types, len(_TYPE_BYTES) - 1))
    sizes = counts * widths
    # As Pillow does, stop reading at a value beyond the end; the last of several entries decides.
    is_whole = (sizes <= 4) | (places + sizes <= tf.cast(lengths, tf.int64)[:, tf.newaxis])
    is_read = tf.math.cumprod(tf.cast(is_whole, tf.int32), axis=1) > 0
    is_orientation = is_read & (sizes > 0) & (tags == _ORIENTATION)
    index = tf.reduce_max(tf.where(is_orientation, tf.range(_MAX_ENTRIES), 0), axis=1)

    def chosen(values: tf.Tensor) -> tf.Tensor:
        return _as_int32(tf.gather(values, index, batch_dims=1))

    place = tf.where(chosen(sizes) <= 4, first + 12 * index + 8, chosen(places))
    is_integer = tf.reduce_any(chosen(types)[:, tf.newaxis] == tf.constant(_INTEGER_TYPES), axis=1)
    value = tf.where(is_integer, _small_number(_part(exif, place, chosen(widths)), chosen(widths), is_big_endian), 0)
    has_header = tf.reduce_any(tf.strings.substr(exif, 0, 4)[:, tf.newaxis] == tf.constant(_TIFF_HEADERS), axis=1)
    value = tf.where(has_header & (lengths >= 8), tf.where(tf.reduce_any(is_orientation, axis=1), value, _ABSENT), 0)
    return tf.where(lengths > 0, value, _ABSENT)


def _directory(exif: tf.Tensor, is_big_endian: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the entries of the first directory begin, int32 (batch,), and their bytes, (batch, _MAX_ENTRIES, 12)."""

    def number_at(at: tf.Tensor | int, size: int) -> tf.Tensor:
        return _as_int32(_number(_bytes(_part(exif, at, size), size), is_big_endian))

    lengths = tf.strings.length(exif)
    first = tf.minimum(number_at(4, 4), lengths) + 2  # behind the number of entries
    number = tf.minimum(number_at(first - 2, 2), tf.clip_by_value((lengths - first) // 12, 0, _MAX_ENTRIES))
    entries = _bytes(_part(exif, first, 12 * number), 12 * _MAX_ENTRIES)
    return first, tf.reshape(entries, (-1, _MAX_ENTRIES, 12))


def _number(digits: tf.Tensor, is_big_endian: tf.Tensor) -> tf.Tensor:
    """Unsigned integers, int64 (batch, ...), from their bytes along the last axis."""
    powers, digits = 256 ** tf.range(digits.shape[-1], dtype=tf.int64), tf.cast(digits, tf.int64)
    is_big = tf.reshape(is_big_endian, (-1, *[1] * (digits.shape.rank - 2)))
    return tf.where(is_big, tf.reduce_sum(digits * powers[::-1], -1), tf.reduce_sum(digits * powers, -1))


def _small_number(text: tf.Tensor, width: tf.Tensor, is_big_endian: tf.Tensor) -> tf.Tensor:
    """An integer of 1 to 8 bytes, int32 (batch,); 0 if it is above 255 or negative."""
    digits = _bytes(text, 8)
    lowest = tf.gather(digits, tf.where(is_big_endian, tf.maximum(width - 1, 0), 0), batch_dims=1)
    return tf.where(tf.reduce_sum(digits, axis=1) == lowest, lowest, 0)


def _as_int32(number: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.minimum(number, tf.int32.max), tf.int32)
