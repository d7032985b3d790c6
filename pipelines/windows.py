"""Windows: square parts of an image at its native resolution, never scaled.

Resizing blurs the traces that a camera or a generator leaves in single pixels. A window keeps them.

- An image smaller than a window is continued at its right and lower edge by mirroring. The edge is not repeated, so
  that rows and columns keep their parity, on which the traces of mosaics and strided layers depend.
- For scoring, windows are taken from an even grid over the image: the coarsest that covers it or, where that has
  fewer windows than are wanted, the coarsest whose neighbours are at most half a window apart. Of these the windows
  with the most texture are taken, as flat, clipped and blurred areas hold no traces.
- Texture is the energy of the second differences of the green channel, along sixteen rows of each window. A
  difference below `_FLAT` counts as none, one above `_LOUD` as that, so that a few sharp edges do not outweigh a
  textured surface. It is summed in integers, so that every machine takes the same windows.
"""

from collections.abc import Callable

import tensorflow as tf

from pipelines.decoding import are_plain_jpegs, decode, decode_turned
from pipelines.orientation import is_jpeg, jpeg_orientations, stored_part, upright, upright_shape

_SAMPLED_ROWS = 16  # of a window, for its texture
_FLAT, _LOUD = 3, 16  # grey levels


# --- one window at a random place, for training ----------------------------------------------------------------


def decode_random_windows(encoded: tf.Tensor, positions: tf.Tensor, size: int) -> tf.Tensor:
    """Decode windows of each image of a batch; where it is one of a JPEG, only the part that it takes.

    Args:
        encoded: string (batch,), each the bytes of a file that `decode` accepts.
        positions: float32 (batch, n, 2), from 0 to below 1: which of the rows and columns where a window can begin.
        size: height and width of the windows, in pixels.

    Returns:
        uint8 (batch, n, size, size, 3), RGB; equal to these parts of what `decode` gives.

    Raises:
        tf.errors.InvalidArgumentError: one of them is not such a file, or a damaged one.
    """
    number, orientations = positions.shape[1], jpeg_orientations(encoded)

    def decode_each(decoder: Callable[..., tf.Tensor]) -> tf.Tensor:
        return tf.map_fn(
            lambda item: decoder(*item, size),
            (encoded, positions, orientations),
            fn_output_signature=tf.TensorSpec((number, size, size, 3), tf.uint8),
            parallel_iterations=1,  # whole batches are decoded in parallel, not the images of one
        )

    if number > 1:
        return decode_each(_of_decoded)  # once; decoding parts of a JPEG again takes as long after a few of them
    are_plain = are_plain_jpegs(encoded, orientations)
    return tf.cond(are_plain, lambda: decode_each(_of_plain_jpeg), lambda: decode_each(_of_any))


def _of_plain_jpeg(encoded: tf.Tensor, positions: tf.Tensor, _: tf.Tensor, size: int) -> tf.Tensor:
    shape = tf.io.extract_jpeg_shape(encoded)[:2]
    extent = tf.minimum(shape, size)
    part = _crop_jpeg(encoded, shape, _corner(positions[0], shape, extent), extent)
    return _continue(part, size)[tf.newaxis]


def _of_any(encoded: tf.Tensor, positions: tf.Tensor, orientation: tf.Tensor, size: int) -> tf.Tensor:
    return tf.cond(
        is_jpeg(encoded),
        lambda: _of_jpeg(encoded, positions, orientation, size),
        lambda: _of_decoded(encoded, positions, orientation, size),
    )


def _of_jpeg(encoded: tf.Tensor, positions: tf.Tensor, orientation: tf.Tensor, size: int) -> tf.Tensor:
    stored = tf.io.extract_jpeg_shape(encoded)[:2]
    shape = upright_shape(stored, orientation)
    extent = tf.minimum(shape, size)
    corner, extent = stored_part(_corner(positions[0], shape, extent), extent, shape, orientation)
    part = upright(_crop_jpeg(encoded, stored, corner, extent), orientation)
    return _continue(part, size)[tf.newaxis]


def _of_decoded(encoded: tf.Tensor, positions: tf.Tensor, orientation: tf.Tensor, size: int) -> tf.Tensor:
    image = decode_turned(encoded, orientation)
    shape = tf.shape(image)[:2]
    extent = tf.minimum(shape, size)
    corners = [_corner(position, shape, extent) for position in tf.unstack(positions)]
    return tf.stack([_continue(_cut(image, corner, size), size) for corner in corners])


def _corner(position: tf.Tensor, shape: tf.Tensor, extent: tf.Tensor) -> tf.Tensor:
    """The first row and column of a window of that extent, int32 (2,)."""
    last = shape - extent
    return tf.minimum(tf.cast(position * tf.cast(last + 1, tf.float32), tf.int32), last)


def _crop_jpeg(encoded: tf.Tensor, shape: tf.Tensor, corner: tf.Tensor, extent: tf.Tensor) -> tf.Tensor:
    """A part of a JPEG of that shape, as it is stored; equal to the same part of `decode_jpeg`."""
    # Where chroma is subsampled, the outermost columns of a crop lack the neighbours from which libjpeg interpolates
    # them; so a column more on each side is decoded, and cut off.
    first, end = tf.maximum(corner[1] - 1, 0), tf.minimum(corner[1] + extent[1] + 1, shape[1])
    part = tf.stack([corner[0], first, extent[0], end - first])
    image = tf.image.decode_and_crop_jpeg(encoded, part, channels=3, dct_method="INTEGER_ACCURATE")
    return image[:, corner[1] - first :][:, : extent[1]]


