"""Views of an image, the original and perturbed versions, as a network sees them. Perturbing precedes the resize."""

import functools
import os
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np
import tensorflow as tf
from PIL import Image

from pipelines.decoding import decodable, decode, load_images, read_decodable, resize
from pipelines.media.headers import UnreadableError, unreadable_reason
from pipelines.transforms.perturbations import Perturbation


def make_views(encoded: bytes, image_size: int, perturbations: Sequence[Perturbation]) -> np.ndarray:
    """The views of one image.

    Args:
        encoded: the bytes of a file.
        image_size: height and width of the views, in pixels.
        perturbations: each makes another view of the decoded image, at its original resolution.

    Returns:
        uint8 (1 + perturbations, image_size, image_size, 3), RGB, the unperturbed image first.

    Raises:
        UnreadableError: it is not an intact image, or too large for the codec of a perturbation.
    """
    return _make_views(decodable(encoded), image_size, perturbations)


def load_views(
    paths: Sequence[str | os.PathLike], image_size: int, perturbations: Sequence[Perturbation]
) -> tuple[np.ndarray, dict[int, str]]:
    """The views of many files, some of which may be unreadable. Thread-safe.

    Returns:
        uint8 (files, 1 + perturbations, image_size, image_size, 3), RGB, black for unreadable files; and the reason
        for each of these, by index.
    """
    if not perturbations:
        images, errors = load_images(paths, image_size)
        return images[:, np.newaxis], errors
    views = np.zeros((len(paths), 1 + len(perturbations), image_size, image_size, 3), np.uint8)
    errors = {}
    for index, path in enumerate(paths):
        try:
            views[index] = _make_views(read_decodable(path), image_size, perturbations)
        except UnreadableError as error:
            errors[index] = str(error)
    return views, errors


def _make_views(encoded: bytes, image_size: int, perturbations: Sequence[Perturbation]) -> np.ndarray:
    try:
        pixels = _decoder()(tf.constant(encoded)).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise UnreadableError(unreadable_reason(encoded)) from error
    image = Image.fromarray(pixels)
    # Lazily: one perturbed version of a large image is in memory at a time.
    versions = chain([pixels], (_perturb(image, perturbation) for perturbation in perturbations))
    return np.stack([_resizer(image_size)(version) for version in versions])


def _perturb(image: Image.Image, perturbation: Perturbation) -> np.ndarray:
    try:
        return np.asarray(perturbation(image))
    except (OSError, ValueError) as error:  # WebP has at most 16,383 pixels a side, JPEG 65,535
        width, height = image.size
        raise UnreadableError(f"{width} x {height} pixels cannot be re-encoded: {error}") from error


@functools.cache
def _decoder() -> Callable[[tf.Tensor], tf.Tensor]:
    return tf.function(decode, input_signature=[tf.TensorSpec([], tf.string)])


@functools.cache
def _resizer(image_size: int) -> Callable[[tf.Tensor], tf.Tensor]:
    image = tf.TensorSpec((None, None, 3), tf.uint8)
    return tf.function(functools.partial(resize, image_size=image_size), input_signature=[image])
