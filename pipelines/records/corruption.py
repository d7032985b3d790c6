"""Corrupt shards: locating the corrupt records, and continuing without them.

A TFRecord file is a sequence of frames: the length of the record (8 bytes, little-endian), a checksum of the length
(4 bytes), the record, and a checksum of the record (4 bytes). The checksums are masked CRC-32C, as defined in
TensorFlow's `core/lib/io/record_writer.h` and `core/lib/hash/crc32c.h`.
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
from pipelines.records import schema
from pipelines.records.schema import NO_CATEGORY
from pipelines.records.store import Records, Split

_LENGTH, _CHECKSUM = struct.Struct("<Q"), struct.Struct("<I")


@dataclass(frozen=True)
class Corruption:
    """What is wrong with a shard, from one record on.

    Attributes:
        shard: path of the file.
        record: index of the record in the shard.
        reason: a few words.
        lost: number of records that cannot be read because of it.
    """

    shard: str
    record: int
    reason: str
    lost: int

    def __str__(self) -> str:
        return f"{self.shard}, record {self.record}: {self.reason}"


def check_sizes(split: Split) -> None:
    """Check that the shards have the size they were written with, without reading them.

    Raises:
        DataError: a shard is missing, or shorter or longer than it was.
    """
    existing = [path for path in split.files if os.path.exists(path)]
    if len(existing) < len(split.files) or sum(map(os.path.getsize, existing)) != split.size:
        raise _error(next(scan(split), "the size of the shards is not what was written"))


@contextmanager
def locate_errors(*splits: Split) -> Iterator[None]:
    """Turn a read error of TensorFlow inside the block into one that names the record.

    Raises:
        DataError: a shard of `splits` is corrupt, or holds an image that cannot be decoded.
    """
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        for split in splits:
            for corruption in scan(split):
                raise _error(corruption) from error
        for split in splits:
            for corruption in _undecodable(split):
                raise DataError(f"{corruption}; make the records again, without --no-verify") from error
        if isinstance(error, tf.errors.DataLossError):
            raise DataError(
                "the records are intact, but the cache of decoded images is corrupt; delete the folders decoded-* "
                "among the records, or train with --cache memory"
            ) from error
        raise


def scan(split: Split) -> Iterator[Corruption]:
    """Read the shards of a split and yield everything that is corrupt in them."""
    for path, length in zip(split.files, split.lengths, strict=True):
        for record in _read_shard(path, length):
            if isinstance(record, Corruption):
                yield record


def drop_corrupt(records: Records, folder: Path) -> tuple[Records, list[Corruption]]:
    """The same records without the corrupt ones.

    Args:
        records: to be read once, completely.
        folder: where corrupt shards are rewritten without the corrupt records; intact shards stay where they are.

    Returns:
        The intact records, whose `skipped` counts those that are lost, and what was corrupt.
    """
    splits: dict[str, Split] = {}
    corruptions: list[Corruption] = []
    for name, split in records.splits.items():
        of_split = list(scan(split))
        shards = {corruption.shard for corruption in of_split}
        splits[name] = _rewrite_split(split, shards, records.categories, folder) if shards else split
        corruptions += of_split
    if not corruptions:
        return records, []
    # Another folder, because caches beside the records belong to all of them.
    skipped = sum(corruption.lost for corruption in corruptions)
    return replace(records, folder=folder, splits=splits, skipped=skipped), corruptions


def _rewrite_split(split: Split, corrupt_shards: set[str], categories: list[str], folder: Path) -> Split:
    files: list[str] = []
    lengths: list[int] = []
    label_counts: Counter[int] = Counter()
    category_counts: Counter[int] = Counter()
    for path, length in zip(split.files, split.lengths, strict=True):
        intact = [record for record in _read_shard(path, length) if isinstance(record, bytes)]
        for record in map(schema.parse, intact):
            label_counts[record.label] += 1
            category_counts[record.category] += 1
        files.append(_rewrite_shard(path, intact, folder) if path in corrupt_shards else path)
        lengths.append(len(intact))
    return Split(
        files,
        lengths,
        sum(map(os.path.getsize, files)),
        sum(lengths),
        {LABELS[label]: count for label, count in sorted(label_counts.items()) if label != UNLABELLED},
        {categories[index]: count for index, count in sorted(category_counts.items()) if index != NO_CATEGORY},
    )


def _rewrite_shard(path: str, records: list[bytes], folder: Path) -> str:
    rewritten = os.fspath(folder / Path(path).name)
    with tf.io.TFRecordWriter(rewritten) as writer:
        for record in records:
            writer.write(record)
    return rewritten


def _read_shard(path: str, length: int) -> Iterator[bytes | Corruption]:
    """The serialized records of a shard that should hold `length`, in order, or what is corrupt instead."""
    if not os.path.exists(path):
        yield Corruption(path, 0, "the file is missing", length)
        return
    with open(path, "rb") as file:
        for index in range(length):
            remaining = length - index
            header, header_checksum = file.read(_LENGTH.size), file.read(_CHECKSUM.size)
            if len(header_checksum) < _CHECKSUM.size:
                yield Corruption(path, index, "the file ends before it", remaining)
                return
            if not _matches(header, header_checksum):
                yield Corruption(path, index, "its length is corrupt, so the rest of the file is lost", remaining)
                return
            record, checksum = file.read(*_LENGTH.unpack(header)), file.read(_CHECKSUM.size)
            if len(checksum) < _CHECKSUM.size:
                yield Corruption(path, index, "the file ends within it", remaining)
                return
            yield record if _matches(record, checksum) else Corruption(path, index, "its content is corrupt", 1)
        if file.read(1):
            yield Corruption(path, length, "the file continues after the last record", 0)


def _matches(content: bytes, checksum: bytes) -> bool:
    crc = google_crc32c.value(content)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return _CHECKSUM.unpack(checksum) == (masked,)


def _undecodable(split: Split) -> Iterator[Corruption]:
    """The images of an otherwise intact split that cannot be decoded."""
    for path, length in zip(split.files, split.lengths, strict=True):
        for index, record in enumerate(_read_shard(path, length)):
            if isinstance(record, bytes) and (reason := _why_undecodable(record)):
                yield Corruption(path, index, reason, 1)


def _why_undecodable(serialized: bytes) -> str:
    record = schema.parse(serialized)
    try:
        decode(tf.constant(record.image))
    except tf.errors.InvalidArgumentError:
        return f"{record.path} was stored unverified: {unreadable_reason(record.image)}"
    return ""


def _error(corruption: Corruption | str) -> DataError:
    return DataError(f"{corruption}; make the records again, or continue without it: --skip-corrupt")
