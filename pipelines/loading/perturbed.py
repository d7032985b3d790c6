"""Perturbed images of records, which the robustness evaluation scores."""

from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf
from PIL import Image

from pipelines.decoding import decode
from pipelines.loading.cache import filter_by_mask
from pipelines.records import corruption, schema
from pipelines.records.store import Records
from pipelines.transforms.perturbations import PERTURBATIONS
from pipelines.views import Pixels, View


def perturbed_images(
    records: Records, split: str, indices: Sequence[int], names: Iterable[str], *, view: View
) -> tf.data.Dataset:
    """Some images of a split, each under several perturbations, as a network sees them.

    Args:
        records: opened records.
        split: its name.
        indices: of the images in stored order, increasing.
        names: of `PERTURBATIONS`.
        view: how a network sees them.

    Returns:
        For each image the pixels of a batch of its perturbed versions.

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

    def load(serialized: tf.Tensor) -> Pixels:
        encoded = tf.io.parse_single_example(serialized, schema.feature_spec("image"))["image"]
        images = tf.numpy_function(perturb, [decode(encoded)], [tf.uint8] * len(perturbations), stateful=False)
        seen = [view.of_image(tf.ensure_shape(image, (None, None, 3))) for image in images]
        return tf.nest.map_structure(lambda *values: tf.stack(values), *seen)

    chosen = filter_by_mask(tf.data.TFRecordDataset(opened.files), is_chosen)
    return chosen.map(load, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
