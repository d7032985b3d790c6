"""How a network sees an image: `Squash`, resized to one square, or `Windows`, parts of it at native resolution.

A view turns images into pixels. Those of a batch of n images are, for `Squash`, uint8 (n, size, size, 3), RGB; for
`Windows`, `Windowed`. Code that carries pixels along treats both as structures of arrays, by `keras.tree`.
"""

import functools
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from pipelines import windows
from pipelines.decoding import decode, decode_and_resize, read_decodable, resize, try_decode
from pipelines.media.headers import UnreadableError, unreadable_reason

_trace_lock = threading.Lock()
_BATCH_BYTES = 2**22  # of files that are decoded in one call; larger files go alone


class Windowed(NamedTuple):
    """The windows of n images.

    Attributes:
        pixels: uint8 (n, parts, size, size, 3), RGB; black behind the last window of an image.
        counts: int32 (n,), how many windows each image has, at least 1; with `Windows.whole` one more.
    """

    pixels: tf.Tensor
    counts: tf.Tensor


@dataclass(frozen=True)
class Squash:
    """The whole image, resized to a square."""

    size: int
    whole: ClassVar[bool] = False  # beside windows

    @property
    def parts(self) -> int:
        """The largest number of squares that a network sees of an image."""
        return 1

    def of_files(self, encoded: tf.Tensor) -> tf.Tensor:
        """Decode a batch, string (n,); see `decoding.decode_and_resize`."""
        return decode_and_resize(encoded, self.size)

    def of_images(self, images: tf.Tensor) -> tf.Tensor:
        """The view of decoded images of one size, uint8 (n, height, width, 3)."""
        return resize(images, self.size)

    def of_image(self, image: tf.Tensor) -> tf.Tensor:
        """The view of a decoded image, uint8 (height, width, 3), without the axis of the batch."""
        return resize(image, self.size)

    def black(self, shape: tuple[int, ...]) -> np.ndarray:
        """Pixels of black images, in place of the axis of the batch with axes of that shape."""
        return np.zeros((*shape, self.size, self.size, 3), np.uint8)


