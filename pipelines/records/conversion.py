"""Converting examples to records: the shards are planned from the examples alone and written by worker processes.

A conversion works in a folder beside the final one. A shard appears there under its name once it is complete, and
its statistics after it, so that an interrupted conversion continues with the shards that have none. Nothing appears
in the final place before everything is written.
"""

import csv
import hashlib
import importlib.util
import json
import math
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, replace
from functools import partial
from itertools import islice
from pathlib import Path

from pipelines import atomic, spreadsheets
from pipelines.datasets.examples import LABELS, UNLABELLED, Example
from pipelines.datasets.layouts import Layout
from pipelines.datasets.split_checks import Counts, check_what_is_left
from pipelines.exceptions import DataError
from pipelines.media.headers import MAX_PIXELS
from pipelines.parallel import in_order, preload, worker_count, worker_pool
from pipelines.records import schema, store
from pipelines.records.equalization import Equaliser
from pipelines.records.shards import ConversionOptions, Quarantined, Shard, ShardStats
from pipelines.records.store import Manifest, SplitCounts

_REFUSED = "refused"  # in the work folder of a conversion that ended with an error about the data
_SHARD_BYTES = 64 * 2**20  # large enough to read fast, small enough to shuffle


def start_workers() -> None:
    """Start to load what worker processes need, while the caller does something else, such as finding the images."""
    writer = importlib.util.find_spec(".shard_writer", __package__)  # found, not imported: it loads TensorFlow
    if writer is None:
        raise ModuleNotFoundError("pipelines.records.shard_writer is missing; install ddkeras again")
    preload(writer.name, __name__)  # this module too: every worker needs it, and it loads TensorFlow Datasets


