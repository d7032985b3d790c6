"""Corrupt shards: located by shard and record, or dropped and counted."""

from pathlib import Path

import pytest
import tensorflow as tf
from tiny import encode, plant

from pipelines.datasets.layouts import read_layout
from pipelines.exceptions import DataError
from pipelines.loading.batches import inference_batches, training_batches
from pipelines.records import corruption, queries
from pipelines.records.conversion import write_records
from pipelines.records.store import open_records
from pipelines.views import Squash


@pytest.fixture
def fresh(data, tmp_path):
    """Opened records that a test may corrupt."""
    write_records(read_layout(data), tmp_path / "records")
    return open_records(tmp_path / "records")


def frames(path: Path) -> list[int]:
    """The offset of each record of a shard, and the end of the last."""
    offsets = [0]
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        offsets.append(offsets[-1] + 8 + 4 + len(record) + 4)
    return offsets


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def read(records, split="train"):
    with corruption.locate_errors(records.splits[split]):
        return sum(len(images) for images, *_ in inference_batches(records, split, view=Squash(32), batch_size=5))


def test_intact_shards_have_no_corruption(fresh):
    assert [list(corruption.scan(split)) for split in fresh.splits.values()] == [[]] * 3
    assert read(fresh) == 24


def test_a_flipped_bit_is_reported_by_shard_and_record(fresh):
    shard = Path(fresh.splits["train"].files[0])
    flip(shard, frames(shard)[5] + 100)
    with pytest.raises(DataError, match=rf"^{shard}, record 5: its content is corrupt; .*--skip-corrupt$"):
        read(fresh)


def test_a_corrupt_length_is_reported(fresh):
    shard = Path(fresh.splits["train"].files[0])
    flip(shard, frames(shard)[7])
    with pytest.raises(DataError, match="record 7: its length is corrupt, so the rest of the file is lost"):
        read(fresh)


@pytest.mark.parametrize(
    ("cut", "what"), [(50, "the file ends within it"), (3, "the file ends before it"), (0, "the file ends before it")]
)
def test_a_truncated_shard_is_reported_before_it_is_read(fresh, cut, what):
    """Between two records TensorFlow itself would not notice."""
    shard = Path(fresh.splits["train"].files[0])
    shard.write_bytes(shard.read_bytes()[: frames(shard)[20] + cut])
    with pytest.raises(DataError, match=f"record 20: {what}"):
        training_batches(fresh, view=Squash(32), batch_size=5)
    with pytest.raises(DataError, match=f"record 20: {what}"):
        inference_batches(fresh, "train", view=Squash(32), batch_size=5)


def test_a_missing_shard_is_named(fresh, tmp_path):
    shard = Path(fresh.splits["train"].files[0])
    shard.unlink()
    with pytest.raises(DataError, match=f"{shard}, record 0: the file is missing; make the records again"):
        training_batches(fresh, view=Squash(32), batch_size=5)
    intact, (corrupt,) = corruption.drop_corrupt(fresh, tmp_path)
    assert corrupt.lost == intact.skipped == 24
    with pytest.raises(DataError, match="train has no example left"):
        training_batches(intact, view=Squash(32), batch_size=5)


def test_corrupt_records_can_be_dropped_and_are_counted(fresh, tmp_path):
    shard = Path(fresh.splits["train"].files[0])
    before = fresh.splits["train"]
    labels, offsets = queries.metadata(fresh, "train")["label"], frames(shard)
    for number in (3, 4, 11):
        flip(shard, offsets[number] + 100)
    (tmp_path / "intact").mkdir()
    intact, corruptions = corruption.drop_corrupt(fresh, tmp_path / "intact")
    assert [(each.record, each.lost) for each in corruptions] == [(3, 1), (4, 1), (11, 1)]
    assert intact.splits["train"].examples == 21 == read(intact)
    lost = [labels[number] for number in (3, 4, 11)]
    assert intact.splits["train"].labels == {
        "real": before.labels["real"] - lost.count(0),
        "fake": before.labels["fake"] - lost.count(1),
    }
    assert intact.splits["validation"] == fresh.splits["validation"]
    assert queries.metadata(intact, "train")["label"] == [
        label for n, label in enumerate(labels) if n not in (3, 4, 11)
    ]


def test_the_records_after_a_corrupt_length_are_lost_and_counted(fresh, tmp_path):
    shard = Path(fresh.splits["train"].files[0])
    flip(shard, frames(shard)[10])
    intact, (corrupt,) = corruption.drop_corrupt(fresh, tmp_path)
    assert (corrupt.record, corrupt.lost) == (10, 14)
    assert read(intact) == 10


def test_nothing_is_written_for_intact_records(fresh, tmp_path):
    (tmp_path / "intact").mkdir()
    assert corruption.drop_corrupt(fresh, tmp_path / "intact") == (fresh, [])
    assert list((tmp_path / "intact").iterdir()) == []


def test_an_unverified_image_that_cannot_be_decoded_is_named(tmp_path):
    data = plant(tmp_path / "data", {f"{s}/{x}": 3 for s in ("train", "val") for x in ("real", "fake")})
    (data / "train/fake/001.jpg").write_bytes(encode()[:700])
    write_records(read_layout(data), tmp_path / "records", verify=False)
    opened = open_records(tmp_path / "records")
    with pytest.raises(
        DataError, match=r"record \d: train/fake/001\.jpg was stored unverified: .*, without --no-verify$"
    ):
        read(opened)


def test_an_error_that_is_not_corruption_is_not_changed(fresh):
    with (
        pytest.raises(tf.errors.InvalidArgumentError, match="of another kind"),
        corruption.locate_errors(*fresh.splits.values()),
    ):
        raise tf.errors.InvalidArgumentError(None, None, "of another kind")


def test_a_shard_with_trailing_bytes_is_named_and_can_be_repaired(fresh, tmp_path):
    shard = Path(fresh.splits["train"].files[0])
    shard.write_bytes(shard.read_bytes() + b"0123456789")
    with pytest.raises(DataError, match="record 24: the file continues after the last record"):
        training_batches(fresh, view=Squash(32), batch_size=5)
    intact, (corrupt,) = corruption.drop_corrupt(fresh, tmp_path)
    assert corrupt.lost == 0
    assert read(intact) == 24
