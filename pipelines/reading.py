"""Records as batches: `training` and `inference`, one beside the other, and the facts that go with the scores."""

import os

import tensorflow as tf

from pipelines.decoding import decode_and_resize
from pipelines.errors import DataError
from pipelines.examples import LABELS, UNLABELLED
from pipelines.records import NO_CATEGORY, Records

_SHUFFLE_BUFFER = 4096  # encoded images, tens of kilobytes each; the shards were shuffled when written


def training(
    records: Records, split: str = "train", *, image_size: int, batch_size: int, seed: int = 0
) -> tf.data.Dataset:
    """Batches to learn from, each epoch in another order.

    Returns:
        A finite dataset of (images, targets, weights): images float32 (batch, image_size, image_size, 3), RGB in
        0..255; targets and weights are dicts with `authenticity` and, when the data has classes, `category`.
        Targets are float32 (batch, 1) in {0, 1} and int64 (batch,) class indices. A weight is 0 where the record
        does not carry that target, else 1. The last batch may be smaller. One seed gives one sequence of
        batches, given one global seed of TensorFlow, which it mixes in.

    Raises:
        DataError: there is no such split, or it is unlabelled.
    """
    found = records.split(split, labelled=True)
    examples = tf.data.Dataset.from_tensor_slices(found.files).shuffle(len(found.files), seed=seed)
    examples = examples.interleave(tf.data.TFRecordDataset, cycle_length=8)
    # Shuffle bytes, not pixels: the buffer is a hundred times smaller. Before batch: every epoch mixes anew.
    examples = examples.shuffle(min(found.examples, _SHUFFLE_BUFFER), seed=seed)
    return _batches(examples, found.examples, bool(records.categories), image_size, batch_size)


def inference(records: Records, split: str, *, image_size: int, batch_size: int) -> tf.data.Dataset:
    """Batches to score: as `training`, but in stored order, and an unlabelled split has weights of 0.

    Raises:
        DataError: there is no such split.
    """
    found = records.split(split)
    examples = tf.data.TFRecordDataset(found.files)
    return _batches(examples, found.examples, bool(records.categories), image_size, batch_size)


def facts(records: Records, split: str) -> dict[str, list]:
    """What is known of each example, in the order of `inference`, without decoding an image.

    Returns:
        Lists of equal length: `path` (str), `label` (0 real, 1 fake, -1 unlabelled), `category` (class index, -1
        when none) and `source` (str).
    """
    columns = {"path": [], "label": [], "category": [], "source": []}
    for serialised in tf.data.TFRecordDataset(records.split(split).files).as_numpy_iterator():
        feature = tf.train.Example.FromString(serialised).features.feature
        columns["path"].append(os.fsdecode(feature["path"].bytes_list.value[0]))
        columns["label"].append(feature["label"].int64_list.value[0])
        columns["category"].append((*feature["category"].int64_list.value, NO_CATEGORY)[0])
        columns["source"].append(feature["source"].bytes_list.value[0].decode())
    return columns


def class_weights(records: Records, split: str = "train") -> dict[str, list[float]]:
    """Inverse-frequency weights, n / (classes * n_of_class), whose mean over the examples is 1.

    Returns:
        For each head, one weight per class in class order; `category` only when the data has classes.

    Raises:
        DataError: there is no such split, it is unlabelled, or it has no example of one of the classes.
    """
    counts = records.split(split, labelled=True)

    def inverse_frequency(names, numbers):
        absent = [name for name in names if not numbers.get(name)]
        if absent:
            raise DataError(f"{records.folder} has no {absent[0]} image in {split}; see quarantine.csv there")
        total = sum(numbers.values())
        return [total / (len(names) * numbers[name]) for name in names]

    weights = {"authenticity": inverse_frequency(LABELS, counts.labels)}
    if records.categories:
        weights["category"] = inverse_frequency(records.categories, counts.categories)
    return weights


def _batches(
    examples: tf.data.Dataset, count: int, has_category: bool, image_size: int, batch_size: int
) -> tf.data.Dataset:
    return (
        examples.map(lambda e: _parse(e, image_size, has_category), num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size)
        # Interleaved shards do not know their number; Keras wants it for its progress bar, and to tell an end from
        # an interruption.
        .apply(tf.data.experimental.assert_cardinality(-(-count // batch_size)))
        .prefetch(tf.data.AUTOTUNE)
    )


def _parse(serialised: tf.Tensor, image_size: int, has_category: bool):
    spec = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}
    if has_category:
        spec["category"] = tf.io.FixedLenFeature([], tf.int64)
    record = tf.io.parse_single_example(serialised, spec)
    label = record["label"]
    targets = {"authenticity": tf.cast(tf.maximum(label, 0), tf.float32)[None]}
    weights = {"authenticity": tf.cast(label != UNLABELLED, tf.float32)}
    if has_category:
        # A target of -1 would index no class; its weight of 0 takes it out of the loss and the metrics.
        targets["category"] = tf.maximum(record["category"], 0)
        weights["category"] = tf.cast(record["category"] != NO_CATEGORY, tf.float32)
    return decode_and_resize(record["image"], image_size), targets, weights
