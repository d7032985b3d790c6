"""Writing one shard: the part of a conversion that runs in a worker process."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import tensorflow as tf

from pipelines.datasets.examples import UNLABELLED, Example
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
from pipelines.records.schema import NO_CATEGORY, Record, RecordSerializer, Stored
from pipelines.records.shards import ConversionOptions, Quarantined, Shard, ShardStats

_CHUNK_FILES, _CHUNK_BYTES = 64, 32 * 2**20  # in memory at once, and verified by one call into TensorFlow


@dataclass
class _Loaded:
    """A file in memory, ready to be stored."""

    example: Example
    image: bytes  # to be stored
    sha256: str  # of the file as found
    header: Header  # with the format as found and the size as stored
    stored: Stored


def start_worker(verify: bool) -> None:
    """Keep a worker process to one core, no GPU, and off the terminal."""
    pillow.silence()
    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if verify:
        _check_jpegs(tf.constant([], tf.string))  # traced now, not when the first images are waiting


def write_shard(shard: Shard, examples: list[Example], options: ConversionOptions) -> None:
    """Write `examples` as `shard`, then its statistics; both files appear only when they are complete.

    Raises:
        DataError: a file cannot be read, and `options` say to stop there.
    """
    stats, serialize = ShardStats(), RecordSerializer(has_category=bool(options.categories))
    partial = shard.stats_path.with_suffix(f".partial-{os.getpid()}")
    try:
        with tf.io.TFRecordWriter(os.fspath(partial)) as writer:
            for loaded in _load_all(examples, options, stats):
                writer.write(serialize(_record(loaded, options.categories)))
                _count(loaded, stats)
        stats.bytes = os.path.getsize(partial)
        os.replace(partial, shard.path)
    finally:
        partial.unlink(missing_ok=True)
    stats.save(shard.stats_path)


# --- loading ---------------------------------------------------------------------------------------------------


def _load_all(examples: list[Example], options: ConversionOptions, stats: ShardStats) -> Iterator[_Loaded]:
    """The examples that can be stored; the others go to `stats.quarantined`."""
    for chunk in _load_chunks(examples, options, stats):
        yield from _verified(chunk, stats) if options.verify else chunk
        if options.fail_on_bad and stats.quarantined:
            bad = stats.quarantined[0]
            raise DataError(f"{bad.path}: {bad.reason}; without --on-bad fail it would be quarantined")


def _load_chunks(examples: list[Example], options: ConversionOptions, stats: ShardStats) -> Iterator[list[_Loaded]]:
    chunk: list[_Loaded] = []
    size = 0
    for example in examples:
        loaded = _load(example, options)
        if isinstance(loaded, Quarantined):
            stats.quarantined.append(loaded)
            continue
        chunk.append(loaded)
        size += len(loaded.image)
        if len(chunk) == _CHUNK_FILES or size > _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    yield chunk


def _load(example: Example, options: ConversionOptions) -> _Loaded | Quarantined:
    try:
        content, status = read_with_status(os.path.join(options.root, example.path))
    except OSError as error:
        return Quarantined(example.path, error.strerror or str(error), 0, "")
    digest = hashlib.sha256(content).hexdigest()
    try:
        _check_file(content, status, example)
        header = read_header(content, max_pixels=options.max_pixels)
        image, stored = _to_store(content, header, example, options)
        if stored is not Stored.AS_FOUND:
            header = replace(read_header(image), format=header.format)
    except UnreadableError as error:
        reason = f"{error}; --max-pixels allows more" if isinstance(error, TooLargeError) else str(error)
        is_complete = len(content) == status.st_size
        return Quarantined(example.path, reason, status.st_size, digest if is_complete else "")
    except tf.errors.InvalidArgumentError:
        return Quarantined(example.path, unreadable_reason(content), len(content), digest)
    return _Loaded(example, image, digest, header, stored)


def _check_file(content: bytes, status: os.stat_result, example: Example) -> None:
    """Check that this is a file of a reasonable size, and the same as when the folder was read."""
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableError("not a file")
    if status.st_size > MAX_FILE_BYTES:
        raise UnreadableError(f"more than {MAX_FILE_BYTES // 2**20} MiB")
    if (len(content), status.st_mtime_ns) != (example.bytes, example.modified):
        raise UnreadableError("the file changed during the conversion; convert again")


def _to_store(content: bytes, header: Header, example: Example, options: ConversionOptions) -> tuple[bytes, Stored]:
    image = decodable(content, header)
    if options.equaliser:
        return options.equaliser(decode(tf.constant(image)).numpy(), example.path), Stored.EQUALISED
    return image, Stored.AS_FOUND if image is content else Stored.TRANSCODED


# --- verifying -------------------------------------------------------------------------------------------------


def _make_check(decoder: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
    # One call for many images costs a fraction of one call for each; decoded one after the other to save memory.
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def check(encoded: tf.Tensor) -> tf.Tensor:
        values = tf.constant(0, tf.int64)
        for index in tf.range(tf.size(encoded)):
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            values += tf.size(decoder(encoded[index]), tf.int64)
        return values

    return check


_check_jpegs, _check_any = _make_check(decode_jpeg), _make_check(decode)


def _verified(chunk: list[_Loaded], stats: ShardStats) -> list[_Loaded]:
    """The images of `chunk` that can be decoded; the others are quarantined."""
    if not chunk:
        return []
    check = _check_jpegs if all(loaded.image.startswith(JPEG_SIGNATURE) for loaded in chunk) else _check_any
    try:
        check(tf.constant([loaded.image for loaded in chunk]))
    except tf.errors.InvalidArgumentError:
        if len(chunk) > 1:
            return [good for loaded in chunk for good in _verified([loaded], stats)]
        (bad,) = chunk
        reason = unreadable_reason(bad.image)
        stats.quarantined.append(Quarantined(bad.example.path, reason, bad.example.bytes, bad.sha256))
        return []
    return chunk


# --- storing ---------------------------------------------------------------------------------------------------


def _record(loaded: _Loaded, categories: list[str]) -> Record:
    example, header = loaded.example, loaded.header
    return Record(
        image=loaded.image,
        label=example.label,
        source=example.source,
        group=example.group,
        path=example.path,
        sha256=loaded.sha256,
        format=header.format,
        stored=loaded.stored,
        height=header.height,
        width=header.width,
        category=categories.index(example.category) if categories and example.category else NO_CATEGORY,
    )


def _count(loaded: _Loaded, stats: ShardStats) -> None:
    example = loaded.example
    is_as_found = loaded.stored is Stored.AS_FOUND
    digest = loaded.sha256 if is_as_found else hashlib.sha256(loaded.image).hexdigest()
    line = f"{digest} {example.label} {example.category} {example.split}"
    stats.content += int.from_bytes(hashlib.sha256(line.encode()).digest())
    stats.counts[example.label, example.category] += 1
    if example.label != UNLABELLED:
        stats.labelled.append((loaded.sha256, example.label, example.path))
