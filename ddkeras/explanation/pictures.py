"""What is explained of an image: the squares that a network sees of it, and where they lie in the whole picture."""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from PIL import Image

from pipelines.decoding import decode, read_decodable
from pipelines.media.headers import UnreadableError, unreadable_reason
from pipelines.views import View, Windows, load_image
from pipelines.windows import corners

MAX_SIDE = 1024  # of the whole picture as it is kept, pixels: heatmaps are no finer than that


@dataclass(frozen=True)
class Picture:
    """An image to be explained.

    Args:
        whole: uint8 (height, width, 3), RGB; large images reduced to `MAX_SIDE`.
        squares: uint8 (n, size, size, 3), RGB, what the network sees.
        boxes: float64 (n, 4), where each square lies: first row and column, height and width, in pixels of `whole`.
    """

    whole: np.ndarray
    squares: np.ndarray
    boxes: np.ndarray

    @classmethod
    def of_square(cls, image: np.ndarray) -> "Picture":
        """An image that the network sees as it is, uint8 (size, size, 3)."""
        return cls(image, image[np.newaxis], np.array([[0.0, 0, *image.shape[:2]]]))

    def stitch(self, heatmaps: np.ndarray, is_used: np.ndarray) -> np.ndarray:
        """Lay the heatmaps of the squares over the whole picture.

        Args:
            heatmaps: float32 (n, size, size).
            is_used: bool (n,); others are left out.

        Returns:
            float32 (height, width): the mean of the used squares that hold a pixel, NaN where none does.
        """
        height, width = self.whole.shape[:2]
        sums, numbers = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
        for heatmap, (top, left, high, wide) in zip(heatmaps[is_used], self.boxes[is_used], strict=True):
            rows, columns = _span(top, high, height), _span(left, wide, width)
            # A square that reaches over the edge continues the picture by mirroring; that part is left out.
            edges = np.array([columns.start - left, rows.start - top, columns.stop - left, rows.stop - top])
            box = np.clip(edges * len(heatmap) / [wide, high, wide, high], 0, len(heatmap))
            size = (columns.stop - columns.start, rows.stop - rows.start)
            smoothing = Image.Resampling.BOX if size[0] < len(heatmap) else Image.Resampling.BILINEAR
            sums[rows, columns] += np.asarray(Image.fromarray(heatmap).resize(size, smoothing, (*box,)))
            numbers[rows, columns] += 1
        return np.divide(sums, numbers, out=np.full_like(sums, np.nan), where=numbers > 0)


def _span(first: float, side: float, length: int) -> slice:
    """The whole pixels of a row of that length that a square takes; at least one."""
    start = min(round(first), length - 1)
    return slice(start, max(start + 1, min(round(first + side), length)))


def load_picture(path: str | os.PathLike, view: View) -> Picture:
    """Load a file to be explained to a network with that view.

    Raises:
        UnreadableError: the file cannot be read or decoded.
    """
    if not isinstance(view, Windows):
        return Picture.of_square(load_image(path, view.size))
    encoded = read_decodable(path)
    try:
        image, squares, places = (values.numpy() for values in _windows(view)(tf.constant(encoded)))
    except tf.errors.InvalidArgumentError as error:
        raise UnreadableError(unreadable_reason(encoded)) from error
    scale = min(1.0, MAX_SIDE / max(image.shape[:2]))
    height, width = (max(1, round(scale * length)) for length in image.shape[:2])
    whole = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX)) if scale < 1 else image
    boxes = np.hstack([scale * places, np.full_like(places, scale * view.size, float)])
    if view.whole:
        boxes = np.vstack([[0, 0, height, width], boxes])
    return Picture(whole, squares, boxes)


@functools.cache
def _windows(view: Windows) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
    @tf.function(input_signature=[tf.TensorSpec((), tf.string)])
    def load(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image = decode(encoded)
        seen = view.of_image(image)
        return image, seen.pixels[: seen.counts], corners(image, view.size, view.count)

    return load
