"""Records as batches of perturbed images: what evaluation under re-encoding, blur and resizing is measured on."""

from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf
from PIL import Image

from pipelines.decoding import decode, resize
from pipelines.loading import cache as caches
from pipelines.records import corruption
from pipelines.records.store import Records
from pipelines.transforms.perturbations import DEGRADATIONS


def degraded(
    records: Records, split: str, places: Sequence[int], names: Iterable[str], *, image_size: int
) -> tf.data.Dataset:
    """Some images of a split in all of some ways, as a network sees them.

    Args:
        places: of the images in stored order, rising.
        names: of `DEGRADATIONS`.

    Returns:
        For each image uint8 (names, image_size, image_size, 3), RGB.

    Raises:
        DataError: there is no such split, or it is damaged.
    """
    found = records.split(split)
    corruption.check_sizes(found)
    ways = [DEGRADATIONS[name] for name in names]
    is_chosen = np.zeros(found.examples, bool)
    is_chosen[np.asarray(places, int)] = True

    def degrade(pixels: np.ndarray) -> list[np.ndarray]:
        image = Image.fromarray(pixels)
        return [np.asarray(way(image)) for way in ways]

    def load(serialised: tf.Tensor) -> tf.Tensor:
        content = tf.io.parse_single_example(serialised, {"image": tf.io.FixedLenFeature([], tf.string)})["image"]
        images = tf.numpy_function(degrade, [decode(content)], [tf.uint8] * len(ways), stateful=False)
        return tf.stack([resize(tf.ensure_shape(image, (None, None, 3)), image_size) for image in images])

    chosen = caches.only(tf.data.TFRecordDataset(found.files), tf.constant(is_chosen))
    return chosen.map(load, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
