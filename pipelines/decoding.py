"""The one decoder: encoded bytes to RGB, as TensorFlow operations, and the conversion of files that it cannot read.

Training, evaluation, prediction and the exported graph all decode with `decode` or, where nothing has to be turned
upright, `decode_jpeg`, and resize with `resize`, so that a file has the same score everywhere. `decode_and_resize`
does both for a batch, `try_decode` in the exported graph. The rules for all of them:

- JPEG, PNG, GIF, WebP and BMP of 24 or 32 bits are decoded by TensorFlow, from the bytes of the file. Transparency is
  dropped.
- A JPEG is turned upright as EXIF says, or XMP where EXIF does not (`orientation.py`). Orientation in other formats
  is ignored, except for TIFF, AVIF and HEIC, which Pillow turns upright.
- Images with 16 bits per sample or several frames, and kinds that TensorFlow cannot read (TIFF, AVIF, HEIC, animated
  WebP) or reads wrongly (BMP with a palette or channel masks, GIF with transparency or smaller than its screen, CMYK
  JPEG without an Adobe marker), are converted to an 8-bit PNG first: the higher byte of each sample, the first frame.
  An exported graph refuses those that TensorFlow reads wrongly.
- JPEG XL, JPEG with 12 bits or without loss, and TIFF with 32 bits or floating-point samples are refused everywhere.
"""

import io
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from pipelines.media import pillow, tiff
from pipelines.media.gif import first_image
from pipelines.media.gif import is_plain as is_plain_gif
from pipelines.media.headers import (
    JPEG_SIGNATURE,
    JPEG_XL_SIGNATURES,
    Header,
    UnreadableError,
    image_format,
    read_file,
    read_header,
    unreadable_reason,
    unsupported_kind,
)
from pipelines.media.jpeg import ADOBE_MARKER, has_inverted_inks
from pipelines.orientation import UPRIGHT, is_jpeg, jpeg_orientations, upright

