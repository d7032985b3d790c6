"""Perturbed images of records, which the robustness evaluation scores."""

from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf
from PIL import Image

from pipelines.decoding import decode, resize
from pipelines.loading.cache import filter_by_mask
from pipelines.records import corruption, schema
from pipelines.records.store import Records
from pipelines.transforms.perturbations import PERTURBATIONS


def perturbed_images(
    records: Records, split: str, indices: Sequence[int], names: Iterable[str], *, image_size: int
) -> tf.data.Dataset:
    """Some images of a split, each under several perturbations, as a network sees them.

    Args:
        records: opened records.
        split: its name.
        indices: of the images in stored order, increasing.
        names: of `PERTURBATIONS`.
        image_size: height and width of the network's input, in pixels.

    Returns:
        For each image uint8 (names, image_size, image_size, 3), RGB.

    Raises:
        DataError: there is no such split, or it is corrupt.
    """
    opened = records.split(split)
    corruption.check_sizes(opened)
    perturbations = [PERTURBATIONS[name] for name in names]
    is_chosen = np.zeros(opened.examples, bool)
    is_chosen[np.asarray(indices, int)] = True

    def perturb(pixels: np.ndarray) -> list[np.ndarray]:
        image = Image.fromarray(pixels)
        return [np.asarray(perturbation(image)) for perturbation in perturbations]

    def load(serialized: tf.Tensor) -> tf.Tensor:
        encoded = tf.io.parse_single_example(serialized, schema.feature_spec("image"))["image"]
        images = tf.numpy_function(perturb, [decode(encoded)], [tf.uint8] * len(perturbations), stateful=False)
        return tf.stack([resize(tf.ensure_shape(image, (None, None, 3)), image_size) for image in images])

    chosen = filter_by_mask(tf.data.TFRecordDataset(opened.files), is_chosen)
    return chosen.map(load, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