# --- the windows that are scored -------------------------------------------------------------------------------


def decode_windows(encoded: tf.Tensor, size: int, count: int) -> tf.Tensor:
    """Decode an image and cut the windows by which it is scored; as `decode` and `windows`."""
    return windows(decode(encoded), size, count)


def windows(image: tf.Tensor, size: int, count: int) -> tf.Tensor:
    """Cut the windows by which an image is scored.

    Args:
        image: uint8 (height, width, 3), RGB.
        size: height and width of the windows, in pixels.
        count: how many are wanted.

    Returns:
        uint8 (n, size, size, 3), from the upper left to the lower right: as many as wanted, or all of the grid.
    """
    return tf.map_fn(
        lambda corner: _continue(_cut(image, corner, size), size),
        corners(image, size, count),
        fn_output_signature=tf.TensorSpec((size, size, 3), tf.uint8),
        parallel_iterations=1,
    )


def corners(image: tf.Tensor, size: int, count: int) -> tf.Tensor:
    """The first row and column of each of the `windows` of an image, int32 (n, 2)."""
    rows, columns = _grid(tf.shape(image)[:2], size, count)
    texture = tf.reshape(_texture(image, rows, columns, size), [-1])
    _, chosen = tf.math.top_k(texture, tf.minimum(count, tf.size(texture)))  # of equal ones the first
    grid = tf.reshape(tf.stack(tf.meshgrid(rows, columns, indexing="ij"), axis=-1), (-1, 2))
    return tf.gather(grid, tf.sort(chosen))


def _grid(shape: tf.Tensor, size: int, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The first rows and the first columns of a grid of windows, int32, each ascending and without repetition."""
    last = tf.maximum(shape - size, 0)
    covering = 1 + _ceiling(last, size)
    overlapping = 1 + _ceiling(2 * last, size)
    number = tf.where(tf.reduce_prod(tf.cast(covering, tf.int64)) < count, overlapping, covering)
    return _spread(last[0], number[0]), _spread(last[1], number[1])


def _ceiling(numerator: tf.Tensor, denominator: int) -> tf.Tensor:
    return -(-numerator // denominator)


def _spread(last: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """So many integers from 0 to `last`, evenly spread; `number` is at most `last` + 1."""
    steps = tf.cast(tf.maximum(number - 1, 1), tf.int64)
    return tf.cast(tf.range(tf.cast(number, tf.int64)) * tf.cast(last, tf.int64) // steps, tf.int32)


def _texture(image: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor, size: int) -> tf.Tensor:
    """The texture of each window of a grid, int64 (rows, columns)."""
    step = max(1, size // _SAMPLED_ROWS)
    sampled = tf.gather(image, tf.range(0, tf.shape(image)[0], step))  # whole rows first: seven times as fast
    green = tf.cast(sampled[:, :, 1], tf.int16)
    differences = tf.abs(2 * green[:, 1:-1] - green[:, :-2] - green[:, 2:])
    energy = tf.square(tf.minimum(differences, _LOUD)) * tf.cast(differences >= _FLAT, tf.int16)
    height, width = tf.unstack(tf.shape(energy))
    # A difference belongs to the windows that hold the three pixels of which it is. Products and sums are integers
    # below 2^24, which floats hold exactly.
    column = tf.range(width)[:, tf.newaxis]
    is_inside = (column >= columns) & (column < columns + size - 2)
    sums = tf.matmul(tf.cast(energy, tf.float32), tf.cast(is_inside, tf.float32))
    sums = tf.pad(tf.cumsum(tf.cast(sums, tf.int64), axis=0), ((1, 0), (0, 0)))
    first, end = _ceiling(rows, step), tf.minimum(_ceiling(rows + size, step), height)
    return tf.gather(sums, end) - tf.gather(sums, first)


# --- cutting ---------------------------------------------------------------------------------------------------


def _cut(image: tf.Tensor, corner: tf.Tensor, size: int) -> tf.Tensor:
    """The part of an image from a corner on, at most `size` pixels a side."""
    return image[corner[0] : corner[0] + size, corner[1] : corner[1] + size]


def _continue(image: tf.Tensor, size: int) -> tf.Tensor:
    """Continue an image of at most `size` pixels a side by mirroring, to uint8 (size, size, 3)."""

    def continued() -> tf.Tensor:
        rows, columns = (_mirrored(size, length) for length in tf.unstack(tf.shape(image)[:2]))
        return tf.gather(tf.gather(image, rows), columns, axis=1)

    has_size = tf.reduce_all(tf.shape(image)[:2] == size)
    return tf.ensure_shape(tf.cond(has_size, lambda: image, continued), (size, size, 3))


def _mirrored(size: int, length: tf.Tensor) -> tf.Tensor:
    """Where the first `size` places of a mirrored row of that length lie in it: 0 1 2 1 0 1 2 for 3."""
    period = tf.maximum(2 * (length - 1), 1)
    place = tf.range(size) % period
    return tf.where(place < length, place, period - place)
