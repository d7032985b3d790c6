"""Equalisation: the common size, what is left out for it, the pixels of a crop, and what files tell no more."""

import io
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny import encode, hash_of

from pipelines.audit.report import scan_folder, scan_records
from pipelines.audit.shortcuts import file_features, shortcuts
from pipelines.datasets.layouts import Layout, read_layout
from pipelines.media.headers import UnreadableError, read_header
from pipelines.media.pillow import load_plugins
from pipelines.records import queries
from pipelines.records.conversion import write_records
from pipelines.records.equalization import CropEqualiser, ResizeEqualiser, crop_equaliser, resize_equaliser
from pipelines.records.schema import Record, Stored
from pipelines.records.store import open_records


def draw(path: Path, width: int, height: int) -> None:
    """Write an image of one colour, which depends on its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), f"#{hash_of(str(path)) % 2**24:06x}").save(path)


def layout_of(folder: Path, sides: dict[str, list[int]]) -> Layout:
    """A data folder with images of these shorter sides, the longer one twice that, by folder."""
    for name, of_folder in sides.items():
        for index, side in enumerate(of_folder):
            draw(folder / name / f"{index:03}.png", side, 2 * side)
    return read_layout(folder)


def convert(layout: Layout, folder: Path, equaliser) -> dict[str, Record]:
    """The records in train, by path."""
    manifest = write_records(layout, folder, equaliser=equaliser)
    assert manifest["equalised"] == equaliser.method
    assert manifest["read"] == manifest["written"] + manifest["quarantined"]
    return {record.path: record for record in queries.iterate_records(open_records(folder).splits["train"])}


def decoded(encoded: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(encoded)) as image:
        assert image.mode == "RGB"
        return np.asarray(image).astype(int)


def distance(crop: np.ndarray, whole: np.ndarray) -> int:
    """The largest difference of a pixel from the image that it was cut out of, at the place where that is least."""
    size = len(crop)
    places = product(range(len(whole) - size + 1), range(whole.shape[1] - size + 1))
    return min(int(np.abs(whole[y : y + size, x : x + size].astype(int) - crop).max()) for y, x in places)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def slopes(height: int, width: int) -> np.ndarray:
    """Red tells the column times 3, green the row times 3."""
    y, x = np.mgrid[:height, :width]
    return np.stack([3 * x, 3 * y, 0 * x], axis=-1).astype(np.uint8)


def place_of(crop: np.ndarray) -> tuple[int, int]:
    """Column and row from which a crop of `slopes` was cut."""
    x, y = crop[..., :2].mean((0, 1)) / 3 - (len(crop) - 1) / 2
    return round(x), round(y)


# --- resizing --------------------------------------------------------------------------------------------------


def test_resized_images_have_one_size_one_format_and_no_metadata(tmp_path):
    for split, label, index in product(("train", "val"), ("real", "fake"), range(3)):
        kind, size = ("JPEG", 64) if label == "real" else ("PNG", 128)
        path = tmp_path / "data" / split / label / f"{index}.{kind.lower()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(kind, size, seed=index))
    layout = read_layout(tmp_path / "data")
    equaliser = resize_equaliser(layout, seed=3)
    assert equaliser == ResizeEqualiser(40, seed=3)  # 5/8 of 64, the smaller label's
    records = convert(layout, tmp_path / "records", equaliser)
    for record in records.values():
        header = read_header(record.image)
        assert (header.format, header.height, header.width) == ("jpeg", 40, 40)
        assert (record.stored, record.height, record.width) == (Stored.EQUALISED, 40, 40)
        assert b"Exif" not in record.image
    assert {record.format for record in records.values()} == {"jpeg", "png"}, "of the file as found"


@pytest.mark.parametrize("kind", [ResizeEqualiser, CropEqualiser])
def test_equalisation_depends_on_the_seed_and_the_path_alone(kind):
    pixels = noise(90, 120)
    first = kind(40)(pixels, "a.jpg")
    assert kind(40)(pixels, "a.jpg") == first
    assert kind(40)(pixels, "b.jpg") != first
    assert kind(40, seed=1)(pixels, "a.jpg") != first


def test_an_image_smaller_than_the_common_size_is_enlarged_by_resizing_and_refused_by_cropping():
    assert read_header(ResizeEqualiser(40)(np.zeros((7, 5, 3), np.uint8), "tiny")).height == 40
    with pytest.raises(
        UnreadableError, match="54 pixels on the shorter side; a crop of 40 at a random place needs 55"
    ):
        CropEqualiser(40)(np.zeros((54, 99, 3), np.uint8), "tiny")


@pytest.mark.parametrize("choose", [resize_equaliser, crop_equaliser])
def test_the_size_is_the_smallest_where_no_image_can_be_read(tmp_path, choose):
    layout = layout_of(tmp_path, {"train/real": [64], "train/fake": [64], "val/real": [64], "val/fake": [64]})
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"")
    assert choose(layout).size == 32


# --- the pixels of a crop --------------------------------------------------------------------------------------


def test_a_crop_keeps_single_pixels():
    """At quality 100 without chroma subsampling the crop of noise and of a checkerboard is that of the image."""
    checkerboard = np.repeat(np.indices((60, 70)).sum(0)[..., np.newaxis] % 2 * 255, 3, axis=-1).astype(np.uint8)
    finest = {"jpeg_quality": 100, "subsampling": "4:4:4"}.items()
    path = next(
        path
        for path in map(str, range(1000))
        if finest <= file_features(CropEqualiser(32)(noise(60, 70), path), "").items()
    )
    assert distance(decoded(CropEqualiser(32)(noise(60, 70), path)), noise(60, 70)) <= 4
    crop = decoded(CropEqualiser(32)(checkerboard, path))
    assert distance(crop, checkerboard) <= 2
    scaled = np.asarray(Image.fromarray(noise(60, 70)).resize((64, 55)))
    assert distance(decoded(CropEqualiser(32)(scaled, path)), noise(60, 70)) > 100, "scaling is seen"


def test_the_place_of_a_crop_is_any_pixel_and_its_phase_uniform_in_images_of_every_size():
    for width, places in ((47, 16), (64, 33)):  # a third of the places in the second have remainders 0 by 16 and 8
        crops = (CropEqualiser(32)(slopes(50, width), str(index)) for index in range(1600))
        columns = Counter(place_of(decoded(crop))[0] for crop in crops)
        assert sorted(columns) == list(range(places))
        phases = Counter(column % 16 for column in columns.elements())
        assert all(70 < number < 130 for number in phases.values()), phases  # 100 expected


def test_quality_and_subsampling_are_drawn_from_the_whole_range():
    drawn = [file_features(CropEqualiser(32)(slopes(47, 47), str(index)), "") for index in range(600)]
    assert {features["jpeg_quality"] for features in drawn} == set(range(65, 101))
    subsamplings = Counter(features["subsampling"] for features in drawn)
    assert all(160 < subsamplings[name] < 240 for name in ("4:4:4", "4:2:2", "4:2:0")), subsamplings


def test_every_kind_of_file_is_cropped_as_it_is_shown(tmp_path):
    load_plugins()
    pixels = slopes(60, 80)
    grey = Image.fromarray(pixels).convert("L")
    upright = Image.Exif()
    upright[0x0112] = 6  # to be turned clockwise
    files = {
        "turned.jpg": (Image.fromarray(np.rot90(pixels)), {"exif": upright, "quality": 95}),
        "grey.jpg": (grey, {"quality": 95}),
        "grey.png": (grey, {}),
        "scan.tif": (Image.fromarray(pixels), {}),
        "phone.heic": (Image.fromarray(pixels), {"quality": 95}),
        "deep.png": (Image.fromarray(np.asarray(grey).astype(np.uint16) << 8), {}),
    }
    layout_of(tmp_path, {"train/real": [64], "train/fake": [64], "val/real": [64], "val/fake": [64]})
    for name, (image, options) in files.items():
        image.save(tmp_path / "train/real" / name, **options)
    records = convert(read_layout(tmp_path), tmp_path / "records", CropEqualiser(32))
    for name, (image, _) in files.items():
        shown = np.asarray(grey.convert("RGB")) if image.mode in ("L", "I;16") else pixels
        crop = decoded(records[f"train/real/{name}"].image)
        assert distance(crop, shown) <= 12, name  # the error of quality 65; to the next column it is 3


# --- the common size of crops, and what is left out ------------------------------------------------------------


@pytest.mark.parametrize(
    ("sides", "size", "limit", "lost"),
    [
        # Every image has room for any remainder by 16: 15 pixels more than the crop.
        ({"real": [111] * 3, "fake": [200] * 3}, 96, "real", "none"),
        ({"real": [110] * 3, "fake": [200] * 3}, 88, "real", "none"),
        # One of 20 may be too small, but no second one; of fewer than 20 none.
        ({"real": [50] + [111] * 19, "fake": [200] * 3}, 96, "real", "1 real"),
        ({"real": [50, 63] + [111] * 18, "fake": [200] * 3}, 48, "real", "1 real"),
        ({"real": [50] + [111] * 17, "fake": [200] * 3}, 32, "real", "none"),
        # Each label counts by itself.
        ({"real": [71] * 60, "fake": [60] + [63] * 19}, 48, "fake", "1 fake"),
        ({"real": [63] * 20, "fake": [63] * 20}, 48, "real", "none"),
        # Below 32 pixels a crop shows nothing.
        ({"real": [40] * 2 + [60] * 3, "fake": [40, 60]}, 32, "", "2 real, 1 fake"),
    ],
)
def test_the_crop_is_as_large_as_19_in_20_images_of_each_label_allow(tmp_path, sides, size, limit, lost):
    folders = {f"train/{label}": of_label for label, of_label in sides.items()}
    layout = layout_of(tmp_path, folders | {"val/real": [300], "val/fake": [300]})
    assert crop_equaliser(layout, seed=5) == CropEqualiser(size, seed=5)
    because = f", as large as 19 in 20 {limit} images allow" if limit else ""
    assert layout.notes[-1] == (
        f"every image becomes a crop of {size} x {size} pixels{because}; left out as too small for it: {lost}"
    )


def test_images_without_room_for_the_crop_are_left_out_and_counted(tmp_path):
    train = {"train/real": [50] + [111] * 20, "train/fake": [111] * 3}
    layout_of(tmp_path / "data", train | {"val/real": [111], "val/fake": [111], "test": [111] * 20})
    draw(tmp_path / "data/test/wide.png", 500, 49)
    (tmp_path / "data/train/fake/bad.png").write_bytes(b"")
    layout = read_layout(tmp_path / "data")
    calls = []
    equaliser = crop_equaliser(layout, progress=lambda *call: calls.append(call))
    assert calls[-1] == (48, 48)
    assert layout.notes[-1].endswith("left out as too small for it: 1 real, 1 unlabelled")
    manifest = write_records(layout, tmp_path / "records", equaliser=equaliser)
    assert [manifest[name] for name in ("left_out", "read", "written", "quarantined")] == [2, 46, 45, 1]
    because = "pixels on the shorter side; a crop of 96 at a random place needs 111; --equalise resize keeps it"
    assert (tmp_path / "records/left_out.csv").read_text().splitlines() == [
        "path,reason",
        f"test/wide.png,49 {because}",
        f"train/real/000.png,50 {because}",
    ]


# --- what the files tell no more -------------------------------------------------------------------------------


def test_after_cropping_size_and_codec_tell_nothing(tmp_path):
    """Real photographs as large JPEGs, 4:4:4 at quality 95; fakes as smaller PNGs."""
    kinds = {"real": ((10, 8), "JPEG", {"quality": 95, "subsampling": "4:4:4"}), "fake": ((5, 5), "PNG", {})}
    for split, label, index in product(("train", "val"), kinds, range(200)):
        (width, height), kind, options = kinds[label]
        path = tmp_path / "data" / split / label / str(index)
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(hash_of(f"{split}{label}{index}")).integers(
            0, 256, (height, width, 3), np.uint8
        )
        Image.fromarray(pixels).resize((20 * width, 20 * height)).save(path, kind, **options)
    layout = read_layout(tmp_path / "data")

    def areas(features: list[dict]) -> dict[str, tuple[float, str]]:
        found = shortcuts(pd.DataFrame(features), groups=("codec", "size"))
        return {row["group"]: (row["auc"], row["verdict"]) for row in found}

    assert areas(scan_folder(layout).features) == {"codec": (1.0, "fail"), "size": (1.0, "fail")}
    equaliser = crop_equaliser(layout)
    assert equaliser.size == 80
    convert(layout, tmp_path / "records", equaliser)
    cropped = scan_records(open_records(tmp_path / "records")).features
    stored = {(row["format"], row["height"], row["width"], row["metadata"]) for row in cropped}
    assert stored == {("jpeg", 80, 80, "APP0")}
    after = areas(cropped)
    assert {verdict for _, verdict in after.values()} == {"ok"}
    assert all(0.44 < area < 0.56 for area, _ in after.values()), after
