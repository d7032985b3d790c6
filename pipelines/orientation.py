"""The EXIF orientation of a JPEG, as TensorFlow operations."""

import tensorflow as tf

from pipelines.media.headers import JPEG_SIGNATURE

EXIF, MAX_HEADER_BYTES = b"Exif\0\0", 2**17  # EXIF precedes the pixels, in a segment of 64 KiB at most
_MAX_TIFF_BYTES, _MAX_TIFF_ENTRIES = 4096, 64  # the orientation is among the first entries of the first directory
UPRIGHT = 1
_TRANSPOSED, _UPSIDE_DOWN, _MIRRORED = (5, 6, 7, 8), (3, 4, 7, 8), (2, 3, 6, 7)  # undone in this order


def is_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """Whether files, of any shape, are JPEGs, by their first bytes."""
    return tf.strings.substr(encoded, 0, len(JPEG_SIGNATURE)) == JPEG_SIGNATURE


def jpeg_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation of a JPEG.

    Args:
        encoded: scalar string, the bytes of the file.

    Returns:
        Scalar int32 from 1 to 8; 1 (upright) if it has none.
    """
    parts = tf.strings.split(tf.strings.substr(encoded, 0, MAX_HEADER_BYTES), EXIF, maxsplit=1)
    return tf.cond(tf.size(parts) > 1, lambda: _orientation(parts[0], parts[1]), lambda: tf.constant(UPRIGHT))


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


def _orientation(before: tf.Tensor, tiff: tf.Tensor) -> tf.Tensor:
    """Read the EXIF orientation from the TIFF structure in a JPEG segment.

    Args:
        before: scalar string, the file up to the EXIF identifier.
        tiff: scalar string, the file after it.

    Returns:
        Scalar int32 from 1 to 8; 1 (upright) if there is none.
    """
    content = tf.cast(tf.io.decode_raw(tiff, tf.uint8, fixed_length=_MAX_TIFF_BYTES), tf.int32)
    little_endian = content[0] == ord("I")

    def uint16(at: tf.Tensor) -> tf.Tensor:
        first, second = tf.gather(content, at), tf.gather(content, at + 1)
        return tf.where(little_endian, second * 256 + first, first * 256 + second)

    # The offset of the directory has 32 bits, of which the lower 16 suffice.
    directory = tf.minimum(uint16(tf.where(little_endian, 4, 6)), _MAX_TIFF_BYTES - 2)
    index = tf.range(_MAX_TIFF_ENTRIES)
    entries = tf.minimum(directory + 2 + 12 * index, _MAX_TIFF_BYTES - 12)
    is_orientation = (uint16(entries) == 0x0112) & (index < uint16(directory))
    value = tf.reduce_max(tf.where(is_orientation, uint16(entries + 8), 0))
    in_segment = tf.strings.substr(before, -4, 2) == b"\xff\xe1"  # the APP1 marker; the segment's length follows it
    return tf.where(in_segment & (value >= 1) & (value <= 8), value, 1)
