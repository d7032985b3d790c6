"""Records as batches: `training_batches` and `inference_batches`."""

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
from pipelines.loading.cache import (
    DecodedBatch,
    ImageSource,
    Uncached,
    filter_by_mask,
    open_source,
    sequential_batches,
)
from pipelines.records import corruption
from pipelines.records.queries import check_every_class_occurs, read_columns
from pipelines.records.schema import NO_CATEGORY
from pipelines.records.store import Records, Split
from pipelines.views import View, Windows

_SHARDS_AT_ONCE = 8
_POSITIONS = 2**32  # added to the seed for the places of windows, so that they do not follow from those of examples
_WINDOW, _WINDOW_BYTES = 4096, 128 * 2**20  # examples shuffled together; the conversion has shuffled them all before
_SERVICE_ADDRESS = re.compile(r"grpc://(?:\[(.+)\]|([^:]+)):(\d{1,5})")  # an IPv6 address is in brackets
_EpochMask = Callable[[tf.Tensor], tf.Tensor]  # the number of an epoch to bool (examples,)
_Epoch = Callable[[tf.Tensor, tf.Tensor | int], tf.data.Dataset]  # an epoch and a number of batches to skip
_Targets = dict[str, tf.Tensor]


def training_batches(
    records: Records,
    split: str = "train",
    *,
    view: View,
    batch_size: int,
    windows_per_image: int = 1,
    epochs: int = 1,
    start: int = 0,
    seed: int | None = None,
    undersample: bool = False,
    replicas: int = 1,
    local_replicas: range | None = None,
    cache: str = "none",
    service: str = "",
) -> tf.data.Dataset:
    """Shuffled batches: every example once per epoch, each epoch in another order.

    Args:
        records: opened records.
        split: its name.
        view: how the images are seen. Of `Windows`, some at random places are taken from each image, in each epoch
            others.
        windows_per_image: how many; each is an example of its batch, those of an image in a row.
        batch_size: number of examples in a batch, over all replicas.
        epochs: number of epochs.
        start: number of batches to skip, to resume an interrupted training; their images are not decoded.
        seed: determines the order, independent of TensorFlow's global seed and of the cache. None for another order
            each time, with batches in the order in which they are ready.
        undersample: balance the labels of each epoch: all examples of the rarer label and as many of the other, drawn
            anew for each epoch. Unlabelled examples are left out.
        replicas: number of replicas that share a batch: of its n examples, replica r gets those from r * n //
            replicas to (r + 1) * n // replicas.
        local_replicas: the replicas for which batches are wanted here; None for all. Only their images are decoded.
        cache: where decoded images are kept for later epochs: `memory`, `disk`, `auto` or `none`; see
            `cache.open_source`.
        service: the address of a tf.data service, `grpc://host:port`, whose workers can read the records. The order
            is decided by the workers, nothing is cached, and images before `start` are decoded.

    Returns:
        A dataset of (images, targets, weights), with `epochs * steps_per_epoch(...) - start` batches. Images are
        uint8 (batch, view.size, view.size, 3), RGB. Targets and weights are dicts with `authenticity` and, when the
        data has classes, `category`. Targets are float32 (batch, 1) in {0, 1} and int64 (batch,) class indices. A
        weight is 0 where the example lacks that target, else 1. The last batch of an epoch may be smaller. With
        several replicas each batch is replaced by the batches of the local replicas, in order. None is empty: a
        replica for which there is no example gets the first example of the batch with weights of 0.

    Raises:
        DataError: there is no such split, it is unlabelled or corrupt, or does not fit into the cache; no service
            answers; or `undersample` is set and a label has no example.
        ValueError: `start` is outside the epochs, `local_replicas` are not among the replicas, or several replicas
            are used without a seed or with a service.
    """
    opened = records.split(split, labelled=True)
    corruption.check_sizes(opened)
    local_replicas = range(replicas) if local_replicas is None else local_replicas
    _check_replicas(replicas, local_replicas, seed, service)
    if undersample:
        check_every_class_occurs(records, split, LABELS, opened.labels)
    per_epoch = steps_per_epoch(opened, batch_size, undersample=undersample)
    if not 0 <= start <= epochs * per_epoch:
        raise ValueError(f"start must be from 0 to {epochs * per_epoch}, the batches of {epochs} epochs, not {start}")
    is_random = isinstance(view, Windows)  # other pixels in each epoch, which no cache would hold
    source = open_source(records, split, view, "none" if service or is_random else cache)
    order = _ShuffledOrder(source, seed, undersample)

    def epoch(number: tf.Tensor, skip: tf.Tensor | int) -> tf.data.Dataset:
        batches = order.epoch(number).batch(batch_size)
        if isinstance(source, Uncached) and isinstance(view, Windows):
            placed = order.with_positions(batches, number * per_epoch, windows_per_image).skip(skip)
            return _load(functools.partial(source.load_random_windows, view), placed, replicas, local_replicas)
        return _load(source.load, batches.map(lambda batch: (batch,)).skip(skip), replicas, local_replicas)

    if service:
        _check_service(service)
        batches = _from_service(epoch, service, batch_size, epochs, start, per_epoch)
    else:
        batches = _concatenate(epoch, epochs, start, per_epoch)
    number = (epochs * per_epoch - start) * len(local_replicas)
    finished = _finish(batches, number, has_category=bool(records.categories), is_ordered=seed is not None)
    if not (isinstance(view, Windows) and view.whole and windows_per_image > 1):
        return finished
    # The whole image, which the category head sees, counts for as many as there are windows beside it.
    return finished.map(functools.partial(_weight_category, factor=windows_per_image))


