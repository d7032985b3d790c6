"""Views of an image, the original and perturbed versions, as a network sees them. Perturbing precedes the view."""

import functools
import os
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np
import tensorflow as tf
from PIL import Image

from pipelines.decoding import decodable, decode, read_decodable
from pipelines.media.headers import UnreadableError, unreadable_reason
from pipelines.transforms.perturbations import Perturbation
from pipelines.views import Pixels, View, load_images, stack


def make_views(encoded: bytes, view: View, perturbations: Sequence[Perturbation]) -> Pixels:
    """The views of one image.

    Args:
        encoded: the bytes of a file.
        view: how the network sees an image.
        perturbations: each makes another version of the decoded image, at its original resolution.

    Returns:
        The pixels of a batch of 1 + perturbations images, the unperturbed one first.

    Raises:
        UnreadableError: it is not an intact image, or too large for the codec of a perturbation.
    """
    return _make_views(decodable(encoded), view, perturbations)


def load_views(
    paths: Sequence[str | os.PathLike], view: View, perturbations: Sequence[Perturbation]
) -> tuple[Pixels, dict[int, str]]:
    """The views of many files, some of which may be unreadable. Thread-safe.

    Returns:
        Pixels whose arrays are (files, 1 + perturbations, ...), black for unreadable files; and the reason for each
        of these, by index.
    """
    if not perturbations:
        images, errors = load_images(paths, view)
        return tf.nest.map_structure(lambda values: values[:, np.newaxis], images), errors
    views, errors = view.black((len(paths), 1 + len(perturbations))), {}
    for index, path in enumerate(paths):
        try:
            made = _make_views(read_decodable(path), view, perturbations)
        except UnreadableError as error:
            errors[index] = str(error)
            continue
        for values, one in zip(tf.nest.flatten(views), tf.nest.flatten(made), strict=True):
            values[index] = one
    return views, errors


def _make_views(encoded: bytes, view: View, perturbations: Sequence[Perturbation]) -> Pixels:
    try:
        pixels = _decoder()(tf.constant(encoded)).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise UnreadableError(unreadable_reason(encoded)) from error
    image = Image.fromarray(pixels)
    # Lazily: one perturbed version of a large image is in memory at a time.
    versions = chain([pixels], (_perturb(image, perturbation) for perturbation in perturbations))
    return stack([_viewer(view)(version) for version in versions])


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
def _viewer(view: View) -> Callable[[tf.Tensor], Pixels]:
    image = tf.TensorSpec((None, None, 3), tf.uint8)
    return tf.function(view.of_image, input_signature=[image])
