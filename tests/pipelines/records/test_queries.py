"""Queries on records: metadata, stored files, digests, class weights."""

import hashlib
import io
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tiny import change_json, encode, plant

from pipelines.datasets.layouts import read_layout
from pipelines.exceptions import DataError
from pipelines.records import queries
from pipelines.records.conversion import write_records
from pipelines.records.equalization import ResizeEqualiser
from pipelines.records.store import open_records


def test_metadata_agree_with_the_records(records):
    columns = queries.metadata(records, "train")
    stored = list(queries.iterate_records(records.splits["train"]))
    assert len(stored) == 24
    assert columns.pop("shorter_side") == [min(record.height, record.width) for record in stored]
    for name, values in columns.items():
        assert values == [getattr(record, name) for record in stored]


def test_class_weights_are_inverse_frequencies_of_mean_one(records):
    split = replace(
        records.splits["train"], labels={"real": 30, "fake": 10}, categories={"animals": 8, "vehicles": 32}
    )
    skewed = replace(records, splits={"train": split})
    weights = queries.class_weights(skewed)
    assert weights["authenticity"] == pytest.approx([2 / 3, 2])
    assert weights["category"] == pytest.approx([2.5, 0.625])
    assert np.average(weights["authenticity"], weights=[30, 10]) == pytest.approx(1)


def test_a_class_without_examples_is_named(records):
    split = replace(records.splits["train"], labels={"real": 30})
    with pytest.raises(DataError, match=r"has no fake image in train; see left_out\.csv and quarantine\.csv"):
        queries.class_weights(replace(records, splits={"train": split}))


def test_thumbnails_are_small_and_have_the_requested_paths(records):
    paths = queries.metadata(records, "validation")["path"][:2]
    made = queries.thumbnails(records, "validation", [*paths, "not there.jpg"], size=16)
    assert sorted(made) == sorted(paths)
    for jpeg in made.values():
        with Image.open(io.BytesIO(jpeg)) as image:
            assert (image.format, image.size) == ("JPEG", (16, 16))
    assert queries.thumbnails(records, "validation", []) == {}


def test_encoded_images_are_read_by_path(records, data):
    paths = queries.metadata(records, "validation")["path"][:2]
    images = dict(queries.encoded_images(records, "validation", [*paths, "not there.jpg"]))
    assert images == {path: (data / path).read_bytes() for path in paths}
    assert list(queries.encoded_images(records, "validation", [])) == []


def test_records_of_earlier_versions_tell_whether_they_were_equalised(records, data, tmp_path):
    shutil.copytree(records.folder, tmp_path / "plain")
    write_records(read_layout(data), tmp_path / "resized", equaliser=ResizeEqualiser(32))
    for folder, equalised in ((tmp_path / "plain", ""), (tmp_path / "resized", "resize")):
        assert queries.equalisation(open_records(folder)) == open_records(folder).equalised == equalised
        change_json(folder / "records.json", "equalised")
        assert open_records(folder).equalised is None
        assert queries.equalisation(open_records(folder)) == equalised


def test_digests_are_of_files_as_found_and_as_stored(tmp_path):
    plant(tmp_path / "data", {f"{split}/{label}": 1 for split in ("train", "val") for label in ("real", "fake")})
    tiff = encode("TIFF", seed=1)
    (tmp_path / "data/train/real/scan.tif").write_bytes(tiff)
    write_records(read_layout(tmp_path / "data"), tmp_path / "records")
    opened = open_records(tmp_path / "records")
    digests = list(queries.digests(opened, "train"))
    jpeg = (tmp_path / "data/train/fake/000.jpg").read_bytes()
    assert (hashlib.sha256(jpeg).hexdigest(), "train/fake/000.jpg") in digests
    (png,) = dict(queries.encoded_images(opened, "train", ["train/real/scan.tif"])).values()
    assert [digest for digest, path in digests if path == "train/real/scan.tif"] == [
        hashlib.sha256(tiff).hexdigest(),
        hashlib.sha256(png).hexdigest(),
    ]
    assert len(digests) == 4
