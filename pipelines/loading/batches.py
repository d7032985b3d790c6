"""Records as batches: `training_batches` and `inference_batches`, side by side."""

import functools
import os
import re
import socket
from collections.abc import Callable
from itertools import accumulate

import numpy as np
import tensorflow as tf

from pipelines.datasets.examples import LABELS, UNLABELLED
from pipelines.exceptions import DataError
from pipelines.loading import cache as caches
from pipelines.records import corruption
from pipelines.records.queries import check_names, kept_flags
from pipelines.records.store import NO_CATEGORY, Records, Split

_SHARDS_AT_ONCE = 8
_WINDOW, _WINDOW_BYTES = 4096, 128 * 2**20  # shuffled among each other; the shards were shuffled when written
_PARSED = 64  # records at a time, where only their labels are read
_Source = caches.Encoded | caches.InMemory
_Flags = Callable[[tf.Tensor], tf.Tensor]
_Epoch = Callable[[tf.Tensor, tf.Tensor | int], tf.data.Dataset]  # of an epoch, the batches after the first so many


def training_batches(
    records: Records,
    split: str = "train",
    *,
    image_size: int,
    batch_size: int,
    epochs: int = 1,
    start: int = 0,
    seed: int | None = None,
    undersample: bool = False,
    parts: int = 1,
    own: range | None = None,
    cache: str = "none",
    service: str = "",
) -> tf.data.Dataset:
    """Batches to learn from, each epoch in another order: every example once before the next epoch begins.

    Args:
        epochs: how many there are in all.
        start: how many batches were seen before: a training that was interrupted goes on where it was, and what
            those batches held is not decoded again.
        seed: decides the order, whatever else is random and wherever images are kept; None for another order each
            time, and for batches as they get ready.
        undersample: whether an epoch has as many real as fake images: all of the rarer label, and of the other as
            many, others in each epoch. What carries no label is left out.
        parts: how many replicas share a batch: of its n examples, replica p learns from those from p * n // parts
            up to (p + 1) * n // parts.
        own: which of the parts are wanted here, None for all; only they are decoded.
        cache: where decoded images are kept for the next epochs: `memory`, `disk`, `auto` or `none`; see `cache`.
        service: the address of a tf.data service, `grpc://host:port`, whose workers can read the records and
            decode them; in an order of their own, and what `start` passes over is decoded.

    Returns:
        A dataset of (images, targets, weights), `epochs * steps_per_epoch(...) - start` batches: images uint8 (batch,
        image_size, image_size, 3), RGB; targets and weights are dicts with `authenticity` and, when the data has
        classes, `category`. Targets are float32 (batch, 1) in {0, 1} and int64 (batch,) class indices. A weight
        is 0 where the record does not carry that target, else 1. The last batch of an epoch may be smaller. With
        `parts`, for each of these batches those of its parts that are `own`, one after the other. None is empty:
        where there are fewer examples than parts, it is the first example of the batch, with weights of 0.

    Raises:
        DataError: there is no such split, it is unlabelled or damaged, or does not fit into the cache; or no service
            answers; or it is to be undersampled to a label of which it has no example.
        ValueError: `start` is not within the epochs, `own` is not within the parts, or there are parts without a
            seed or of a service.
    """
    found = records.split(split, labelled=True)
    corruption.check_sizes(found)
    own = range(parts) if own is None else own
    _check_parts(parts, own, seed, service)
    if undersample:
        check_names(records, split, LABELS, found.labels)
    per_epoch = steps_per_epoch(found, batch_size, undersample=undersample)
    if not 0 <= start <= epochs * per_epoch:
        raise ValueError(f"start must be from 0 to {epochs * per_epoch}, the batches of {epochs} epochs, not {start}")
    is_ordered = seed is not None
    seed = int.from_bytes(os.urandom(4)) >> 1 if seed is None else seed
    flags = _flags(found, undersample, seed)
    source = caches.source(records, split, image_size, "none" if service else cache)

    def epoch(number: tf.Tensor, seen: tf.Tensor | int) -> tf.data.Dataset:
        batches = _shuffled(source, seed, number, flags).batch(batch_size).skip(seen)
        return _loaded(source, batches, parts, own)

    if service:
        _check_service(service)
        batches = _served(epoch, service, batch_size, epochs, start, per_epoch)
    else:
        batches = _epochs(epoch, epochs, start, per_epoch)
    return _finished(batches, bool(records.categories), (epochs * per_epoch - start) * len(own), is_ordered)


