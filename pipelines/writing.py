"""Writing one shard: the part of a conversion that runs in a worker process."""

import hashlib
import multiprocessing
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import tensorflow as tf

from pipelines.decoding import JPEG, decodable, decode, decode_jpeg
from pipelines.errors import DataError
from pipelines.examples import Example
from pipelines.headers import UnreadableError, read_header, why_unreadable
from pipelines.records import NO_CATEGORY
from pipelines.shards import Account, Quarantined, Shard, Treatment

_CHUNK_FILES, _CHUNK_BYTES = 64, 32 * 2**20  # decoded with one call into TensorFlow; all in memory at once


@dataclass
class _Loaded:
    """A file in memory, and what its record will say."""

    example: Example
    image: bytes  # to be stored
    sha256: str  # of the file as found
    format: str
    height: int
    width: int
    stored: str  # "as found", "transcoded" or "equalised"


def start_worker() -> None:
    """Set up a worker process: it ends with its parent, leaves Ctrl-C to it, and keeps to one core and no GPU."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def end_with_parent():
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def write_shard(shard: Shard, examples: list[Example], treatment: Treatment) -> None:
    """Write `examples` as `shard`, then its account; either appears under its name when it is complete.

    Raises:
        DataError: a file cannot be read and `treatment` says to stop there.
    """
    account = Account()
    partial = shard.account_path.with_suffix(f".partial-{os.getpid()}")
    try:
        with tf.io.TFRecordWriter(os.fspath(partial)) as writer:
            for loaded in _load_all(examples, treatment, account):
                writer.write(_serialise(loaded, treatment.categories))
                _count(loaded, account)
        account.bytes = os.path.getsize(partial)
        os.replace(partial, shard.path)
    finally:
        partial.unlink(missing_ok=True)
    account.save(shard.account_path)


def _load_all(examples: list[Example], treatment: Treatment, account: Account) -> Iterator[_Loaded]:
    """Those of the examples that can be stored; the others go to `account.quarantined`."""
    for chunk in _chunks(examples, treatment, account):
        yield from _verified(chunk, account) if treatment.verify else chunk
        if treatment.fail_on_bad and account.quarantined:
            bad = account.quarantined[0]
            raise DataError(f"{bad.path}: {bad.reason}; without --on-bad fail it would be listed and left out")


def _chunks(examples: list[Example], treatment: Treatment, account: Account) -> Iterator[list[_Loaded]]:
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


def _load(example: Example, treatment: Treatment) -> _Loaded | Quarantined:
    try:
        path = os.path.join(treatment.root, example.path)
        if not stat.S_ISREG(os.stat(path).st_mode):  # a named pipe, which nobody may ever write to
            return Quarantined(example.path, "not a file", 0, "")
        with open(path, "rb") as file:
            found = file.read()
            status = os.fstat(file.fileno())
    except OSError as error:
        return Quarantined(example.path, error.strerror or str(error), 0, "")
    digest = hashlib.sha256(found).hexdigest()
    try:
        if (status.st_size, status.st_mtime_ns) != (example.bytes, example.modified):
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
        return Quarantined(example.path, str(error), len(found), digest)
    except tf.errors.InvalidArgumentError:
        return Quarantined(example.path, why_unreadable(found), len(found), digest)
    return _Loaded(example, image, digest, header.format, header.height, header.width, stored)


def _checker(decoder: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
    # One call for many images costs a fraction of one each; one after the other, for memory's sake.
    def check(encoded: tf.Tensor) -> tf.Tensor:
        sizes = tf.map_fn(
            lambda image: tf.size(decoder(image)), encoded, fn_output_signature=tf.int32, parallel_iterations=1
        )
        return tf.reduce_sum(tf.cast(sizes, tf.int64))

    return tf.function(check, input_signature=[tf.TensorSpec([None], tf.string)])


_check_jpegs, _check_any = _checker(decode_jpeg), _checker(decode)


def _verified(chunk: list[_Loaded], account: Account) -> list[_Loaded]:
    """Those of `chunk` that can be decoded; the others are quarantined."""
    if not chunk:
        return []
    check = _check_jpegs if all(loaded.image.startswith(JPEG) for loaded in chunk) else _check_any
    try:
        check(tf.constant([loaded.image for loaded in chunk]))
    except tf.errors.InvalidArgumentError:
        if len(chunk) > 1:
            return [good for loaded in chunk for good in _verified([loaded], account)]
        (bad,) = chunk
        reason = why_unreadable(bad.image)
        account.quarantined.append(Quarantined(bad.example.path, reason, bad.example.bytes, bad.sha256))
        return []
    return chunk


def _serialise(loaded: _Loaded, categories: list[str]) -> bytes:
    record = tf.train.Example()
    feature = record.features.feature
    example = loaded.example
    for name, text in (
        ("image", loaded.image),
        ("path", os.fsencode(example.path)),
        ("source", example.source.encode()),
        ("group", example.group.encode()),
        ("sha256", loaded.sha256.encode()),
        ("format", loaded.format.encode()),
        ("stored", loaded.stored.encode()),
    ):
        feature[name].bytes_list.value.append(text)
    for name, number in (("label", example.label), ("height", loaded.height), ("width", loaded.width)):
        feature[name].int64_list.value.append(number)
    if categories:
        index = categories.index(example.category) if example.category else NO_CATEGORY
        feature["category"].int64_list.value.append(index)
    return record.SerializeToString(deterministic=True)


def _count(loaded: _Loaded, account: Account) -> None:
    example = loaded.example
    stored = loaded.sha256 if loaded.stored == "as found" else hashlib.sha256(loaded.image).hexdigest()
    line = f"{stored} {example.label} {example.category} {example.split}"
    account.content += int.from_bytes(hashlib.sha256(line.encode()).digest())
    account.counts[example.label, example.category] += 1
