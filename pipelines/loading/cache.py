"""Images kept decoded, in memory or on disk, so that later epochs need not decode them again.

A source gives the examples of a split shard by shard, and loads batches of them; all sources of a split have the
same examples in the same shards, so that what is kept where changes no order.
"""

import json
import logging
import os
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
import tensorflow as tf

from pipelines import atomic
from pipelines.decoding import decode_and_resize
from pipelines.exceptions import DataError
from pipelines.records import corruption
from pipelines.records.store import NO_CATEGORY, Records, Split

_MARKER, _VERSION = "decoded.json", 1  # to be raised when `decode_and_resize` changes a pixel
_BATCH = 64
KINDS = ("memory", "disk", "none")
_SHARE = 4  # of what is free, at most one in so many bytes is taken
_log = logging.getLogger(__name__)
Loaded = tuple[tf.Tensor, tf.Tensor, tf.Tensor]  # images uint8 (n, size, size, 3), labels and categories int64 (n,)


class Encoded:
    """The records as they are, decoded each time."""

    def __init__(self, split: Split, image_size: int, *, has_category: bool):
        self.split, self.image_size, self.has_category = split, image_size, has_category
        self._files = tf.constant(split.files)

    def shard(self, index: tf.Tensor) -> tf.data.Dataset:
        """The examples of one shard, as what `load` takes."""
        return tf.data.TFRecordDataset(self._files[index])

    def load(self, batch: tf.Tensor) -> Loaded:
        """The images and what they are; a category of -1 where there is none."""
        numbers = tf.io.FixedLenFeature([], tf.int64)
        spec = {"image": tf.io.FixedLenFeature([], tf.string), "label": numbers}
        if self.has_category:
            spec["category"] = numbers
        record = tf.io.parse_example(batch, spec)
        categories = record.get("category", tf.fill(tf.shape(record["label"]), tf.constant(NO_CATEGORY, tf.int64)))
        return self._images(record["image"]), record["label"], categories

    def _images(self, content: tf.Tensor) -> tf.Tensor:
        return decode_and_resize(content, self.image_size)


class OnDisk(Encoded):
    """Shards of the same examples, with pixels in place of files."""

    def _images(self, content: tf.Tensor) -> tf.Tensor:
        pixels = tf.io.decode_raw(content, tf.uint8, fixed_length=3 * self.image_size**2)
        return tf.reshape(pixels, (-1, self.image_size, self.image_size, 3))


class InMemory:
    """All of them in three variables; an example is its place there."""

    def __init__(self, source: Encoded):
        self.split = source.split
        self._first = tf.math.cumsum(tf.constant(self.split.lengths, tf.int64), exclusive=True)
        self._lengths = tf.constant(self.split.lengths, tf.int64)
        batches, count = in_order(source), sum(self.split.lengths)
        # Variables, because a dataset is copied with its constants whenever somebody begins to read it.
        with tf.device("CPU"):
            self._all = [tf.Variable(tf.zeros((count, *s.shape[1:]), s.dtype)) for s in batches.element_spec]
        for number, batch in enumerate(batches):
            for values, part in zip(self._all, batch, strict=True):
                values[number * _BATCH : number * _BATCH + len(part)].assign(part)

    def shard(self, index: tf.Tensor) -> tf.data.Dataset:
        """The examples of one shard, as what `load` takes."""
        first = self._first[index]
        return tf.data.Dataset.range(first, first + self._lengths[index])

    def load(self, batch: tf.Tensor) -> Loaded:
        """The images and what they are; a category of -1 where there is none."""
        return tuple(tf.gather(values, batch) for values in self._all)


def in_order(source: "Encoded | InMemory", batch_size: int = _BATCH, kept: bytes = b"") -> tf.data.Dataset:
    """Batches of all examples as they are stored, decoded; or of those that are `kept`, see `records.Split`."""
    examples = tf.data.Dataset.range(len(source.split.files)).flat_map(source.shard)
    if kept:
        examples = only(examples, tf.constant(np.frombuffer(kept, bool)))
    return examples.batch(batch_size).map(source.load, num_parallel_calls=tf.data.AUTOTUNE).prefetch(1)


