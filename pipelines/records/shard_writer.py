"""Writing one shard: the part of a conversion that runs in a worker process."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import tensorflow as tf

from pipelines.datasets.examples import Example
from pipelines.decoding import decodable, decode, decode_jpeg
from pipelines.exceptions import DataError
from pipelines.media import pillow
from pipelines.media.headers import (
    JPEG_SIGNATURE,
    MAX_FILE_BYTES,
    Header,
    TooLargeError,
    UnreadableError,
    read_header,
    read_with_status,
    unreadable_reason,
)
from pipelines.records.shards import ConversionOptions, Quarantined, Shard, ShardStats
from pipelines.records.store import NO_CATEGORY

_CHUNK_FILES, _CHUNK_BYTES = 64, 32 * 2**20  # decoded with one call into TensorFlow; all in memory at once


@dataclass
class _Loaded:
    """A file in memory, and what its record will say."""

    example: Example
    image: bytes  # to be stored
    sha256: str  # of the file as found
    header: Header  # with the format as found, and the size as stored
    stored: str  # "as found", "transcoded" or "equalised"


def start_worker(verify: bool) -> None:
    """Keep a worker process to one core, no GPU, and off the terminal."""
    pillow.silence()
    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if verify:
        _check_jpegs(tf.constant([], tf.string))  # traced now, and not when the first images wait for it


def write_shard(shard: Shard, examples: list[Example], treatment: ConversionOptions) -> None:
    """Write `examples` as `shard`, then its account; either appears under its name when it is complete.

    Raises:
        DataError: a file cannot be read and `treatment` says to stop there.
    """
    account, record = ShardStats(), _Record(treatment.categories)
    partial = shard.account_path.with_suffix(f".partial-{os.getpid()}")
    try:
        with tf.io.TFRecordWriter(os.fspath(partial)) as writer:
            for loaded in _load_all(examples, treatment, account):
                writer.write(record.serialise(loaded))
                _count(loaded, account)
        account.bytes = os.path.getsize(partial)
        os.replace(partial, shard.path)
    finally:
        partial.unlink(missing_ok=True)
    account.save(shard.account_path)


def _load_all(examples: list[Example], treatment: ConversionOptions, account: ShardStats) -> Iterator[_Loaded]:
    """Those of the examples that can be stored; the others go to `account.quarantined`."""
    for chunk in _chunks(examples, treatment, account):
        yield from _verified(chunk, account) if treatment.verify else chunk
        if treatment.fail_on_bad and account.quarantined:
            bad = account.quarantined[0]
            raise DataError(f"{bad.path}: {bad.reason}; without --on-bad fail it would be listed and left out")


def _chunks(examples: list[Example], treatment: ConversionOptions, account: ShardStats) -> Iterator[list[_Loaded]]:
    chunk, size = [], 0
    for example in examples:
        loaded = _load(example, treatment)
        if isinstance(loaded, Quarantined):
            account.quarantined.append(loaded)
            continue
        chunk.append(loaded)
        size += len(loaded.image)
        if len(chunk) == _CHUNK_FILES or size > _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    yield chunk


def _load(example: Example, treatment: ConversionOptions) -> _Loaded | Quarantined:
    try:
        found, status = read_with_status(os.path.join(treatment.root, example.path))
    except OSError as error:
        return Quarantined(example.path, error.strerror or str(error), 0, "")
    digest = hashlib.sha256(found).hexdigest()
    try:
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableError("not a file")
        if status.st_size > MAX_FILE_BYTES:
            raise UnreadableError(f"more than {MAX_FILE_BYTES // 2**20} MiB")
        if (len(found), status.st_mtime_ns) != (example.bytes, example.modified):
            raise UnreadableError("it changed while the folder was converted; convert again")
        header = read_header(found, max_pixels=treatment.max_pixels)
        image, stored = decodable(found, header), "as found"
        if treatment.equaliser:
            image, stored = treatment.equaliser(decode(tf.constant(image)).numpy(), example.path), "equalised"
        elif image is not found:
            stored = "transcoded"
        if image is not found:
            header = replace(read_header(image), format=header.format)
    except UnreadableError as error:
        reason = f"{error}; --max-pixels allows more" if isinstance(error, TooLargeError) else str(error)
        return Quarantined(example.path, reason, status.st_size, digest if len(found) == status.st_size else "")
    except tf.errors.InvalidArgumentError:
        return Quarantined(example.path, unreadable_reason(found), len(found), digest)
    return _Loaded(example, image, digest, header, stored)


def _checker(decoder: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
    # One call for many images costs a fraction of one each; one after the other, for memory's sake.
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def check(encoded: tf.Tensor) -> tf.Tensor:
        values = tf.constant(0, tf.int64)
        for index in tf.range(tf.size(encoded)):
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            values += tf.size(decoder(encoded[index]), tf.int64)
        return values

    return check


_check_jpegs, _check_any = _checker(decode_jpeg), _checker(decode)


def _verified(chunk: list[_Loaded], account: ShardStats) -> list[_Loaded]:
    """Those of `chunk` that can be decoded; the others are quarantined."""
    if not chunk:
        return []
    check = _check_jpegs if all(loaded.image.startswith(JPEG_SIGNATURE) for loaded in chunk) else _check_any
    try:
        check(tf.constant([loaded.image for loaded in chunk]))
    except tf.errors.InvalidArgumentError:
        if len(chunk) > 1:
            return [good for loaded in chunk for good in _verified([loaded], account)]
        (bad,) = chunk
        reason = unreadable_reason(bad.image)
        account.quarantined.append(Quarantined(bad.example.path, reason, bad.example.bytes, bad.sha256))
        return []
    return chunk


class _Record:
    """A tf.train.Example that is filled again for each image: making its eleven fields anew costs twice the time."""

    _TEXTS = ("image", "path", "source", "group", "sha256", "format", "stored")
    _NUMBERS = ("label", "height", "width", "category")

    def __init__(self, categories: list[str]):
        self._categories = categories
        self._record = tf.train.Example()
        feature = self._record.features.feature
        self._texts = {name: feature[name].bytes_list.value for name in self._TEXTS}
        numbers = self._NUMBERS if categories else self._NUMBERS[:-1]
        self._numbers = {name: feature[name].int64_list.value for name in numbers}
        for values in self._texts.values():
            values.append(b"")
        for values in self._numbers.values():
            values.append(0)

    def serialise(self, loaded: _Loaded) -> bytes:
        example, texts, numbers = loaded.example, self._texts, self._numbers
        texts["image"][0] = loaded.image
        texts["path"][0] = os.fsencode(example.path)
        texts["source"][0] = example.source.encode()
        texts["group"][0] = example.group.encode()
        texts["sha256"][0] = loaded.sha256.encode()
        texts["format"][0] = loaded.header.format.encode()
        texts["stored"][0] = loaded.stored.encode()
        numbers["label"][0] = example.label
        numbers["height"][0] = loaded.header.height
        numbers["width"][0] = loaded.header.width
        if self._categories:
            known = example.category
            numbers["category"][0] = self._categories.index(known) if known else NO_CATEGORY
        return self._record.SerializeToString(deterministic=True)


def _count(loaded: _Loaded, account: ShardStats) -> None:
    example = loaded.example
    stored = loaded.sha256 if loaded.stored == "as found" else hashlib.sha256(loaded.image).hexdigest()
    line = f"{stored} {example.label} {example.category} {example.split}"
    account.content += int.from_bytes(hashlib.sha256(line.encode()).digest())
    account.counts[example.label, example.category] += 1
