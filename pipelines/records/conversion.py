"""Examples to records: shards planned from the examples alone, written by as many processes as there are cores.

A conversion works in a folder beside the final one. A shard appears there under its name when it is complete, and
its account (what became of each example) after it, so that an interrupted conversion goes on with the shards
that have none. Nothing appears in the final place before all of it is there.
"""

import csv
import hashlib
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, replace
from functools import partial
from itertools import islice
from pathlib import Path

from pipelines import atomic
from pipelines.datasets.examples import LABELS, UNLABELLED, Example
from pipelines.datasets.layouts import Layout
from pipelines.exceptions import DataError
from pipelines.media.headers import MAX_PIXELS
from pipelines.parallel import in_order, preload, worker_count, worker_pool
from pipelines.records import store
from pipelines.records.equalization import Equaliser
from pipelines.records.shards import ConversionOptions, Shard, ShardStats

_SHARD_BYTES = 64 * 2**20  # large enough to read fast, small enough to shuffle between


def start_workers() -> None:
    """Begin to load what worker processes need, while the caller does something else, such as finding the images."""
    preload("pipelines.records.shard_writer")


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
) -> dict:
    """Write the examples of `layout` as records; nothing appears at `folder` before all of it is written.

    Interrupted in any way, it leaves what it has finished beside `folder`, and the next call with the same files
    and options goes on from there. The same files and options give the same bytes, however many workers.

    Args:
        layout: the examples, in the order they are to be stored.
        folder: where the records go; records made earlier are replaced.
        workers: processes; None for one per core.
        verify: decode every image as a check; without it a damaged file stops the training that reads it.
        max_pixels: an image with more is refused, and not decoded.
        on_bad: what to do with a file that cannot be read: `quarantine` lists and leaves it out, `fail` stops.
        max_bad: share of the files above which so many of them were left out that it is an error.
        equaliser: what changes every image; an `equalising.Equaliser`.
        progress: called with (images done, images in all).
        note: called with a sentence when an earlier conversion was interrupted: whether this one goes on with it.

    Returns:
        The manifest, as stored in `records.json`: counts by split, label and category, the fingerprint, and
        read = written + quarantined.

    Raises:
        DataError: `folder` holds something that is not records, or is being written by another process; too many
            files, or all of a split, cannot be read, or one and `on_bad` is `fail`.
    """
    treatment = ConversionOptions(
        layout.root.resolve(), layout.categories, verify, max_pixels, on_bad == "fail", equaliser
    )
    number = worker_count(workers, len(layout.examples))
    start_workers()
    with atomic.resumable_folder(folder, marker=store.MANIFEST) as work:
        with worker_pool(number, partial(_start_worker, verify)) as pool:
            place = _resume(work, _signature(layout, treatment), note or (lambda sentence: None))
            shards = _plan(layout, place)
            unfinished = [shard for shard in shards if not shard.account_path.exists()]
            done = sum(shard.length for shard in shards) - sum(shard.length for shard in unfinished)
            job = partial(_write_shard, treatment)
            for (shard, _), _ in in_order(pool, number, job, _with_examples(shards, unfinished, layout)):
                done += shard.length
                if progress:
                    progress(done, len(layout.examples))
        manifest = _finish(layout, shards, place, max_bad)
        os.rename(place / "records", work / "final")
    return manifest


# --- what is to be done ----------------------------------------------------------------------------------------


def _resume(work: Path, signature: str, note: Callable[[str], None]) -> Path:
    """The folder inside `work` for these files and options, as an interrupted conversion of the same left it."""
    place = work / signature
    if place.exists():
        note("going on with a conversion that was interrupted")
    for path in work.iterdir():
        if path.is_dir() and path not in (place, work / "old"):
            note("a conversion was interrupted, but files or options have changed since: it begins anew")
            shutil.rmtree(path)
    (place / "records").mkdir(parents=True, exist_ok=True)
    (place / "accounts").mkdir(exist_ok=True)
    for path in (place / "accounts").glob("*partial-*"):
        path.unlink()
    return place


def _signature(layout: Layout, treatment: ConversionOptions) -> str:
    """A hash of all that decides the bytes of the shards: the files, their sizes and times, and what is done."""
    treatment = replace(treatment, fail_on_bad=False)  # which decides whether there are shards, not what is in them
    return hashlib.sha256(f"{store.VERSION} {treatment} {layout.examples.digest()}".encode()).hexdigest()[:16]


