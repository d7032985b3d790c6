"""Damaged shards: which record it is, and going on without it.

A TFRecord file is a row of frames: the record's length (8 bytes, little-endian), a check sum of that (4 bytes), the
record, and a check sum of it (4 bytes). The check sums are masked CRC-32C, as TensorFlow's
`core/lib/io/record_writer.h` and `core/lib/hash/crc32c.h` define them.
"""

import os
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import google_crc32c
import tensorflow as tf

from pipelines.datasets.examples import LABELS, UNLABELLED
from pipelines.decoding import decode
from pipelines.exceptions import DataError
from pipelines.media.headers import unreadable_reason
from pipelines.records.store import NO_CATEGORY, Records, Split

_LENGTH, _CHECK_SUM = struct.Struct("<Q"), struct.Struct("<I")


@dataclass(frozen=True)
class Damage:
    """What is wrong with a shard: its path, the number of the record in it, from 0, and how many are lost by it."""

    shard: str
    record: int
    reason: str
    lost: int

    def __str__(self) -> str:
        return f"{self.shard}, record {self.record}: {self.reason}"


def check_sizes(split: Split) -> None:
    """Look whether the shards are as long as they were written, without reading them.

    Raises:
        DataError: one is missing, or cut short.
    """
    there = [path for path in split.files if os.path.exists(path)]
    if len(there) < len(split.files) or sum(map(os.path.getsize, there)) != split.bytes:
        raise _error(next(find(split), "the shards are not as long as they were written"))


@contextmanager
def named(*splits: Split) -> Iterator[None]:
    """Where reading these fails in the block, say which record it is.

    Raises:
        DataError: a shard is damaged, or holds a file that is no image.
    """
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        for split in splits:
            for damage in find(split):
                raise _error(damage) from error
        for split in splits:
            for damage in _undecodable(split):
                raise DataError(f"{damage}; make the records again, without --no-verify") from error
        if isinstance(error, tf.errors.DataLossError):
            raise DataError(
                "the records are whole, but images that were kept decoded are damaged; delete the folders decoded-* "
                "among the records, or train with --cache memory"
            ) from error
        raise


def find(split: Split) -> Iterator[Damage]:
    """All that is damaged in the shards of `split`."""
    for path, length in zip(split.files, split.lengths, strict=True):
        yield from (found for found in _records(path, length) if isinstance(found, Damage))


def _undecodable(split: Split) -> Iterator[Damage]:
    for path, length in zip(split.files, split.lengths, strict=True):
        for number, record in enumerate(_records(path, length)):
            if reason := _why_undecodable(record):
                yield Damage(path, number, reason, 1)


def without(records: Records, folder: Path) -> tuple[Records, list[Damage]]:
    """The same records less what is damaged in them, and what that is.

    Args:
        folder: where shards go that must be written anew, without the damaged records; the others stay where
            they are.
    """
    splits, all_damage = {}, []
    for name, split in records.splits.items():
        damage = list(find(split))
        splits[name] = _intact(split, {found.shard for found in damage}, records.categories, folder)
        all_damage += damage
    if not all_damage:
        return records, []
    # In its own folder, because what is kept beside the records is made of all of them.
    return replace(records, folder=folder, splits=splits, skipped=sum(d.lost for d in all_damage)), all_damage


def _intact(split: Split, damaged: set[str], categories: list[str], folder: Path) -> Split:
    if not damaged:
        return split
    files, lengths, labels, classes = [], [], Counter(), Counter()
    for path, length in zip(split.files, split.lengths, strict=True):
        good = [record for record in _records(path, length) if isinstance(record, bytes)]
        for record in good:
            feature = tf.train.Example.FromString(record).features.feature
            labels[feature["label"].int64_list.value[0]] += 1
            classes[(*feature["category"].int64_list.value, NO_CATEGORY)[0]] += 1
        files.append(_rewritten(path, good, folder) if path in damaged else path)
        lengths.append(len(good))
    return Split(
        files,
        lengths,
        sum(map(os.path.getsize, files)),
        sum(lengths),
        {LABELS[label]: number for label, number in sorted(labels.items()) if label != UNLABELLED},
        {categories[index]: number for index, number in sorted(classes.items()) if index != NO_CATEGORY},
    )


def _rewritten(path: str, records: list[bytes], folder: Path) -> str:
    new = os.fspath(folder / Path(path).name)
    with tf.io.TFRecordWriter(new) as writer:
        for record in records:
            writer.write(record)
    return new


def _records(path: str, length: int) -> Iterator[bytes | Damage]:
    """The records of a shard that should hold `length`, in order, or what is wrong with them."""
    if not os.path.exists(path):
        yield Damage(path, 0, "the file is missing", length)
        return
    with open(path, "rb") as file:
        for number in range(length):
            rest = length - number
            header, header_check = file.read(_LENGTH.size), file.read(_CHECK_SUM.size)
            if len(header_check) < _CHECK_SUM.size:
                yield Damage(path, number, "the file ends before it", rest)
                return
            if not _fits(header, header_check):
                yield Damage(path, number, "its length is damaged, so that the rest of the file is lost", rest)
                return
            record, check = file.read(*_LENGTH.unpack(header)), file.read(_CHECK_SUM.size)
            if len(check) < _CHECK_SUM.size:
                yield Damage(path, number, "the file ends within it", rest)
                return
            yield record if _fits(record, check) else Damage(path, number, "its content is damaged", 1)
        if file.read(1):
            yield Damage(path, length, "more follows than was written", 0)


def _fits(content: bytes, check: bytes) -> bool:
    plain = google_crc32c.value(content)
    masked = ((plain >> 15 | plain << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return _CHECK_SUM.unpack(check) == (masked,)


def _why_undecodable(record: bytes) -> str:
    feature = tf.train.Example.FromString(record).features.feature
    image, path = feature["image"].bytes_list.value[0], os.fsdecode(feature["path"].bytes_list.value[0])
    try:
        decode(tf.constant(image))
    except tf.errors.InvalidArgumentError:
        return f"{path} was stored unchecked: {unreadable_reason(image)}"
    return ""


def _error(damage: Damage | str) -> DataError:
    return DataError(f"{damage}; make the records again, or go on without it: --skip-corrupt")
