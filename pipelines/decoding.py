"""THE decode: encoded bytes to RGB, as TensorFlow operations; and what must happen to files that it cannot read.

Training, evaluation, prediction and the exported graph all go through `decode_and_resize`, so that a file has
one score everywhere. The rules, for every stage alike:

- JPEG, PNG, GIF, BMP and WebP are decoded by TensorFlow, from the bytes as found. Transparency is dropped.
- A JPEG is turned upright as its EXIF orientation says. Orientation in other formats is ignored, but for TIFF,
  AVIF and HEIC, which are upright as they come out of Pillow.
- What has 16 bits a sample or several frames, and what TensorFlow cannot read (TIFF, AVIF, HEIC, animated WebP)
  becomes an 8-bit PNG first: the higher byte of each sample, the first frame.
"""

import functools
import io
import os
import threading
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

from pipelines.media.gif import first_image
from pipelines.media.headers import DAMAGED, Header, UnreadableError, read_file, read_header, why_unreadable

JPEG = b"\xff\xd8\xff"  # how every JPEG begins
_TRACING = threading.Lock()
_TOGETHER = 2**22  # bytes of small files that are decoded in one call; a larger one goes alone
_TENSORFLOW_DECODES = ("jpeg", "png", "gif", "bmp", "webp")
_EXIF, _BEFORE_PIXELS = b"Exif\0\0", 2**17  # EXIF lies in a segment before the pixels; no segment is over 64 KiB
_EXIF_BYTES, _EXIF_ENTRIES = 4096, 64  # the orientation is among the first entries of the first directory


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Decode one image.

    Args:
        encoded: scalar string, the bytes of a JPEG, PNG, GIF (first frame), BMP or WebP file.

    Returns:
        uint8 (height, width, 3), RGB. Transparency is dropped, 16 bits are cut to 8, a JPEG is turned upright.

    Raises:
        tf.errors.InvalidArgumentError: the bytes are no such file, or a damaged one.
    """
    image = tf.cond(
        tf.strings.substr(encoded, 0, len(JPEG)) == JPEG,
        lambda: _upright_jpeg(encoded),
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, (None, None, 3))


def decode_and_resize(encoded: tf.Tensor, image_size: int) -> tf.Tensor:
    """Decode images and resize all of each to a square: bilinear, anti-aliased, aspect not kept.

    Args:
        encoded: string (batch,), each the bytes of a file as `decode` takes them.

    Returns:
        uint8 (batch, image_size, image_size, 3), RGB; an image that has this size already is unchanged.

    Raises:
        tf.errors.InvalidArgumentError: one of them is no such file, or a damaged one.
    """

    def each(decoder: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
        return tf.map_fn(
            lambda one: resize(decoder(one), image_size),
            encoded,
            fn_output_signature=tf.TensorSpec((image_size, image_size, 3), tf.uint8),
            parallel_iterations=1,  # batches are decoded beside each other, not the images of one
        )

    # Whether an image is of another kind, or turned, takes as long to ask of each as to decode a small one.
    heads = tf.strings.substr(encoded, 0, _BEFORE_PIXELS)
    parts = tf.strings.split(heads, _EXIF, maxsplit=1).row_lengths()
    is_plain = tf.reduce_all(tf.strings.substr(encoded, 0, len(JPEG)) == JPEG) & tf.reduce_all(parts == 1)
    return tf.cond(is_plain, lambda: each(decode_jpeg), lambda: each(decode))


def decode_those_readable(encoded: tf.Tensor, image_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The same for images of which some may be no image, or damaged, as a server meets them.

    Args:
        encoded: as in `decode_and_resize`.

    Returns:
        Images as there, black in place of those that cannot be decoded, and bool (batch,), whether each could be.
    """
    number = tf.shape(encoded, tf.int64)[0]

    def load(place: tf.Tensor, content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return place, resize(decode(content), image_size)

    # Within a graph only a dataset goes on after an operation has failed. What fails is left out of it.
    found = tf.data.Dataset.from_tensor_slices((tf.range(number), encoded))
    found = found.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False).ignore_errors()
    black = tf.zeros((image_size, image_size, 3), tf.uint8)  # after the last, so that there is at least one
    places, images = (
        found.concatenate(tf.data.Dataset.from_tensors((number, black))).batch(number + 1).get_single_element()
    )
    places = places[:, tf.newaxis]
    shape = tf.concat([[number + 1], tf.shape(images, tf.int64)[1:]], axis=0)
    is_readable = tf.scatter_nd(places, tf.ones_like(places[:, 0], tf.int32), [number + 1])[:-1] > 0
    return tf.scatter_nd(places, images, shape)[:-1], is_readable