def inference_batches(
    records: Records, split: str, *, image_size: int, batch_size: int, cache: str = "none"
) -> tf.data.Dataset:
    """Batches to score: as `training_batches`, but once and in stored order; an unlabelled split has weights of 0.

    Raises:
        DataError: there is no such split, or it is damaged, or does not fit into the cache.
    """
    found = records.split(split)
    corruption.check_sizes(found)
    source = caches.source(records, split, image_size, cache)
    return _finished(
        caches.in_order(source, batch_size, found.kept), bool(records.categories), steps_per_epoch(found, batch_size)
    )


def steps_per_epoch(split: Split, batch_size: int, *, undersample: bool = False) -> int:
    """How many batches an epoch of `split` has; `undersample` as in `training_batches`."""
    examples = len(LABELS) * _rarest(split) if undersample else split.examples
    return -(-examples // batch_size)


# --- order -----------------------------------------------------------------------------------------------------


def _epochs(epoch: _Epoch, epochs: int, start: int, per_epoch: int) -> tf.data.Dataset:
    """Loaded batches of all epochs, less the first `start`."""
    first, seen = divmod(start, per_epoch)
    # They are loaded within their epoch, so that no batch of the next gets ready before the last of this one.
    return tf.data.Dataset.range(first, epochs).flat_map(
        lambda number: epoch(number, tf.where(number == first, tf.constant(seen, tf.int64), 0))
    )


def _check_service(address: str) -> None:
    """TensorFlow itself would wait for it without a word."""
    match = re.fullmatch(r"grpc://(?:\[(.+)\]|([^:]+)):(\d{1,5})", address)  # an IPv6 address is in brackets
    if not match:
        raise DataError(f"{address} is no address of a tf.data service; one looks like grpc://host:5050")
    try:
        socket.create_connection((match[1] or match[2], int(match[3])), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise DataError(f"no tf.data service answers at {address} ({error}); start its dispatcher first") from error


def _served(epoch: _Epoch, service: str, batch_size: int, epochs: int, start: int, per_epoch: int) -> tf.data.Dataset:
    """The same from a tf.data service: each shard of an epoch goes to one of its workers."""
    first = min(start // per_epoch, epochs - 1)

    def served(number: int) -> tf.data.Dataset:
        distribute = tf.data.experimental.service.distribute(
            tf.data.experimental.service.ShardingPolicy.DYNAMIC, service
        )
        batches = epoch(tf.constant(number, tf.int64), 0)
        return batches.apply(distribute).rebatch(batch_size)  # each worker has a smaller batch at its end

    whole = [served(number) for number in range(first, epochs)]
    return functools.reduce(tf.data.Dataset.concatenate, whole).skip(start - first * per_epoch)


def _shuffled(source: _Source, seed: int, epoch: tf.Tensor, flags: _Flags | None) -> tf.data.Dataset:
    """The examples of one epoch, as `source.load` takes them: shards in another order, and mixed.

    Args:
        flags: of an epoch, which of all examples are in it; None for all.
    """
    # By what is random without a state: the same wherever a training is taken up again, and whatever TensorFlow's
    # global seed is.
    split = source.split
    shards = tf.random.experimental.stateless_shuffle(tf.range(len(split.files)), [seed, epoch])
    examples = tf.data.Dataset.from_tensor_slices(shards).interleave(
        source.shard if flags is None else _flagged(source, flags(epoch)),
        cycle_length=_SHARDS_AT_ONCE,
        num_parallel_calls=2,
    )
    window = min(_WINDOW, max(1, _WINDOW_BYTES * split.examples // split.bytes))
    windows = examples.batch(window).enumerate()
    return windows.map(
        lambda number, window: tf.random.experimental.stateless_shuffle(window, [seed + 1 + number, epoch])
    ).unbatch()


def _flags(split: Split, undersample: bool, seed: int) -> _Flags | None:
    """Of an epoch, which of all examples are in it, bool (examples,); None where all of them are in each."""
    if undersample:
        labels, number = _labels(split), _rarest(split)

        def drawn(epoch: tf.Tensor) -> tf.Tensor:
            """As many examples of each label as there are of the rarer one."""
            # The shards are shuffled by the seed itself, and windows by those that follow.
            places = [
                tf.random.experimental.stateless_shuffle(tf.where(labels == label), [seed - 1, epoch])[:number]
                for label in range(len(LABELS))
            ]
            flags = tf.fill([len(LABELS) * number], True)
            return tf.scatter_nd(tf.concat(places, 0), flags, tf.shape(labels, tf.int64))

        return drawn
    kept = tf.constant(np.frombuffer(split.kept, bool))
    return (lambda epoch: kept) if split.kept else None


def _flagged(source: _Source, flags: tf.Tensor) -> Callable:
    """`source.shard`, less what has no flag."""
    bounds = tf.constant([0, *accumulate(source.split.lengths)], tf.int64)
    return lambda index: caches.only(source.shard(index), flags[bounds[index] : bounds[index + 1]])


def _rarest(split: Split) -> int:
    """How many examples the rarer label has."""
    return min(split.labels.get(name, 0) for name in LABELS)


def _labels(split: Split) -> tf.Tensor:
    """The label of each example, in stored order, int8 (examples,), without decoding an image; -1 if left out."""
    spec = {"label": tf.io.FixedLenFeature([], tf.int64)}
    labels = (
        tf.data.TFRecordDataset(split.files)
        .batch(_PARSED)
        .map(lambda batch: tf.io.parse_example(batch, spec)["label"], num_parallel_calls=tf.data.AUTOTUNE)
    )
    with corruption.named(split):
        stored = np.concatenate(list(labels.as_numpy_iterator()))
    return tf.constant(np.where(kept_flags(split), stored, UNLABELLED), tf.int8)


# --- batches ---------------------------------------------------------------------------------------------------


def _check_parts(parts: int, own: range, seed: int | None, service: str) -> None:
    if not own or not set(own) <= set(range(parts)):
        raise ValueError(f"own must be some of {range(parts)}, not {own}")
    if parts > 1 and seed is None:
        raise ValueError("parts need a seed: without one, each who asks for some divides other batches")
    if parts > 1 and service:
        raise ValueError("batches of a tf.data service have no parts: their order is another for each who asks")


def _loaded(source: _Source, batches: tf.data.Dataset, parts: int, own: range) -> tf.data.Dataset:
    """Batches loaded; where they have several parts, of each batch those that are `own`, one after the other."""
    if parts == 1:
        return batches.map(source.load, num_parallel_calls=tf.data.AUTOTUNE)

    def load(examples: tf.Tensor, counts: tf.Tensor) -> caches.Loaded:
        images, labels, categories = source.load(examples)
        return images, tf.where(counts, labels, UNLABELLED), tf.where(counts, categories, NO_CATEGORY)

    numbers = tf.data.Dataset.range(own.start, own.stop, own.step)
    cut = batches.flat_map(lambda batch: numbers.map(lambda part: _part(batch, part, parts)))
    return cut.map(load, num_parallel_calls=tf.data.AUTOTUNE)


def _part(batch: tf.Tensor, part: tf.Tensor, parts: int) -> tuple[tf.Tensor, tf.Tensor]:
    """That part of the batch, and whether it counts: in place of an empty one there is an example that does not."""
    number = tf.size(batch, tf.int64)
    first, last = part * number // parts, (part + 1) * number // parts
    # Batch normalisation makes NaN of no examples.
    instead = batch[: tf.cast(first == last, tf.int64)]
    return tf.concat([batch[first:last], instead], 0), first < last


def _finished(loaded: tf.data.Dataset, has_category: bool, number: int, is_ordered: bool = True) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = is_ordered
    return (
        loaded.map(lambda *batch: _with_targets(*batch, has_category))
        # Interleaved shards do not know their number; Keras wants it for its progress bar, and to tell an end from
        # an interruption.
        .apply(tf.data.experimental.assert_cardinality(number))
        .prefetch(tf.data.AUTOTUNE)
        .with_options(options)
    )


def _with_targets(images: tf.Tensor, labels: tf.Tensor, categories: tf.Tensor, has_category: bool):
    targets = {"authenticity": tf.cast(tf.maximum(labels, 0), tf.float32)[:, None]}
    weights = {"authenticity": tf.cast(labels != UNLABELLED, tf.float32)}
    if has_category:
        # A target of -1 would index no class; its weight of 0 takes it out of the loss and the metrics.
        targets["category"] = tf.maximum(categories, 0)
        weights["category"] = tf.cast(categories != NO_CATEGORY, tf.float32)
    return images, targets, weights