@dataclass(frozen=True)
class Windows:
    """Windows of an image at native resolution, those by which it is scored; see `windows.windows`.

    Args:
        size: height and width of a window, in pixels.
        count: how many are wanted.
        whole: before them comes the whole image, squashed.
    """

    size: int
    count: int
    whole: bool = False

    @property
    def parts(self) -> int:
        """The largest number of squares that a network sees of an image."""
        return self.count + self.whole

    def of_files(self, encoded: tf.Tensor) -> Windowed:
        """Decode a batch, string (n,), and cut its windows."""
        return self._of_each(lambda content: self.of_image(decode(content)), encoded)

    def of_images(self, images: tf.Tensor) -> Windowed:
        """The view of decoded images of one size, uint8 (n, height, width, 3)."""
        return self._of_each(self.of_image, images)

    def _of_each(self, see: Callable[[tf.Tensor], Windowed], values: tf.Tensor) -> Windowed:
        pixels = tf.TensorSpec((self.parts, self.size, self.size, 3), tf.uint8)
        signature = Windowed(pixels, tf.TensorSpec((), tf.int32))
        # Whole batches are decoded in parallel, not the images of one.
        return tf.map_fn(see, values, fn_output_signature=signature, parallel_iterations=1)

    def of_image(self, image: tf.Tensor) -> Windowed:
        """The view of a decoded image, uint8 (height, width, 3), without the axis of the batch."""
        pixels = windows.windows(image, self.size, self.count)
        if self.whole:
            pixels = tf.concat([resize(image, self.size)[tf.newaxis], pixels], axis=0)
        count = tf.shape(pixels)[0]
        padded = tf.pad(pixels, ((0, self.parts - count), (0, 0), (0, 0), (0, 0)))
        return Windowed(tf.ensure_shape(padded, (self.parts, self.size, self.size, 3)), count)

    def random(self, encoded: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
        """Decode a batch, string (n,), to windows at random places, for training.

        Args:
            positions: float32 (n, m, 2); see `windows.decode_random_windows`.

        Returns:
            uint8 (n, m, size, size, 3), or (n, 1 + m, size, size, 3) with the whole image first.
        """
        pixels = windows.decode_random_windows(encoded, positions, self.size)
        if not self.whole:
            return pixels
        return tf.concat([decode_and_resize(encoded, self.size)[:, tf.newaxis], pixels], axis=1)

    def black(self, shape: tuple[int, ...]) -> Windowed:
        """Pixels of black images, in place of the axis of the batch with axes of that shape."""
        pixels = np.zeros((*shape, self.parts, self.size, self.size, 3), np.uint8)
        return Windowed(pixels, np.full(shape, 1 + self.whole, np.int32))


View = Squash | Windows
Pixels: TypeAlias = tf.Tensor | np.ndarray | Windowed  # of a batch


# --- files -----------------------------------------------------------------------------------------------------


def load_images(paths: Sequence[str | os.PathLike], view: View) -> tuple[Pixels, dict[int, str]]:
    """Load many files as a network sees them, tolerating unreadable ones. Thread-safe.

    Returns:
        The pixels of as many images, black where a file cannot be decoded; and the reasons for these, by index.
    """
    images = view.black((len(paths),))
    errors: dict[int, str] = {}
    pending: dict[int, bytes] = {}
    pending_bytes = 0
    for index, path in enumerate(paths):
        try:
            pending[index] = read_decodable(path)
        except UnreadableError as error:
            errors[index] = str(error)
            continue
        pending_bytes += len(pending[index])
        if pending_bytes > _BATCH_BYTES:
            errors |= _decode_into(images, pending, view)
            pending, pending_bytes = {}, 0
    return images, errors | _decode_into(images, pending, view)


def load_image(path: str | os.PathLike, image_size: int) -> np.ndarray:
    """Load a file, resized to a square: uint8 (image_size, image_size, 3), RGB.

    Raises:
        UnreadableError: the file cannot be read or decoded.
    """
    images, errors = load_images([path], Squash(image_size))
    if errors:
        raise UnreadableError(errors[0])
    return np.asarray(images)[0]


def _decode_into(images: Pixels, encoded: dict[int, bytes], view: View) -> dict[int, str]:
    """Decode the files of some indices into `images`, and return the reasons for those that fail."""
    if not encoded:
        return {}
    try:
        with _trace_lock:  # otherwise each thread would trace a graph of its own
            decoder = _decoder(view)
        decoded = decoder(tf.constant(list(encoded.values())))
    except tf.errors.InvalidArgumentError:
        if len(encoded) == 1:
            return {index: unreadable_reason(content) for index, content in encoded.items()}
        items, half = list(encoded.items()), len(encoded) // 2  # bisect, so that a bad file does not fail the others
        parts = dict(items[:half]), dict(items[half:])
        return _decode_into(images, parts[0], view) | _decode_into(images, parts[1], view)
    for values, some in zip(tf.nest.flatten(images), tf.nest.flatten(decoded), strict=True):
        values[list(encoded)] = some
    return {}


@functools.cache
def _decoder(view: View) -> Callable[[tf.Tensor], Pixels]:
    # As a graph it decodes sixty times as many small images per second.
    return tf.function(view.of_files, autograph=False).get_concrete_function(tf.TensorSpec([None], tf.string))


def try_view(encoded: tf.Tensor, view: View) -> tuple[Pixels, tf.Tensor]:
    """Decode batches as a network sees them, of which some may not be images; see `decoding.try_decode`."""
    return try_decode(encoded, view.of_image, tf.nest.map_structure(tf.constant, view.black(())))


def stack(pixels: Sequence[Pixels]) -> Pixels:
    """Stack pixels of the same shape along a new first axis, in arrays."""
    return tf.nest.map_structure(lambda *values: np.stack(values), *pixels)


def flat(pixels: Windowed) -> tf.Tensor:
    """The windows of all images in order, uint8 (windows, size, size, 3)."""
    return tf.boolean_mask(pixels.pixels, tf.sequence_mask(pixels.counts, tf.shape(pixels.pixels)[1]))
