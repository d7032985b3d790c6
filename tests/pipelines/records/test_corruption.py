"""Damaged shards: named by shard and record, or left out and counted."""

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


@pytest.fixture
def fresh(data, tmp_path):
    """Opened records that a test may damage."""
    write_records(read_layout(data), tmp_path / "records")
    return open_records(tmp_path / "records")


def frames(path: Path) -> list[int]:
    """Where each record of a shard begins, and where the last ends."""
    places = [0]
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        places.append(places[-1] + 8 + 4 + len(record) + 4)
    return places


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def read(records, split="train"):
    with corruption.locate_errors(records.splits[split]):
        return sum(len(images) for images, *_ in inference_batches(records, split, image_size=32, batch_size=5))


def test_sound_shards_have_no_damage(fresh):
    assert [list(corruption.scan(split)) for split in fresh.splits.values()] == [[]] * 3
    assert read(fresh) == 24


def test_a_flipped_bit_is_reported_by_shard_and_record(fresh):
    shard = Path(fresh.splits["train"].files[0])
    flip(shard, frames(shard)[5] + 100)
    with pytest.raises(DataError, match=rf"^{shard}, record 5: its content is corrupt; .*--skip-corrupt$"):
        read(fresh)


def test_a_damaged_length_is_reported(fresh):
    shard = Path(fresh.splits["train"].files[0])
    flip(shard, frames(shard)[7])
    with pytest.raises(DataError, match="record 7: its length is corrupt, so the rest of the file is lost"):
        read(fresh)


@pytest.mark.parametrize(
    ("cut", "what"), [(50, "the file ends within it"), (3, "the file ends before it"), (0, "the file ends before it")]
)
def test_a_shard_cut_short_is_reported_before_it_is_read(fresh, cut, what):
    """At a border between records TensorFlow itself would say nothing."""
    shard = Path(fresh.splits["train"].files[0])
    shard.write_bytes(shard.read_bytes()[: frames(shard)[20] + cut])
    with pytest.raises(DataError, match=f"record 20: {what}"):
        training_batches(fresh, image_size=32, batch_size=5)
    with pytest.raises(DataError, match=f"record 20: {what}"):
        inference_batches(fresh, "train", image_size=32, batch_size=5)


def test_a_shard_that_is_gone_is_named(fresh, tmp_path):
    shard = Path(fresh.splits["train"].files[0])
    shard.unlink()
    with pytest.raises(DataError, match=f"{shard}, record 0: the file is missing; make the records again"):
        training_batches(fresh, image_size=32, batch_size=5)
    intact, (found,) = corruption.drop_corrupt(fresh, tmp_path)
    assert found.lost == intact.skipped == 24
    with pytest.raises(DataError, match="train has no example left"):
        training_batches(intact, image_size=32, batch_size=5)


def test_damaged_records_can_be_left_out_and_are_counted(fresh, tmp_path):
    shard = Path(fresh.splits["train"].files[0])
    before = fresh.splits["train"]
    labels, places = queries.metadata(fresh, "train")["label"], frames(shard)
    for number in (3, 4, 11):
        flip(shard, places[number] + 100)
    (tmp_path / "intact").mkdir()
    intact, found = corruption.drop_corrupt(fresh, tmp_path / "intact")
    assert [(each.record, each.lost) for each in found] == [(3, 1), (4, 1), (11, 1)]
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


def test_what_follows_a_damaged_length_is_lost_and_counted(fresh, tmp_path):
    shard = Path(fresh.splits["train"].files[0])
    flip(shard, frames(shard)[10])
    intact, (found,) = corruption.drop_corrupt(fresh, tmp_path)
    assert (found.record, found.lost) == (10, 14)
    assert read(intact) == 10


def test_nothing_is_written_for_sound_records(fresh, tmp_path):
    (tmp_path / "intact").mkdir()
    assert corruption.drop_corrupt(fresh, tmp_path / "intact") == (fresh, [])
    assert list((tmp_path / "intact").iterdir()) == []


def test_an_image_stored_unchecked_is_named_when_it_cannot_be_decoded(tmp_path):
    data = plant(tmp_path / "data", {f"{s}/{x}": 3 for s in ("train", "val") for x in ("real", "fake")})
    (data / "train/fake/001.jpg").write_bytes(encode()[:700])
    write_records(read_layout(data), tmp_path / "records", verify=False)
    opened = open_records(tmp_path / "records")
    with pytest.raises(
        DataError, match=r"record \d: train/fake/001\.jpg was stored unverified: .*, without --no-verify$"
    ):
        read(opened)


def test_an_error_that_is_not_damage_stays_as_it_is(fresh):
    with (
        pytest.raises(tf.errors.InvalidArgumentError, match="of another kind"),
        corruption.locate_errors(*fresh.splits.values()),
    ):
        raise tf.errors.InvalidArgumentError(None, None, "of another kind")


def test_a_longer_shard_is_named_and_can_be_mended(fresh, tmp_path):
    shard = Path(fresh.splits["train"].files[0])
    shard.write_bytes(shard.read_bytes() + b"0123456789")
    with pytest.raises(DataError, match="record 24: the file continues after the last record"):
        training_batches(fresh, image_size=32, batch_size=5)
    intact, (found,) = corruption.drop_corrupt(fresh, tmp_path)
    assert found.lost == 0
    assert read(intact) == 24