def resize(images: tf.Tensor, image_size: int) -> tf.Tensor:
    """Resize all of a decoded image, uint8 (height, width, 3), or of a batch, to squares; see `decode_and_resize`."""
    size = (image_size, image_size)

    def resized() -> tf.Tensor:
        return tf.cast(tf.round(tf.image.resize(images, size, method="bilinear", antialias=True)), tf.uint8)

    # Resizing to the same size changes nothing, and takes longer than decoding.
    is_so = tf.reduce_all(tf.shape(images)[-3:-1] == size)
    return tf.ensure_shape(tf.cond(is_so, lambda: images, resized), (*images.shape[:-3], *size, 3))


def load_image(path: str | os.PathLike, image_size: int) -> np.ndarray:
    """The pixels of a file as a network of that size sees it: uint8 (image_size, image_size, 3), RGB.

    Raises:
        UnreadableError: it cannot be read, is no image, or a damaged one.
    """
    images, errors = load_images([path], image_size)
    if errors:
        raise UnreadableError(errors[0])
    return images[0]


def load_images(paths: Sequence[str | os.PathLike], image_size: int) -> tuple[np.ndarray, dict[int, str]]:
    """The same of many files, some of which may be no image, or damaged; several threads may do so at once.

    Returns:
        uint8 (files, image_size, image_size, 3), black in place of those that cannot be decoded; and of these, by
        their index, why.
    """
    images, errors = np.zeros((len(paths), image_size, image_size, 3), np.uint8), {}
    waiting, size = {}, 0
    for index, path in enumerate(paths):
        try:
            waiting[index] = read_decodable(path)
        except UnreadableError as error:
            errors[index] = str(error)
            continue
        size += len(waiting[index])
        if size > _TOGETHER:
            errors |= _decode_into(images, waiting)
            waiting, size = {}, 0
    return images, errors | _decode_into(images, waiting)


def read_decodable(path: str | os.PathLike) -> bytes:
    """What `decodable` makes of a file.

    Raises:
        UnreadableError: it cannot be read; and as there.
    """
    try:
        return decodable(read_file(path))
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from error


def _decode_into(images: np.ndarray, encoded: dict[int, bytes]) -> dict[int, str]:
    """Fill the places of `images` that have bytes; of those that cannot be decoded, why."""
    if not encoded:
        return {}
    try:
        with _TRACING:  # or each thread would trace a graph of its own
            decoder = _decoder(images.shape[1])
        images[list(encoded)] = decoder(tf.constant(list(encoded.values())))
    except tf.errors.InvalidArgumentError:
        if len(encoded) == 1:
            return {index: why_unreadable(content) for index, content in encoded.items()}
        each, half = list(encoded.items()), len(encoded) // 2  # one of them; the others are not to suffer
        return _decode_into(images, dict(each[:half])) | _decode_into(images, dict(each[half:]))
    return {}


@functools.cache
def _decoder(image_size: int) -> Callable[[tf.Tensor], tf.Tensor]:
    # As a graph: of small images it decodes sixty times as many a second.
    graph = tf.function(lambda encoded: decode_and_resize(encoded, image_size), autograph=False)
    return graph.get_concrete_function(tf.TensorSpec([None], tf.string))