def only(examples: tf.data.Dataset, chosen: tf.Tensor) -> tf.data.Dataset:
    """Those whose flag, bool (examples,), is set."""
    both = tf.data.Dataset.zip(examples, tf.data.Dataset.from_tensor_slices(chosen))
    return both.filter(lambda _, flag: flag).map(lambda example, _: example)


def source(records: Records, name: str, image_size: int, kind: str = "none") -> Encoded | InMemory | OnDisk:
    """What the examples of the split `name` are read from, and where that is, said in the log.

    Args:
        kind: `memory`; `disk`, a folder among the records that later trainings find; `none`; or `auto`: the first of
            these three that takes at most a quarter of what is free.

    Raises:
        DataError: there is no such split, it does not fit where `kind` says, or it is damaged.
    """
    if kind not in (*KINDS, "auto"):
        raise ValueError(f"images are kept in {', '.join(KINDS)} or auto, not in {kind}")
    split = records.split(name)
    encoded = Encoded(split, image_size, has_category=bool(records.categories))
    folder = records.folder / f"decoded-{name}-{image_size}"
    number = sum(split.lengths)
    size = number * 3 * image_size**2
    can_write = os.access(records.folder, os.W_OK)
    free = {
        "memory": psutil.virtual_memory().available,
        "disk": shutil.disk_usage(records.folder).free * can_write,
        "none": size,
    }
    if _is_there(folder, split) and kind in ("auto", "disk"):
        kind = "disk"
    elif kind == "auto":
        kind = next(kind for kind, bytes_free in free.items() if kind == "none" or _SHARE * size <= bytes_free)
    elif size > free[kind]:
        raise DataError(f"{number} images decoded take {_gib(size)}, and {kind} has {_gib(free[kind])} free")
    if kind == "none":
        return encoded
    _log.info(
        "%s: %d images at %d pixels, %s, are kept decoded %s",
        *(name, number, image_size, _gib(size), "in memory" if kind == "memory" else f"in {folder}"),
    )
    with corruption.named(split):
        return InMemory(encoded) if kind == "memory" else _on_disk(encoded, folder)


def _on_disk(encoded: Encoded, folder: Path) -> OnDisk:
    split = encoded.split
    if not _is_there(folder, split):
        # Of several trainings that begin at once the first writes, and the others find what it wrote.
        with atomic.locked(folder):
            if not _is_there(folder, split):
                _write(encoded, folder)
    files = [os.fspath(folder / Path(path).name) for path in split.files]
    return OnDisk(replace(split, files=files), encoded.image_size, has_category=encoded.has_category)


def _is_there(folder: Path, split: Split) -> bool:
    marker = folder / _MARKER
    return marker.is_file() and json.loads(marker.read_text()) == _content(folder, split)


def _content(folder: Path, split: Split) -> dict:
    """What tells whether the shards in `folder` are those that were written."""
    paths = [folder / Path(path).name for path in split.files]
    sizes = [path.stat().st_size if path.is_file() else 0 for path in paths]
    return {"version": _VERSION, "lengths": split.lengths, "sizes": sizes}


def _write(encoded: Encoded, folder: Path) -> None:
    with atomic.folder(folder, marker=_MARKER) as partial:
        _write_shards(encoded, partial)
        (partial / _MARKER).write_text(json.dumps(_content(partial, encoded.split)))


def _write_shards(encoded: Encoded, folder: Path) -> None:
    examples = (
        (image, *rest) for batch in in_order(encoded) for image, *rest in zip(*map(_numpy, batch), strict=True)
    )
    for path, length in zip(encoded.split.files, encoded.split.lengths, strict=True):
        with tf.io.TFRecordWriter(os.fspath(folder / Path(path).name)) as writer:
            for image, label, category in islice(examples, length):
                example = tf.train.Example()
                feature = example.features.feature
                feature["image"].bytes_list.value.append(image.tobytes())
                feature["label"].int64_list.value.append(label)
                feature["category"].int64_list.value.append(category)
                writer.write(example.SerializeToString())


def _numpy(tensor: tf.Tensor) -> np.ndarray:
    return tensor.numpy()


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