def _plan(layout: Layout, place: Path) -> list[Shard]:
    """The shards, in the order of the examples that go into them."""
    shards = []
    for split, (count, size) in layout.examples.sizes().items():
        # Many images in few bytes still get shards to share out among workers and, in training, to interleave.
        wanted = max(1, -(-size // _SHARD_BYTES), min(8, count // 256), min(64, count // 2048))
        length = -(-count // wanted)
        number = -(-count // length)
        for index in range(number):
            path = store.shard_path(place / "records", split, index, number)
            account_path = place / "accounts" / f"{path.name}.json"
            shards.append(Shard(split, min(length, count - index * length), path, account_path))
    return shards


# --- doing it --------------------------------------------------------------------------------------------------


def _with_examples(
    shards: list[Shard], unfinished: list[Shard], layout: Layout
) -> Iterator[tuple[Shard, list[Example]]]:
    """The unfinished ones, each with its examples."""
    examples = iter(layout.examples)
    for shard in shards:
        part = list(islice(examples, shard.length))
        if shard in unfinished:
            yield shard, part


# Imported there, not here: TensorFlow takes seconds to load, and only the workers need it.


def _start_worker(verify: bool) -> None:
    from pipelines.records.shard_writer import start_worker  # noqa: PLC0415

    start_worker(verify)


def _write_shard(treatment: ConversionOptions, task: tuple[Shard, list[Example]]) -> None:
    from pipelines.records.shard_writer import write_shard  # noqa: PLC0415

    write_shard(*task, treatment)


# --- when all of it is done ------------------------------------------------------------------------------------


def _finish(layout: Layout, shards: list[Shard], place: Path, max_bad: float) -> dict:
    """Sum up the accounts, and write what stands beside the shards."""
    folder = place / "records"
    counts = {shard.split: Counter() for shard in shards}
    shard_lengths, shard_bytes, content = {}, Counter(), 0
    with _table(folder / "quarantine.csv", ["path", "reason", "bytes", "sha256"]) as quarantine:
        for shard in shards:
            account = ShardStats.load(shard.account_path)
            counts[shard.split] += account.counts
            shard_lengths.setdefault(shard.split, []).append(account.counts.total())
            shard_bytes[shard.split] += account.bytes
            content += account.content
            quarantine.writerows(astuple(bad) for bad in account.quarantined)
    with _table(folder / "left_out.csv", ["path", "reason"]) as left_out:
        left_out.writerows(layout.examples.left_out())
    read, written = len(layout.examples), sum(total.total() for total in counts.values())
    manifest = {
        "version": store.VERSION,
        "fingerprint": f"{content % 2**256:064x}",
        "source": os.fspath(layout.root.resolve()),
        "left_out": sum(1 for _ in layout.examples.left_out()),
        "read": read,
        "written": written,
        "quarantined": read - written,
        "categories": layout.categories,
        "splits": {split: _split_counts(total) for split, total in counts.items()},
    }
    _check_quarantine(manifest, folder / "quarantine.csv", max_bad)
    store.write_metadata(folder, layout.categories, shard_lengths, shard_bytes)
    (folder / store.MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


@contextmanager
def _table(path: Path, columns: list[str]) -> Iterator["csv.Writer"]:
    # Paths that are no UTF-8 are written as the bytes they are.
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        yield writer


def _split_counts(total: Counter) -> dict:
    labels, categories = Counter(), Counter()
    for (label, category), number in sorted(total.items()):
        if label != UNLABELLED:
            labels[LABELS[label]] += number
        if category:
            categories[category] += number
    return {"examples": total.total(), "labels": dict(labels), "categories": dict(categories)}


def _check_quarantine(manifest: dict, quarantine: Path, max_bad: float) -> None:
    with quarantine.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        first = next(csv.DictReader(file), None)
    for split, split_counts in manifest["splits"].items():
        if not split_counts["examples"]:
            raise DataError(
                f"no image of {split} can be read; the first bad file is {first['path']}: {first['reason']}"
            )
    bad, read = manifest["quarantined"], manifest["read"]
    if bad > max_bad * read:
        accepted = math.ceil(100 * bad / read) / 100
        raise DataError(
            f"{bad} of {read} images cannot be read, more than {max_bad:.0%}; the first is {first['path']}: "
            f"{first['reason']}; all are listed in {quarantine}; --max-bad {accepted} accepts that"
        )