def decodable(encoded: bytes, header: Header | None = None) -> bytes:
    """The same image in bytes that `decode` reads: as they are where it can read them, else a PNG.

    Args:
        encoded: a file's bytes.
        header: what `read_header` said of them, if it was asked before.

    Raises:
        UnreadableError: they are no image, a damaged one, or have samples of more than 16 bits.
    """
    header = header or read_header(encoded)
    if header.bits > 16:
        raise UnreadableError(f"{header.bits}-bit samples in {header.format.upper()}; convert it to 8 or 16 bits")
    if header.format not in _TENSORFLOW_DECODES or (header.format == "webp" and header.frames > 1):
        return _png_by_pillow(encoded)
    if header.bits > 8 or header.frames > 1:
        return _png_by_tensorflow(first_image(encoded))
    return encoded


def _png_by_pillow(encoded: bytes) -> bytes:
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16"):  # convert() would clip it
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            buffer = io.BytesIO()
            Image.fromarray(np.asarray(upright.convert("RGB"))).save(buffer, "PNG")  # pixels alone, no metadata
    except DAMAGED as error:
        raise UnreadableError(why_unreadable(encoded)) from error
    return buffer.getvalue()


def _png_by_tensorflow(encoded: bytes) -> bytes:
    # Not by Pillow: a served model decodes these files itself, and has to see the same pixels.
    try:
        return tf.io.encode_png(decode(tf.constant(encoded))).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise UnreadableError(why_unreadable(encoded)) from error


# --- JPEG ------------------------------------------------------------------------------------------------------


def decode_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """Decode a JPEG as `decode` does, but as stored: what is the quickest check whether it can be decoded."""
    # decode_image has JPEG's fast DCT and no say in it: one grey level of error in the mean, on the very traces we
    # look for. The accurate one equals Pillow's pixels exactly.
    return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")


def _upright_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    image = decode_jpeg(encoded)
    parts = tf.strings.split(tf.strings.substr(encoded, 0, _BEFORE_PIXELS), _EXIF, maxsplit=1)
    return tf.cond(tf.size(parts) > 1, lambda: _upright(image, _orientation(parts[0], parts[1])), lambda: image)


def _orientation(before: tf.Tensor, tiff: tf.Tensor) -> tf.Tensor:
    """EXIF's orientation, int32 from 1 to 8, of the TIFF structure in a JPEG segment; 1 where there is none."""
    content = tf.cast(tf.io.decode_raw(tiff, tf.uint8, fixed_length=_EXIF_BYTES), tf.int32)
    little_endian = content[0] == ord("I")

    def number(at: tf.Tensor) -> tf.Tensor:
        """The 16-bit numbers that begin at these places."""
        first, second = tf.gather(content, at), tf.gather(content, at + 1)
        return tf.where(little_endian, second * 256 + first, first * 256 + second)

    # The directory's offset has 32 bits, of which one so near uses 16.
    directory = tf.minimum(number(tf.where(little_endian, 4, 6)), _EXIF_BYTES - 2)
    index = tf.range(_EXIF_ENTRIES)
    entries = tf.minimum(directory + 2 + 12 * index, _EXIF_BYTES - 12)
    found = (number(entries) == 0x0112) & (index < number(directory))
    value = tf.reduce_max(tf.where(found, number(entries + 8), 0))
    in_segment = tf.strings.substr(before, -4, 2) == b"\xff\xe1"  # the APP1 marker, then the segment's length
    return tf.where(in_segment & (value >= 1) & (value <= 8), value, 1)


def _upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Undo the eight ways of holding a camera; `orientation` as EXIF numbers them."""

    def is_one_of(*numbers: int) -> tf.Tensor:
        return tf.reduce_any(orientation == tf.constant(numbers))

    image = tf.cond(is_one_of(5, 6, 7, 8), lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    image = tf.cond(is_one_of(3, 4, 7, 8), lambda: image[::-1], lambda: image)
    return tf.cond(is_one_of(2, 3, 6, 7), lambda: image[:, ::-1], lambda: image)