def write_records(
    layout: Layout,
    folder: str | os.PathLike,
    *,
    workers: int | None = None,
    verify: bool = True,
    max_pixels: int = MAX_PIXELS,
    on_bad: str = "quarantine",
    max_bad: float = 0.05,
    equaliser: Equaliser | None = None,
    progress: Callable[[int, int], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> Manifest:
    """Write the examples of `layout` as records; nothing appears at `folder` before all of them are written.

    However it is interrupted, it leaves the finished shards beside `folder`, and the next call with the same files
    and options continues from there. The same files and options give the same bytes, whatever the number of workers.

    Args:
        layout: the examples, in the order in which they are to be stored.
        folder: where the records go; earlier records there are replaced.
        workers: number of processes; None for one per core.
        verify: decode every image as a check; without it a damaged file stops the training that reads it.
        max_pixels: images with more are quarantined, and not decoded.
        on_bad: what to do with a file that cannot be read: `quarantine` lists it and leaves it out, `fail` stops.
        max_bad: the largest share of quarantined files that is not an error, from 0 to 1.
        equaliser: applied to every image; one that is too small for it is quarantined.
        progress: called with (images done, images in total).
        note: called with a sentence if an earlier conversion was interrupted, saying whether this one continues it,
            and with one for each label or class of which no image in a split can be read.

    Returns:
        The manifest, as stored in `records.json`: counts by split, label and category, the fingerprint, and
        read = written + quarantined.

    Raises:
        DataError: `folder` holds something other than records, or another process is writing to it; too many files
            cannot be read, or all files of a split, or of a label or class in train; or one cannot be read and
            `on_bad` is `fail`; or a file is labelled both real and fake.
    """
    options = ConversionOptions(
        layout.root.resolve(), layout.categories, verify, max_pixels, on_bad == "fail", equaliser
    )
    number = worker_count(workers, len(layout.examples))
    tell = note or (lambda sentence: None)
    start_workers()
    with atomic.resumable_folder(folder, marker=store.MANIFEST) as work, _marked_if_refused(work):
        with worker_pool(number, partial(_start_worker, verify)) as pool:
            staging = _resume(work, _signature(layout, options), tell)
            shards = _plan(layout, staging)
            unfinished = [shard for shard in shards if not shard.stats_path.exists()]
            done = sum(shard.length for shard in shards) - sum(shard.length for shard in unfinished)
            job = partial(_write_shard, options)
            for (shard, _), _ in in_order(pool, number, job, _with_examples(shards, unfinished, layout)):
                done += shard.length
                if progress:
                    progress(done, len(layout.examples))
        manifest = _finish(layout, shards, staging, equaliser.method if equaliser else "", max_bad, tell)
        os.rename(staging / "records", work / "final")
    return manifest


@contextmanager
def _marked_if_refused(work: Path) -> Iterator[None]:
    """Leave a mark in `work` if the data is refused, so that the next conversion does not call it interrupted."""
    try:
        yield
    except DataError:
        (work / _REFUSED).touch()
        raise


# --- planning --------------------------------------------------------------------------------------------------


def _resume(work: Path, signature: str, note: Callable[[str], None]) -> Path:
    """The folder inside `work` for these files and options, as an unfinished conversion of the same left it."""
    staging = work / signature
    tell = (lambda sentence: None) if (work / _REFUSED).exists() else note
    (work / _REFUSED).unlink(missing_ok=True)
    if staging.exists():
        tell("continuing a conversion that was interrupted")
    for path in work.iterdir():
        if path.is_dir() and path not in (staging, work / "old"):
            tell("a conversion was interrupted, but files or options have changed since: starting over")
            shutil.rmtree(path)
    (staging / "records").mkdir(parents=True, exist_ok=True)
    (staging / "stats").mkdir(exist_ok=True)
    for path in (staging / "stats").glob("*partial-*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return staging


def _signature(layout: Layout, options: ConversionOptions) -> str:
    """A hash of everything that decides the bytes of the shards: files, their sizes and times, and options."""
    options = replace(options, fail_on_bad=False)  # which decides whether there are shards, not what is in them
    return hashlib.sha256(f"{schema.VERSION} {options} {layout.examples.digest()}".encode()).hexdigest()[:16]


def _plan(layout: Layout, staging: Path) -> list[Shard]:
    """The shards, in the order of their examples."""
    shards = []
    for split, (count, size) in layout.examples.sizes().items():
        # Many small images also get several shards, to divide among workers and, in training, to interleave.
        wanted = max(1, -(-size // _SHARD_BYTES), min(8, count // 256), min(64, count // 2048))
        length = -(-count // wanted)
        number = -(-count // length)
        for index in range(number):
            path = store.shard_path(staging / "records", split, index, number)
            stats_path = staging / "stats" / f"{path.name}.json"
            shards.append(Shard(split, min(length, count - index * length), path, stats_path))
    return shards


# --- writing ---------------------------------------------------------------------------------------------------


def _with_examples(
    shards: list[Shard], unfinished: list[Shard], layout: Layout
) -> Iterator[tuple[Shard, list[Example]]]:
    """The unfinished shards, each with its examples."""
    examples = iter(layout.examples)
    for shard in shards:
        of_shard = list(islice(examples, shard.length))
        if shard in unfinished:
            yield shard, of_shard


# These import here, not at the top: TensorFlow takes seconds to load, and only the workers need it.


def _start_worker(verify: bool) -> None:
    from pipelines.records.shard_writer import start_worker  # noqa: PLC0415

    start_worker(verify)


def _write_shard(options: ConversionOptions, task: tuple[Shard, list[Example]]) -> None:
    from pipelines.records.shard_writer import write_shard  # noqa: PLC0415

    write_shard(*task, options)


# --- finishing -------------------------------------------------------------------------------------------------


def _finish(
    layout: Layout,
    shards: list[Shard],
    staging: Path,
    equalised: str,
    max_bad: float,
    note: Callable[[str], None],
) -> Manifest:
    """Sum up the statistics of the shards, and write the files that belong beside them."""
    folder = staging / "records"
    counts: dict[str, Counter[tuple[int, str]]] = {shard.split: Counter() for shard in shards}
    shard_lengths: dict[str, list[int]] = {shard.split: [] for shard in shards}
    shard_bytes: Counter[str] = Counter()
    content, with_quarantined, labelled = 0, [], _LabelledFiles()
    for shard in shards:
        stats = ShardStats.load(shard.stats_path)
        counts[shard.split] += stats.counts
        shard_lengths[shard.split].append(stats.counts.total())
        shard_bytes[shard.split] += stats.bytes
        content += stats.content
        labelled.add(stats.labelled)
        if stats.quarantined:
            with_quarantined.append(shard)
    labelled.check()
    quarantined = map(astuple, _quarantined(with_quarantined))
    _write_table(folder / "quarantine.csv", ["path", "reason", "bytes", "sha256"], quarantined)
    _write_table(folder / "left_out.csv", ["path", "reason"], layout.examples.left_out())
    read, written = len(layout.examples), sum(of_split.total() for of_split in counts.values())
    manifest: Manifest = {
        "version": schema.VERSION,
        "fingerprint": f"{content % 2**256:064x}",
        "source": os.fspath(layout.root.resolve()),
        "equalised": equalised,
        "left_out": sum(1 for _ in layout.examples.left_out()),
        "read": read,
        "written": written,
        "quarantined": read - written,
        "categories": layout.categories,
        "splits": {split: _split_counts(of_split) for split, of_split in counts.items()},
    }
    if first := next(_quarantined(with_quarantined), None):
        _check_quarantine(manifest, first, folder / "quarantine.csv", max_bad)
        left: Counts = Counter()
        for split, of_split in counts.items():
            left.update({(split, label, category, ""): number for (label, category), number in of_split.items()})
        for text in check_what_is_left(layout.examples.counts(), left, [(first.path, first.reason)]):
            note(text)
    store.write_metadata(folder, layout.categories, shard_lengths, shard_bytes)
    (folder / store.MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


class _LabelledFiles:
    """Finds files with the same content that are labelled both real and fake."""

    def __init__(self) -> None:
        self._table = sqlite3.connect("")  # a temporary file, so that millions need no more memory than ten
        self._table.execute("CREATE TABLE files (sha256 TEXT, label INTEGER, path BLOB)")

    def add(self, files: list[tuple[str, int, str]]) -> None:
        """Add the SHA-256, label and path of each."""
        rows = ((sha256, label, os.fsencode(path)) for sha256, label, path in files)
        self._table.executemany("INSERT INTO files VALUES (?, ?, ?)", rows)

    def check(self) -> None:
        """Raise an error if there are such files."""
        pairs = self._table.execute(
            "SELECT MIN(CASE label WHEN 0 THEN path END) AS real, MIN(CASE label WHEN 1 THEN path END) FROM files "
            "GROUP BY sha256 HAVING COUNT(DISTINCT label) > 1 ORDER BY real"
        ).fetchall()
        if pairs:
            real, fake = map(os.fsdecode, pairs[0])
            raise DataError(
                f"{real} and {fake} are the same file, labelled both real and fake ({len(pairs)} such in all); "
                "remove the wrong ones, or leave all of them out with --drop-duplicates"
            )


def _quarantined(shards: list[Shard]) -> Iterator[Quarantined]:
    for shard in shards:
        yield from ShardStats.load(shard.stats_path).quarantined


def _write_table(path: Path, columns: list[str], rows: Iterable[tuple]) -> None:
    # Paths that are not UTF-8 are written as the bytes they are.
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([spreadsheets.harmless(cell) for cell in row] for row in rows)


def _split_counts(counts: Counter[tuple[int, str]]) -> SplitCounts:
    labels: Counter[str] = Counter()
    categories: Counter[str] = Counter()
    for (label, category), number in sorted(counts.items()):
        if label != UNLABELLED:
            labels[LABELS[label]] += number
        if category:
            categories[category] += number
    return {"examples": counts.total(), "labels": dict(labels), "categories": dict(categories)}


def _check_quarantine(manifest: Manifest, first: Quarantined, table: Path, max_bad: float) -> None:
    """Raise an error if too many files were quarantined, or all of a split; `first` is named as an example."""
    for split, counts in manifest["splits"].items():
        if not counts["examples"]:
            raise DataError(f"no image of {split} can be read; the first bad file is {first.path}: {first.reason}")
    bad, read = manifest["quarantined"], manifest["read"]
    if bad > max_bad * read:
        accepted = math.ceil(100 * bad / read) / 100
        raise DataError(
            f"{bad} of {read} images cannot be read, more than {max_bad:.0%}; the first is {first.path}: "
            f"{first.reason}; all are listed in {table}; --max-bad {accepted} accepts that"
        )
