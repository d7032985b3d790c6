"""The caches of decoded images, which change nothing but the time."""

import logging
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipelines.datasets.layouts import read_layout
from pipelines.exceptions import DataError
from pipelines.loading import cache
from pipelines.loading.batches import inference_batches, training_batches
from pipelines.records import corruption
from pipelines.records.conversion import write_records
from pipelines.records.store import open_records
from pipelines.views import Squash, Windows

SIZE = 24 * 3 * 32 * 32  # of the decoded images of the train split at 32 pixels


@pytest.fixture
def fresh(data, tmp_path):
    write_records(read_layout(data), tmp_path / "records")
    return open_records(tmp_path / "records")


def free(monkeypatch, memory: int, disk: int) -> None:
    kinds = namedtuple("kinds", "available free")
    monkeypatch.setattr(cache.psutil, "virtual_memory", lambda: kinds(memory, 0))
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder: kinds(0, disk))


@pytest.mark.parametrize("kind", ["memory", "disk"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_cached_images_equal_decoded_ones(fresh, kind, split):
    plain = list(inference_batches(fresh, split, view=Squash(32), batch_size=5))
    kept = list(inference_batches(fresh, split, view=Squash(32), batch_size=5, cache=kind))
    for expected, got in zip(plain, kept, strict=True):
        np.testing.assert_array_equal(got[0], expected[0])
        for a, b in zip(expected[1:], got[1:], strict=True):
            assert {name: x.numpy().tolist() for name, x in a.items()} == {
                n: x.numpy().tolist() for n, x in b.items()
            }


@pytest.mark.parametrize(
    ("memory", "disk", "kind", "where"),
    [
        (4 * SIZE, 0, cache.MemoryCache, "in memory"),
        (4 * SIZE - 1, 4 * SIZE, cache.DiskCache, "decoded-train-32"),
        (4 * SIZE - 1, 4 * SIZE - 1, cache.Uncached, None),
    ],
)
def test_auto_chooses_by_size_and_logs_the_choice(fresh, monkeypatch, caplog, memory, disk, kind, where):
    free(monkeypatch, memory, disk)
    caplog.set_level(logging.INFO, "pipelines")
    assert type(cache.open_source(fresh, "train", Squash(32), "auto")) is kind
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == (where is not None)
    assert not where or (where in messages[0] and "train: 24 images at 32 pixels" in messages[0])


def test_images_that_do_not_fit_into_the_cache_are_refused(fresh, monkeypatch):
    free(monkeypatch, SIZE - 1, SIZE - 1)
    for kind in ("memory", "disk"):
        with pytest.raises(DataError, match=rf"24 decoded images take 0\.0 GiB, and {kind} has 0\.0 GiB free"):
            cache.open_source(fresh, "train", Squash(32), kind)


def test_a_cache_on_disk_is_reused(fresh, monkeypatch):
    first = cache.open_source(fresh, "train", Squash(32), "disk")
    times = [Path(path).stat().st_mtime_ns for path in first.split.files]
    free(monkeypatch, 0, 0)
    again = cache.open_source(fresh, "train", Squash(32), "auto")
    assert [Path(path).stat().st_mtime_ns for path in again.split.files] == times
    assert type(cache.open_source(fresh, "train", Squash(16), "auto")) is cache.Uncached, (
        "another size is another cache"
    )


def test_of_two_concurrent_trainings_one_writes_the_cache(fresh, monkeypatch):
    written = []
    write = cache._write
    monkeypatch.setattr(cache, "_write", lambda *what: written.append(what) or write(*what))
    with ThreadPoolExecutor(2) as pool:
        sources = list(pool.map(lambda _: cache.open_source(fresh, "train", Squash(32), "disk"), range(2)))
    assert len(written) == 1
    assert all(sum(len(batch[0]) for batch in cache.sequential_batches(source)) == 24 for source in sources)


def test_an_unknown_kind_of_cache_is_refused(fresh):
    with pytest.raises(ValueError, match="the cache must be one of memory, disk, none or auto, not ram"):
        cache.open_source(fresh, "train", Squash(32), "ram")


def test_making_the_records_again_removes_the_cache(fresh, data, monkeypatch):
    cache.open_source(fresh, "train", Squash(32), "disk")
    write_records(read_layout(data), fresh.folder)
    free(monkeypatch, 0, 0)
    assert type(cache.open_source(open_records(fresh.folder), "train", Squash(32), "auto")) is cache.Uncached


def test_an_incomplete_cache_on_disk_is_written_again(fresh):
    first = cache.open_source(fresh, "train", Squash(32), "disk")
    shard = Path(first.split.files[0])
    content = shard.read_bytes()
    shard.write_bytes(content[:-10])
    cache.open_source(fresh, "train", Squash(32), "disk")
    assert shard.read_bytes() == content
    shard.unlink()
    cache.open_source(fresh, "train", Squash(32), "auto")


def test_a_corrupt_cache_is_distinguished_from_corrupt_records(fresh):
    shard = Path(cache.open_source(fresh, "train", Squash(32), "disk").split.files[0])
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    with (
        pytest.raises(DataError, match=r"the cache of decoded images is corrupt; delete the folders decoded-\*"),
        corruption.locate_errors(fresh.splits["train"]),
    ):
        list(training_batches(fresh, view=Squash(32), batch_size=5, cache="disk"))


def test_auto_does_not_cache_in_a_read_only_folder(fresh, monkeypatch):
    free(monkeypatch, 0, 4 * SIZE)
    monkeypatch.setattr(cache.os, "access", lambda *_: False)  # root may write anywhere
    assert type(cache.open_source(fresh, "train", Squash(32), "auto")) is cache.Uncached


# --- windows ---------------------------------------------------------------------------------------------------


def test_windows_to_be_scored_are_cached_in_memory_alone(fresh, tmp_path):
    view = Windows(16, 5)
    plain = list(inference_batches(fresh, "train", view=view, batch_size=5).as_numpy_iterator())
    kept = list(inference_batches(fresh, "train", view=view, batch_size=5, cache="memory").as_numpy_iterator())
    for (images, *_), (others, *_) in zip(plain, kept, strict=True):
        np.testing.assert_array_equal(images.pixels, others.pixels)
        np.testing.assert_array_equal(images.counts, others.counts)
    with pytest.raises(DataError, match="windows are not cached on disk; give --cache memory, none or auto"):
        cache.open_source(fresh, "train", view, "disk")
    assert type(cache.open_source(fresh, "train", view, "auto")) is cache.MemoryCache
    assert not list(fresh.folder.glob("decoded-*"))
