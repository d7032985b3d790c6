"""Where the images of an epoch come from: decoded anew, or from a cache of decoded images in memory or on disk.

An image source gives the examples of a split shard by shard, and loads batches of them. All sources of a split have
the same examples in the same shards, so that caching does not change their order.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol, TypedDict

import numpy as np
import psutil
import tensorflow as tf

from pipelines import atomic
from pipelines.datasets.examples import UNLABELLED
from pipelines.exceptions import DataError
from pipelines.records import corruption, schema
from pipelines.records.schema import NO_CATEGORY
from pipelines.records.store import Records, Split
from pipelines.views import Pixels, Squash, View, Windows

KINDS = ("memory", "disk", "none")
_MARKER, _VERSION = "decoded.json", 1  # to be raised when `decode_and_resize` changes a pixel
_BATCH = 64
_SHARE = 4  # `auto` takes at most one in so many free bytes
_log = logging.getLogger(__name__)


class DecodedBatch(NamedTuple):
    """A batch of examples.

    Attributes:
        images: as the view gives them, see `pipelines.views`; in training uint8 (n, size, size, 3), RGB.
        labels: int64 (n,); -1 unlabelled.
        categories: int64 (n,); -1 without a class.
    """

    images: Pixels
    labels: tf.Tensor
    categories: tf.Tensor


class ImageSource(Protocol):
    """The examples of one split."""

    split: Split

    def shard(self, index: tf.Tensor) -> tf.data.Dataset:
        """The examples of one shard, in the form that `load` takes."""

    def load(self, batch: tf.Tensor) -> DecodedBatch:
        """Load a batch of such examples."""


class Uncached:
    """The records themselves, whose images are decoded each time."""

    def __init__(self, split: Split, view: View):
        self.split, self.view = split, view
        self._files = tf.constant(split.files)

    def shard(self, index: tf.Tensor) -> tf.data.Dataset:
        """The serialized records of one shard."""
        return tf.data.TFRecordDataset(self._files[index])

    def load(self, batch: tf.Tensor) -> DecodedBatch:
        """Parse serialized records, string (n,), and decode their images."""
        fields = tf.io.parse_example(batch, schema.feature_spec("image", "label", "category"))
        return DecodedBatch(self._images(fields["image"]), fields["label"], fields["category"])

    def load_random_windows(self, view: Windows, batch: tf.Tensor, positions: tf.Tensor) -> DecodedBatch:
        """Load windows at random places as examples of their own, those of an image in a row.

        Where the view has the whole image before its windows, it has no label, and they have no category.

        Args:
            positions: float32 (n, m, 2); see `Windows.random`.
        """
        fields = tf.io.parse_example(batch, schema.feature_spec("image", "label", "category"))
        images = view.random(fields["image"], positions)
        number = images.shape[1]
        labels, categories = (
            tf.repeat(fields[name][:, tf.newaxis], number, axis=1) for name in ("label", "category")
        )
        if view.whole:
            is_whole = tf.range(number) == 0
            labels = tf.where(is_whole, tf.constant(UNLABELLED, labels.dtype), labels)
            categories = tf.where(is_whole, categories, tf.constant(NO_CATEGORY, categories.dtype))
        return DecodedBatch(
            tf.reshape(images, (-1, *images.shape[2:])), tf.reshape(labels, [-1]), tf.reshape(categories, [-1])
        )

    def _images(self, content: tf.Tensor) -> Pixels:
        return self.view.of_files(content)


class DiskCache(Uncached):
    """Shards of the same examples that hold the pixels of `Squash` instead of encoded images."""

    def _images(self, content: tf.Tensor) -> Pixels:
        size = self.view.size
        return tf.reshape(tf.io.decode_raw(content, tf.uint8, fixed_length=3 * size**2), (-1, size, size, 3))


class MemoryCache:
    """All examples in variables; an example is referred to by its index."""

    def __init__(self, source: ImageSource):
        self.split = source.split
        self._lengths = tf.constant(self.split.lengths, tf.int64)
        self._first = tf.math.cumsum(self._lengths, exclusive=True)
        batches, count = sequential_batches(source), sum(self.split.lengths)
        # Variables, because every iterator over a dataset copies its constants.
        with tf.device("CPU"):
            self._columns = tf.nest.map_structure(
                lambda spec: tf.Variable(tf.zeros((count, *spec.shape[1:]), spec.dtype)), batches.element_spec
            )
        for number, batch in enumerate(batches):
            for column, values in zip(tf.nest.flatten(self._columns), tf.nest.flatten(batch), strict=True):
                column[number * _BATCH : number * _BATCH + len(values)].assign(values)

    def shard(self, index: tf.Tensor) -> tf.data.Dataset:
        """The indices of the examples of one shard."""
        first = self._first[index]
        return tf.data.Dataset.range(first, first + self._lengths[index])

    def load(self, batch: tf.Tensor) -> DecodedBatch:
        """The examples at these indices, int64 (n,)."""
        return tf.nest.map_structure(lambda column: tf.gather(column, batch), self._columns)


def sequential_batches(
    source: ImageSource, batch_size: int = _BATCH, *, mask: np.ndarray | None = None
) -> tf.data.Dataset:
    """Decoded batches in stored order, of all examples in the shards or those at which `mask` is set."""
    examples = tf.data.Dataset.range(len(source.split.files)).flat_map(source.shard)
    if mask is not None:
        examples = filter_by_mask(examples, mask)
    return examples.batch(batch_size).map(source.load, num_parallel_calls=tf.data.AUTOTUNE).prefetch(1)


def filter_by_mask(examples: tf.data.Dataset, mask: tf.Tensor | np.ndarray) -> tf.data.Dataset:
    """The examples at which `mask`, bool (examples,), is set."""
    pairs = tf.data.Dataset.zip(examples, tf.data.Dataset.from_tensor_slices(mask))
    return pairs.filter(lambda _, is_kept: is_kept).map(lambda example, _: example)


# --- choosing a source -----------------------------------------------------------------------------------------


def open_source(records: Records, name: str, view: View, kind: str = "none") -> ImageSource:
    """The image source of a split; where images are cached, the log says so.

    Args:
        records: opened records.
        name: of the split.
        view: how the images are seen.
        kind: `memory`; `disk`, a folder beside the records that later trainings reuse; `none`; or `auto`, the first
            of these that takes at most a quarter of what is free. Windows are not cached on disk.

    Raises:
        DataError: there is no such split, it is corrupt, or it does not fit into the cache.
    """
    if kind not in (*KINDS, "auto"):
        raise ValueError(f"the cache must be one of {', '.join(KINDS)} or auto, not {kind}")
    split = records.split(name)
    uncached = Uncached(split, view)
    folder = records.folder / f"decoded-{name}-{view.size}"
    kind = _resolve_kind(kind, uncached, folder)
    if kind == "none":
        return uncached
    _log.info(
        "%s: %d images at %d pixels, %s, are cached decoded %s",
        *(name, sum(split.lengths), view.size, _format_gib(_decoded_size(uncached))),
        "in memory" if kind == "memory" else f"in {folder}",
    )
    with corruption.locate_errors(split):
        return MemoryCache(uncached) if kind == "memory" else _disk_cache(uncached, folder)


def _resolve_kind(kind: str, uncached: Uncached, folder: Path) -> str:
    """The kind of cache that `auto` stands for; a cache that is already on disk is used in any case."""
    size, records = _decoded_size(uncached), folder.parent
    is_stored = isinstance(uncached.view, Squash)
    if kind == "disk" and not is_stored:
        raise DataError("windows are not cached on disk; give --cache memory, none or auto")
    free = {
        "memory": psutil.virtual_memory().available,
        "disk": shutil.disk_usage(records).free * os.access(records, os.W_OK) * is_stored,
        "none": size,
    }
    if is_stored and kind in ("auto", "disk") and _is_complete(folder, uncached.split):
        return "disk"
    if kind == "auto":
        return next((place for place in ("memory", "disk") if _SHARE * size <= free[place]), "none")
    if size > free[kind]:
        number = sum(uncached.split.lengths)
        raise DataError(
            f"{number} decoded images take {_format_gib(size)}, and {kind} has {_format_gib(free[kind])} free"
        )
    return kind


def _decoded_size(uncached: Uncached) -> int:
    return sum(uncached.split.lengths) * uncached.view.parts * 3 * uncached.view.size**2


def _format_gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


# --- the cache on disk -----------------------------------------------------------------------------------------


class _Marker(TypedDict):
    """What identifies a complete cache."""

    version: int
    lengths: list[int]  # examples in each shard
    sizes: list[int]  # of the shards, in bytes


def _disk_cache(uncached: Uncached, folder: Path) -> DiskCache:
    split = uncached.split
    if not _is_complete(folder, split):
        # Of several trainings that start at the same time the first writes the cache, and the others wait for it.
        with atomic.locked(folder):
            if not _is_complete(folder, split):
                _write(uncached, folder)
    files = [os.fspath(folder / Path(path).name) for path in split.files]
    return DiskCache(replace(split, files=files), uncached.view)


def _is_complete(folder: Path, split: Split) -> bool:
    marker = folder / _MARKER
    return marker.is_file() and json.loads(marker.read_text()) == _marker(folder, split)


def _marker(folder: Path, split: Split) -> _Marker:
    paths = [folder / Path(path).name for path in split.files]
    sizes = [path.stat().st_size if path.is_file() else 0 for path in paths]
    return {"version": _VERSION, "lengths": split.lengths, "sizes": sizes}


def _write(uncached: Uncached, folder: Path) -> None:
    with atomic.folder(folder, marker=_MARKER) as partial:
        _write_shards(uncached, partial)
        (partial / _MARKER).write_text(json.dumps(_marker(partial, uncached.split)))


def _write_shards(uncached: Uncached, folder: Path) -> None:
    examples = _serialized_examples(uncached)
    for path, length in zip(uncached.split.files, uncached.split.lengths, strict=True):
        with tf.io.TFRecordWriter(os.fspath(folder / Path(path).name)) as writer:
            for serialized in islice(examples, length):
                writer.write(serialized)


def _serialized_examples(uncached: Uncached) -> Iterator[bytes]:
    serialize = schema.FeatureSerializer({"image": bytes, "label": int, "category": int})
    for batch in sequential_batches(uncached):
        for image, label, category in zip(*(column.numpy() for column in batch), strict=True):
            yield serialize({"image": image.tobytes(), "label": int(label), "category": int(category)})
