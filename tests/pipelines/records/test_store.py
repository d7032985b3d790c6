"""Records folders: what TFDS reads, what is stored of each image, what is left out."""

import csv
import hashlib
import json
import shutil

import pytest
import tensorflow_datasets as tfds
from tiny import encode, plant

from pipelines.datasets.layouts import read_layout
from pipelines.exceptions import DataError
from pipelines.records.conversion import write_records
from pipelines.records.store import open_records


def write(folder, data, **options):
    return write_records(read_layout(data, **options), folder)


def test_tfds_opens_slices_and_decodes_them(records):
    builder = tfds.builder_from_directory(str(records.folder))
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        "train": 24,
        "validation": 12,
        "test": 3,
    }
    assert builder.info.features["label"].names == ["real", "fake"]
    assert builder.info.features["category"].names == ["animals", "vehicles"]
    first = next(iter(builder.as_dataset(split="train[:25%]")))
    assert first["image"].shape == (40, 40, 3)
    assert len(list(builder.as_dataset(split="train[:25%]"))) == 6


def test_a_record_keeps_the_original_bytes_and_their_metadata(records, data):
    builder = tfds.builder_from_directory(str(records.folder))
    decoders = {"image": tfds.decode.SkipDecoding()}
    for record in tfds.as_numpy(builder.as_dataset(split="train", decoders=decoders)):
        path = data / record["path"].decode()
        assert record["image"] == path.read_bytes()
        assert record["sha256"].decode() == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (record["height"], record["width"], record["format"]) == (40, 40, b"jpeg")
        assert record["stored"] == b"as found"
        assert path.parts[-3:-1] == (["real", "fake"][record["label"]], ["animals", "vehicles"][record["category"]])


def test_an_unlabelled_split_has_labels_of_minus_one(records):
    builder = tfds.builder_from_directory(str(records.folder))
    test = list(tfds.as_numpy(builder.as_dataset(split="test")))
    assert [(record["label"], record["category"]) for record in test] == [(-1, -1)] * 3


def test_opened_records_have_their_splits_and_class_names(records):
    assert records.categories == ["animals", "vehicles"]
    assert records.labelled_splits == ["train", "validation"]
    assert records.splits["train"].labels == {"real": 12, "fake": 12}
    assert records.splits["validation"].categories == {"animals": 6, "vehicles": 6}


def test_data_without_classes_has_no_category_feature(tmp_path):
    write(
        tmp_path / "records",
        plant(tmp_path / "data", {f"{s}/{x}": 1 for s in ("train", "val") for x in ("real", "fake")}),
    )
    assert open_records(tmp_path / "records").categories == []
    assert "category" not in tfds.builder_from_directory(str(tmp_path / "records")).info.features


def test_the_same_data_gives_the_same_bytes(data, records, tmp_path):
    write(tmp_path / "again", data)
    for split in records.splits.values():
        for path in map(type(tmp_path), split.files):
            assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_the_fingerprint_depends_on_the_content_not_on_its_order(data, records, tmp_path):
    assert write(tmp_path / "reordered", data, seed=5)["fingerprint"] == records.fingerprint
    changed = shutil.copytree(data, tmp_path / "changed")
    (changed / "train/real/animals/000.jpg").write_bytes(encode(seed=99))
    assert write(tmp_path / "other", changed)["fingerprint"] != records.fingerprint


def test_many_images_are_divided_into_shards(tmp_path):
    data = plant(tmp_path / "data", {"train/real": 300, "train/fake": 300, "val/real": 1, "val/fake": 1})
    write(tmp_path / "records", data)
    opened = open_records(tmp_path / "records")
    assert [path.rpartition("/")[2] for path in opened.splits["train"].files] == [
        "ddkeras-train.tfrecord-00000-of-00002",
        "ddkeras-train.tfrecord-00001-of-00002",
    ]
    assert tfds.builder_from_directory(str(tmp_path / "records")).info.splits["train"].num_examples == 600


def test_undecodable_files_are_quarantined_with_a_reason(data, tmp_path):
    damaged = shutil.copytree(data, tmp_path / "data")
    bad = {
        "train/real/animals/cut.jpg": encode()[:-300],
        "train/fake/animals/empty.jpg": b"",
        "val/real/animals/page.jpg": b"<html>",
    }
    (damaged / "validation").rename(damaged / "val")
    for path, content in bad.items():
        (damaged / path).write_bytes(content)
    (damaged / "train/real/animals/gone.jpg").symlink_to("nowhere")
    manifest = write_records(read_layout(damaged), tmp_path / "records", max_bad=0.1)
    assert (manifest["read"], manifest["written"], manifest["quarantined"]) == (43, 39, 4)
    with (tmp_path / "records" / "quarantine.csv").open() as file:
        rows = {row["path"]: (row["reason"], int(row["bytes"])) for row in csv.DictReader(file)}
    assert rows == {
        "train/real/animals/cut.jpg": ("damaged or cut short JPEG", len(encode()) - 300),
        "train/fake/animals/empty.jpg": ("the file is empty", 0),
        "val/real/animals/page.jpg": ("not an image in a known format", 6),
        "train/real/animals/gone.jpg": ("No such file or directory", 0),
    }


def test_a_split_without_a_readable_image_is_refused(tmp_path):
    data = plant(tmp_path / "data", {f"{s}/{x}": 1 for s in ("train", "val") for x in ("real", "fake")})
    for label in ("real", "fake"):
        (data / "val" / label / "000.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"no image of validation can be read.*the file is empty"):
        write(tmp_path / "records", data)
    assert not (tmp_path / "records").exists()


def test_progress_reaches_the_number_of_images(data, tmp_path):
    calls = []
    write_records(read_layout(data), tmp_path / "records", progress=lambda *call: calls.append(call))
    assert calls[-1] == (39, 39)


def test_missing_and_outdated_records_have_different_errors(records, tmp_path):
    with pytest.raises(DataError, match=r"there are no records in .*; make them with: ddk make-tfrecords DATA"):
        open_records(tmp_path)
    old = shutil.copytree(records.folder, tmp_path / "old")
    manifest = json.loads((old / "records.json").read_text())
    (old / "records.json").write_text(json.dumps(manifest | {"version": 0}))
    with pytest.raises(DataError, match="holds records of version 0, not 2; make them again"):
        open_records(old)


def test_records_say_where_a_split_has_few_images_of_a_label(tmp_path):
    plant(tmp_path / "data", {"train/real": 20, "train/fake": 3, "val/real": 20, "val/fake": 1, "test/fake": 20})
    write(tmp_path / "records", tmp_path / "data")
    assert open_records(tmp_path / "records").few_images == [
        "train has 3 fake images: too few to learn from; add images",
        "validation has 1 fake image: numbers from fewer than 20 say little; add images",
    ]


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        (
            {"train/real": 20, "train/fake": 20, "val/fake": 20, "test/real": 20},
            [
                "validation has no real images: the epoch is chosen on one label, and no thresholds can be fitted; "
                "add images"
            ],
        ),
        ({"train/real": 20, "train/fake": 20, "val/real": 20, "val/fake": 20, "test/fake": 20}, []),
        ({"test/real": 20}, []),
    ],
)
def test_records_say_where_validation_lacks_a_label_and_not_where_test_does(tmp_path, counts, said):
    plant(tmp_path / "data", counts)
    write(tmp_path / "records", tmp_path / "data")
    assert open_records(tmp_path / "records").few_images == said