_BMP_HEAD = 34  # the bytes up to the compression
_WEBP_HEAD, _WEBP_ANIMATION = 21, np.uint8(2)  # the bytes up to the flags of an extended WebP; one of the flags


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Decode one image.

    Args:
        encoded: scalar string, the bytes of a JPEG, PNG, GIF (first frame), BMP or WebP file.

    Returns:
        uint8 (height, width, 3), RGB: without transparency, 16 bits reduced to 8, a JPEG turned upright.

    Raises:
        tf.errors.InvalidArgumentError: the bytes are not such a file, or a damaged one.
    """
    return decode_turned(encoded, jpeg_orientations(encoded[tf.newaxis])[0])


def decode_turned(encoded: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """`decode`, where the orientation is known; those of many images are read faster at once."""
    image = tf.cond(
        is_jpeg(encoded),
        lambda: _decode_upright_jpeg(encoded, orientation),
        lambda: tf.cond(
            _is_webp(encoded),
            # Of WebP, TensorFlow gives the channels that there are, and refuses to give another number of them.
            lambda: tf.io.decode_image(encoded, channels=0, expand_animations=False)[..., :3],
            lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
        ),
    )
    return tf.ensure_shape(image, (None, None, 3))


def _is_webp(encoded: tf.Tensor) -> tf.Tensor:
    return (tf.strings.substr(encoded, 0, 4) == b"RIFF") & (tf.strings.length(encoded) > _WEBP_HEAD)


def decode_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """Decode a JPEG as `decode` does but without turning it, which is the quickest check that it can be decoded."""
    # decode_image offers no choice of DCT and takes the fast one: an error of one grey level on average, on the very
    # traces we look for. The accurate one equals Pillow's pixels exactly.
    return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")


def _decode_upright_jpeg(encoded: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    image = decode_jpeg(encoded)
    return tf.cond(orientation == UPRIGHT, lambda: image, lambda: upright(image, orientation))


def decode_and_resize(encoded: tf.Tensor, image_size: int) -> tf.Tensor:
    """Decode a batch of images and resize each to a square: bilinear, anti-aliased, ignoring the aspect ratio.

    Args:
        encoded: string (batch,), each the bytes of a file that `decode` accepts.
        image_size: height and width of the result, in pixels.

    Returns:
        uint8 (batch, image_size, image_size, 3), RGB; images that already have this size are unchanged.

    Raises:
        tf.errors.InvalidArgumentError: one of them is not such a file, or a damaged one.
    """

    def decode_each(decoder: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> tf.Tensor:
        return tf.map_fn(
            lambda item: resize(decoder(*item), image_size),
            (encoded, orientations),
            fn_output_signature=tf.TensorSpec((image_size, image_size, 3), tf.uint8),
            parallel_iterations=1,  # whole batches are decoded in parallel, not the images of one
        )

    def decode_plain(content: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        return decode_jpeg(content)

    orientations = jpeg_orientations(encoded)
    are_plain = are_plain_jpegs(encoded, orientations)
    return tf.cond(are_plain, lambda: decode_each(decode_plain), lambda: decode_each(decode_turned))


def are_plain_jpegs(encoded: tf.Tensor, orientations: tf.Tensor) -> tf.Tensor:
    """Whether all files, string (batch,), are JPEGs that are stored upright.

    To ask each for its format and orientation takes as long as decoding a small one.
    """
    return tf.reduce_all(is_jpeg(encoded) & (orientations == UPRIGHT))


def try_decode(encoded: tf.Tensor, see: Callable[[tf.Tensor], Any], unseen: Any) -> tuple[Any, tf.Tensor]:
    """Decode batches that may hold damaged files or no images at all, as a server receives them.

    Args:
        encoded: string (batch,). Files that TensorFlow would read wrongly, and JPEG XL, count as undecodable.
        see: from a decoded image, uint8 (height, width, 3), to what a network sees of it, a structure of tensors.
        unseen: the same structure, for files that cannot be decoded.

    Returns:
        What is seen of each, with the axis of the batch in front; and int32 (batch,), the shorter side of each, in
        pixels, 0 where decoding failed.
    """
    number = tf.shape(encoded, tf.int64)[0]

    def load(index: tf.Tensor, content: tf.Tensor, orientation: tf.Tensor) -> tuple[tf.Tensor, Any, tf.Tensor]:
        # Nothing is no image either, so that its decoding fails.
        shown = tf.cond(_is_shown_rightly(content), lambda: content, lambda: tf.constant(b""))
        image = decode_turned(shown, orientation)
        return index, see(image), tf.reduce_min(tf.shape(image)[:2])

    # Inside a graph only a dataset can continue after a failed operation. It drops the elements that fail.
    decoded = tf.data.Dataset.from_tensor_slices((tf.range(number), encoded, jpeg_orientations(encoded)))
    decoded = decoded.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False).ignore_errors()
    # One more element, so that the batch is never empty.
    decoded = decoded.concatenate(tf.data.Dataset.from_tensors((number, unseen, 0)))
    indices, seen, sides = decoded.batch(number + 1).get_single_element()
    # Where each file's element is; those that were dropped get the additional one.
    last = tf.shape(indices)[0] - 1
    positions = tf.tensor_scatter_nd_update(tf.fill([number + 1], last), indices[:, tf.newaxis], tf.range(last + 1))[
        :-1
    ]
    return tf.nest.map_structure(lambda values: tf.gather(values, positions), (seen, sides))


def _is_shown_rightly(encoded: tf.Tensor) -> tf.Tensor:
    """Whether TensorFlow decodes the first frame as viewers show it, and `decodable` reads that kind of file at all.

    It takes indices of a BMP's palette for grey levels and ignores channel masks, takes CMYK without an Adobe marker
    for inverted, and shows a GIF's screen and transparent pixels black. An animated WebP comes out wrong, or corrupts
    the memory of the process.

    Raises:
        tf.errors.InvalidArgumentError: a damaged file.
    """

    def begins(*signatures: bytes) -> tf.Tensor:
        return tf.reduce_any([tf.strings.substr(encoded, 0, len(magic)) == magic for magic in signatures])

    cases = [
        (begins(JPEG_SIGNATURE), lambda: _is_plain_jpeg(encoded)),
        (begins(b"GIF8"), lambda: _is_plain_gif(encoded)),
        (begins(b"BM") & (tf.strings.length(encoded) > _BMP_HEAD), lambda: _is_plain_bmp(encoded)),
        (_is_webp(encoded), lambda: _is_still_webp(encoded)),
        (begins(*JPEG_XL_SIGNATURES), lambda: tf.constant(False)),
    ]
    return tf.case(cases, default=lambda: tf.constant(True))


def _is_plain_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    has_inks = tf.io.extract_jpeg_shape(encoded)[2] == 4
    return tf.cond(
        has_inks,
        lambda: tf.size(tf.strings.split(encoded, ADOBE_MARKER, maxsplit=1)) > 1,
        lambda: tf.constant(True),
    )


def _is_plain_bmp(encoded: tf.Tensor) -> tf.Tensor:
    """Whether it has 24 or 32 bits, no compression, no masks, and not the header of OS/2."""
    is_old = tf.strings.substr(encoded, 14, 4) == b"\x0c\0\0\0"
    bits, compression = tf.strings.substr(encoded, 28, 2), tf.strings.substr(encoded, 30, 4)
    return ~is_old & ((bits == b"\x18\0") | (bits == b"\x20\0")) & (compression == b"\0\0\0\0")


def _is_still_webp(encoded: tf.Tensor) -> tf.Tensor:
    flags = tf.io.decode_raw(tf.strings.substr(encoded, 20, 1), tf.uint8)[0]
    is_extended = tf.strings.substr(encoded, 12, 4) == b"VP8X"
    return ~(is_extended & (tf.bitwise.bitwise_and(flags, _WEBP_ANIMATION) > 0))


def _is_plain_gif(encoded: tf.Tensor) -> tf.Tensor:
    """As `gif.is_plain`, in a graph."""
    content = tf.cast(tf.io.decode_raw(encoded, tf.uint8), tf.int32)
    size, no_bytes = content[6:10], tf.zeros(4, tf.int32)

    def after_blocks(at: tf.Tensor) -> tf.Tensor:
        (end,) = tf.while_loop(lambda at: tf.gather(content, at) > 0, lambda at: (at + 1 + content[at],), (at,))
        return end + 1

    def after_extension(at: tf.Tensor, is_opaque: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        is_transparent = (content[at + 1] == 0xF9) & (content[at + 3] % 2 == 1)
        return after_blocks(at + 2), is_opaque & ~is_transparent

    flags = content[10]
    table_bytes = tf.where(flags >= 0x80, 3 * tf.bitwise.left_shift(2, flags % 8), 0)
    start = (13 + table_bytes, tf.constant(True))
    at, is_opaque = tf.while_loop(lambda at, _: tf.gather(content, at) == 0x21, after_extension, start)
    covers_screen = tf.reduce_all(content[at + 1 : at + 9] == tf.concat([no_bytes, size], 0))
    return is_opaque & (content[at] == 0x2C) & covers_screen


def resize(images: tf.Tensor, image_size: int) -> tf.Tensor:
    """Resize a decoded image, uint8 (height, width, 3), or a batch of them, as `decode_and_resize` does."""
    size = (image_size, image_size)

    def resized() -> tf.Tensor:
        return tf.cast(tf.round(tf.image.resize(images, size, method="bilinear", antialias=True)), tf.uint8)

    # Resizing to the same size changes nothing but takes longer than decoding.
    has_size = tf.reduce_all(tf.shape(images)[-3:-1] == size)
    return tf.ensure_shape(tf.cond(has_size, lambda: images, resized), (*images.shape[:-3], *size, 3))


# --- files and their conversion ----------------------------------------------------------------------------------


def read_decodable(path: str | os.PathLike) -> bytes:
    """Read a file, converted by `decodable` where necessary.

    Raises:
        UnreadableError: the file cannot be read; or as `decodable`.
    """
    try:
        return decodable(read_file(path))
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from error


def decodable(encoded: bytes, header: Header | None = None) -> bytes:
    """Return the image in a form that `decode` reads: unchanged where possible, otherwise as a PNG.

    Args:
        encoded: the bytes of a file.
        header: the result of `read_header`, if it is at hand.

    Raises:
        UnreadableError: this is not an image, a damaged one, or of a kind that is not read.
    """
    header = header or read_header(encoded)
    if reason := unsupported_kind(encoded):
        raise UnreadableError(reason)
    if not _can_tensorflow_read(encoded, header):
        return _png_by_pillow(encoded)
    if header.bits > 8 or header.frames > 1:
        return _png_by_tensorflow(first_image(encoded))
    return encoded


def _can_tensorflow_read(encoded: bytes, header: Header) -> bool:
    """Whether TensorFlow reads the first frame, and as viewers show it; as `_is_shown_rightly` tells in a graph."""
    if header.format == "jpeg":
        return not has_inverted_inks(encoded)
    if header.format == "gif":
        return is_plain_gif(encoded)
    if header.format == "bmp":
        return _is_plain_bmp(tf.constant(encoded[: _BMP_HEAD + 1])).numpy()
    return header.format == "png" or (header.format == "webp" and header.frames == 1)


def _png_by_pillow(encoded: bytes) -> bytes:
    try:
        with pillow.open_image(encoded) as image:
            turned = pillow.upright(image, image_format(encoded))
            if turned.mode.startswith("I;16"):  # convert() would clip it
                turned = Image.fromarray(_eight_bits(np.asarray(turned), encoded))
            buffer = io.BytesIO()
            Image.fromarray(np.asarray(turned.convert("RGB"))).save(buffer, "PNG")  # fromarray drops the metadata
    except pillow.PILLOW_ERRORS as error:
        raise UnreadableError(unreadable_reason(encoded)) from error
    return buffer.getvalue()


def _eight_bits(samples: np.ndarray, encoded: bytes) -> np.ndarray:
    """The higher eight of 12 or 16 bits, light where the image is; Pillow ignores that a TIFF may call white 0."""
    tags = tiff.tags(encoded) if image_format(encoded) == "tiff" else {}
    (bits, *_) = tags.get(tiff.BITS_PER_SAMPLE, (16,))
    shades = (samples >> (bits - 8)).astype(np.uint8)
    return 255 - shades if tags.get(tiff.PHOTOMETRIC) == (tiff.WHITE_IS_ZERO,) else shades


def _png_by_tensorflow(encoded: bytes) -> bytes:
    # Not by Pillow: a served model decodes these files itself, and must see the same pixels.
    try:
        return tf.io.encode_png(decode(tf.constant(encoded))).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise UnreadableError(unreadable_reason(encoded)) from error
