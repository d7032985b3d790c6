"""Images as they are and in other ways, as a network sees each: what is done to one is done before the resize."""

import functools
import os
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np
import tensorflow as tf
from PIL import Image

from pipelines.decoding import decodable, decode, load_images, read_decodable, resize
from pipelines.media.headers import UnreadableError, unreadable_reason
from pipelines.transforms.perturbations import Degrade


def views(encoded: bytes, image_size: int, ways: Sequence[Degrade]) -> np.ndarray:
    """The views of one image.

    Args:
        encoded: a file's bytes.
        ways: of which each makes another of the decoded image, at its own resolution.

    Returns:
        uint8 (1 + ways, image_size, image_size, 3), RGB, first the image as it is.

    Raises:
        UnreadableError: it is no image, or a damaged one, or one of the ways has no room for its sides.
    """
    return _views(decodable(encoded), image_size, ways)


def load_views(
    paths: Sequence[str | os.PathLike], image_size: int, ways: Sequence[Degrade]
) -> tuple[np.ndarray, dict[int, str]]:
    """Those of many files, some of which may be no image, or damaged; several threads may do so at once.

    Returns:
        uint8 (files, 1 + ways, image_size, image_size, 3), black in place of what has no views; and of these files,
        by their index, why.
    """
    if not ways:
        images, errors = load_images(paths, image_size)
        return images[:, np.newaxis], errors
    found, errors = np.zeros((len(paths), 1 + len(ways), image_size, image_size, 3), np.uint8), {}
    for index, path in enumerate(paths):
        try:
            found[index] = _views(read_decodable(path), image_size, ways)
        except UnreadableError as error:
            errors[index] = str(error)
    return found, errors


def _views(encoded: bytes, image_size: int, ways: Sequence[Degrade]) -> np.ndarray:
    try:
        pixels = _decoder()(tf.constant(encoded)).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise UnreadableError(unreadable_reason(encoded)) from error
    image = Image.fromarray(pixels)
    seen = chain([pixels], (_made(way, image) for way in ways))  # of a large image one at a time
    return np.stack([_resizer(image_size)(one) for one in seen])


def _made(way: Degrade, image: Image.Image) -> np.ndarray:
    try:
        return np.asarray(way(image))
    except (OSError, ValueError) as error:  # WebP has at most 16,383 pixels a side, JPEG 65,535
        width, height = image.size
        raise UnreadableError(f"{width} x {height} pixels cannot be encoded anew: {error}") from error


@functools.cache
def _decoder() -> Callable[[tf.Tensor], tf.Tensor]:
    return tf.function(decode, input_signature=[tf.TensorSpec([], tf.string)])


@functools.cache
def _resizer(image_size: int) -> Callable[[tf.Tensor], tf.Tensor]:
    image = tf.TensorSpec((None, None, 3), tf.uint8)
    return tf.function(functools.partial(resize, image_size=image_size), input_signature=[image])