def inference_batches(
    records: Records, split: str, *, view: View, batch_size: int, cache: str = "none"
) -> tf.data.Dataset:
    """Batches as of `training_batches`, but once and in stored order; weights of unlabelled examples are 0.

    Images are as the view gives them to score them; see `pipelines.views`.

    Raises:
        DataError: there is no such split, it is corrupt, or does not fit into the cache.
    """
    opened = records.split(split)
    corruption.check_sizes(opened)
    source = open_source(records, split, view, cache)
    batches = sequential_batches(source, batch_size, mask=opened.keep_mask if opened.keep else None)
    return _finish(batches, steps_per_epoch(opened, batch_size), has_category=bool(records.categories))


def steps_per_epoch(split: Split, batch_size: int, *, undersample: bool = False) -> int:
    """The number of batches in an epoch of `split`; `undersample` as in `training_batches`."""
    examples = len(LABELS) * _rarer_label_count(split) if undersample else split.examples
    return -(-examples // batch_size)


def _rarer_label_count(split: Split) -> int:
    return min(split.labels.get(name, 0) for name in LABELS)


# --- order -----------------------------------------------------------------------------------------------------


class _ShuffledOrder:
    """The order of the examples in each epoch.

    All random numbers are stateless, a function of the seed and the epoch: the same wherever a training resumes, and
    whatever TensorFlow's global seed is. The shards are shuffled with the seed itself, the windows with the seeds
    that follow it, and undersampling uses the seed before it.
    """

    def __init__(self, source: ImageSource, seed: int | None, undersample: bool):
        self._source = source
        self._seed = int.from_bytes(os.urandom(4)) >> 1 if seed is None else seed
        self._mask = self._make_mask(undersample)

    def epoch(self, number: tf.Tensor) -> tf.data.Dataset:
        """The examples of an epoch, as `ImageSource.load` takes them."""
        split = self._source.split
        shards = tf.random.experimental.stateless_shuffle(tf.range(len(split.files)), [self._seed, number])
        examples = tf.data.Dataset.from_tensor_slices(shards).interleave(
            self._source.shard if self._mask is None else self._masked_shards(self._mask(number)),
            cycle_length=_SHARDS_AT_ONCE,
            num_parallel_calls=2,
        )
        window = min(_WINDOW, max(1, _WINDOW_BYTES * split.examples // split.size))
        return (
            examples.batch(window)
            .enumerate()
            .map(
                lambda index, examples: tf.random.experimental.stateless_shuffle(
                    examples, [self._seed + 1 + index, number]
                )
            )
            .unbatch()
        )

    def with_positions(self, batches: tf.data.Dataset, first: tf.Tensor, number: int) -> tf.data.Dataset:
        """Batches of examples, each with random positions, float32 (n, number, 2), from 0 to below 1.

        Args:
            batches: of an epoch, from its beginning.
            first: how many batches precede them in all epochs.
            number: of positions for each example.
        """
        seed = tf.constant(self._seed + _POSITIONS, tf.int64)

        def with_position(index: tf.Tensor, batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return batch, tf.random.stateless_uniform((tf.size(batch), number, 2), tf.stack([seed, first + index]))

        return batches.enumerate().map(with_position)

    def _masked_shards(self, mask: tf.Tensor) -> Callable[[tf.Tensor], tf.data.Dataset]:
        bounds = tf.constant([0, *accumulate(self._source.split.lengths)], tf.int64)
        return lambda index: filter_by_mask(self._source.shard(index), mask[bounds[index] : bounds[index + 1]])

    def _make_mask(self, undersample: bool) -> _EpochMask | None:
        """Which of all examples each epoch has; None if every epoch has all."""
        split = self._source.split
        if undersample:
            labels, count = _read_labels(split), _rarer_label_count(split)
            return lambda epoch: self._balanced_mask(labels, count, epoch)
        if not split.keep:
            return None
        mask = tf.constant(split.keep_mask)
        return lambda epoch: mask

    def _balanced_mask(self, labels: tf.Tensor, count: int, epoch: tf.Tensor) -> tf.Tensor:
        """A mask of `count` random examples of each label."""
        indices = [
            tf.random.experimental.stateless_shuffle(tf.where(labels == label), [self._seed - 1, epoch])[:count]
            for label in range(len(LABELS))
        ]
        is_set = tf.fill([len(LABELS) * count], True)
        return tf.scatter_nd(tf.concat(indices, 0), is_set, tf.shape(labels, tf.int64))


def _read_labels(split: Split) -> tf.Tensor:
    """The labels of all examples in the shards, int8 (examples,); masked ones count as unlabelled."""
    with corruption.locate_errors(split):
        labels = read_columns(split, "label")["label"]
    return tf.constant(np.where(split.keep_mask, labels, UNLABELLED), tf.int8)


# --- epochs ----------------------------------------------------------------------------------------------------


def _concatenate(epoch: _Epoch, epochs: int, start: int, per_epoch: int) -> tf.data.Dataset:
    """The loaded batches of all epochs, without the first `start`."""
    first, skip = divmod(start, per_epoch)
    # Batches are loaded within their epoch, so that none of the next is ready before the last of this one.
    return tf.data.Dataset.range(first, epochs).flat_map(
        lambda number: epoch(number, tf.where(number == first, tf.constant(skip, tf.int64), 0))
    )


def _check_service(address: str) -> None:
    """Check that a tf.data service answers, for which TensorFlow itself would wait silently."""
    match = _SERVICE_ADDRESS.fullmatch(address)
    if not match:
        raise DataError(f"{address} is not the address of a tf.data service, such as grpc://host:5050")
    try:
        socket.create_connection((match[1] or match[2], int(match[3])), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise DataError(f"no tf.data service answers at {address} ({error}); start its dispatcher first") from error


def _from_service(
    epoch: _Epoch, service: str, batch_size: int, epochs: int, start: int, per_epoch: int
) -> tf.data.Dataset:
    """The same from a tf.data service, which gives each shard of an epoch to one of its workers."""
    first = min(start // per_epoch, epochs - 1)

    def distributed(number: int) -> tf.data.Dataset:
        distribute = tf.data.experimental.service.distribute(
            tf.data.experimental.service.ShardingPolicy.DYNAMIC, service
        )
        batches = epoch(tf.constant(number, tf.int64), 0)
        return batches.apply(distribute).rebatch(batch_size)  # the last batch of each worker is smaller

    from_first = functools.reduce(tf.data.Dataset.concatenate, map(distributed, range(first, epochs)))
    return from_first.skip(start - first * per_epoch)


# --- replicas --------------------------------------------------------------------------------------------------


def _check_replicas(replicas: int, local_replicas: range, seed: int | None, service: str) -> None:
    if not local_replicas or not set(local_replicas) <= set(range(replicas)):
        raise ValueError(f"local_replicas must be some of {range(replicas)}, not {local_replicas}")
    if replicas > 1 and seed is None:
        raise ValueError("several replicas need a seed: without one, each process would divide different batches")
    if replicas > 1 and service:
        raise ValueError(
            "batches of a tf.data service cannot be divided among replicas: each process gets another order"
        )


def _load(
    load: Callable[..., DecodedBatch], batches: tf.data.Dataset, replicas: int, local_replicas: range
) -> tf.data.Dataset:
    """Load batches, tuples of arguments; with several replicas, of each the slices of the local ones, in order."""
    if replicas == 1:
        return batches.map(load, num_parallel_calls=tf.data.AUTOTUNE)

    def load_slice(arguments: tuple[tf.Tensor, ...], is_present: tf.Tensor) -> DecodedBatch:
        images, labels, categories = load(*arguments)
        return DecodedBatch(
            images, tf.where(is_present, labels, UNLABELLED), tf.where(is_present, categories, NO_CATEGORY)
        )

    numbers = tf.data.Dataset.range(local_replicas.start, local_replicas.stop, local_replicas.step)
    slices = batches.flat_map(lambda *batch: numbers.map(lambda replica: _slice(batch, replica, replicas)))
    return slices.map(load_slice, num_parallel_calls=tf.data.AUTOTUNE)


def _slice(
    batch: tuple[tf.Tensor, ...], replica: tf.Tensor, replicas: int
) -> tuple[tuple[tf.Tensor, ...], tf.Tensor]:
    """The part of one replica, and whether there is any: an empty one is replaced by the first example."""
    size = tf.shape(batch[0], tf.int64)[0]
    first, last = replica * size // replicas, (replica + 1) * size // replicas
    # Batch normalisation of no examples is NaN.
    number = tf.cast(first == last, tf.int64)
    return tuple(tf.concat([values[first:last], values[:number]], 0) for values in batch), first < last


# --- targets ---------------------------------------------------------------------------------------------------


def _finish(batches: tf.data.Dataset, number: int, *, has_category: bool, is_ordered: bool = True) -> tf.data.Dataset:
    """Add targets and weights to `number` decoded batches."""
    options = tf.data.Options()
    options.deterministic = is_ordered
    return (
        batches.map(lambda batch: _with_targets(batch, has_category))
        # Interleaved shards do not know their cardinality. Keras needs it for its progress bar, and to tell the end
        # of an epoch from an interruption.
        .apply(tf.data.experimental.assert_cardinality(number))
        .prefetch(tf.data.AUTOTUNE)
        .with_options(options)
    )


def _weight_category(
    images: tf.Tensor, targets: _Targets, weights: _Targets, factor: int
) -> tuple[tf.Tensor, _Targets, _Targets]:
    return images, targets, weights | {"category": factor * weights["category"]}


def _with_targets(batch: DecodedBatch, has_category: bool) -> tuple[tf.Tensor, _Targets, _Targets]:
    targets = {"authenticity": tf.cast(tf.maximum(batch.labels, 0), tf.float32)[:, None]}
    weights = {"authenticity": tf.cast(batch.labels != UNLABELLED, tf.float32)}
    if has_category:
        # A target of -1 would index no class; its weight of 0 removes it from the loss and the metrics.
        targets["category"] = tf.maximum(batch.categories, 0)
        weights["category"] = tf.cast(batch.categories != NO_CATEGORY, tf.float32)
    return batch.images, targets, weights
