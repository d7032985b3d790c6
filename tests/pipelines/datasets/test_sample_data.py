"""The sample collection: its layout, and that the traces reveal the label but no global statistic does."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.datasets.sample_data import bayer_mask, generate, photograph, write_sample_data
from pipelines.datasets.scenes import draw_scene
from pipelines.exceptions import DataError

CHANCE = 0.15  # 3.3 standard deviations of the area under a curve of 180 images ranked at random


@pytest.fixture(scope="module")
def collection(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    write_sample_data(folder, images=180, size=64, seed=0)
    return folder


def names_and_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def auc(values, positive) -> float:
    """Area under the ROC curve: how often a positive lies above a negative, ties counting half."""
    values, positive = np.asarray(values, float), np.asarray(positive, bool)
    above = values[positive][:, None] - values[~positive][None, :]
    return float((np.sign(above).mean() + 1) / 2)


def test_every_cell_of_every_split_is_filled_and_counted(tmp_path):
    counts = write_sample_data(tmp_path, images=30, size=64)
    cell = {"human_faces": 1, "animals": 1, "vehicles": 1}
    many = {"human_faces": 3, "animals": 3, "vehicles": 3}
    assert counts == {
        "train": {"real": many, "fake": many},
        "validation": {"real": cell, "fake": cell},
        "test": {"real": cell, "fake": cell},
    }
    for split, labels in counts.items():
        for label, classes in labels.items():
            for category, count in classes.items():
                assert len(list((tmp_path / split / label / category).glob("*.jpg"))) == count
    assert len(list(tmp_path.rglob("*.jpg"))) == 30


def test_counts_are_rounded_down_to_balanced_cells(tmp_path):
    counts = write_sample_data(tmp_path, images=47, size=64)
    assert {split: cells["real"]["animals"] for split, cells in counts.items()} == {
        "train": 4,
        "validation": 1,
        "test": 1,
    }


def test_the_seed_determines_every_byte(tmp_path):
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        (tmp_path / name).mkdir()
        write_sample_data(tmp_path / name, images=30, size=64, seed=seed)
    first, again, other = (names_and_bytes(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again
    images = {data for name, data in first.items() if name.endswith(".jpg")}
    assert len(images) == 30
    assert images.isdisjoint(other.values())


def test_metadata_agrees_with_the_folders(collection):
    with (collection / "metadata.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["image_path", "label", "class", "source"]
    assert len(rows) == 181
    images = {path.relative_to(collection).as_posix() for path in collection.rglob("*.jpg")}
    assert {row[0] for row in rows[1:]} == images
    for path, label, category, source in rows[1:]:
        _, folder, kind, _ = path.split("/")
        assert (folder, label, source) in {("real", "0", "camera"), ("fake", "1", "decoder")}
        assert kind == category


def test_names_are_numbered_independently_of_label_and_class(collection):
    paths = sorted(collection.rglob("*.jpg"), key=lambda path: path.stem)
    assert [path.stem for path in paths] == [f"{serial:04x}" for serial in range(180)]
    order = np.arange(180)
    assert auc(order, ["fake" in path.parts for path in paths]) == pytest.approx(0.5, abs=CHANCE)
    for category in ("human_faces", "animals", "vehicles"):
        assert auc(order, [category in path.parts for path in paths]) == pytest.approx(0.5, abs=CHANCE)


def test_all_files_share_one_format(collection):
    formats = set()
    for path in collection.rglob("*.jpg"):
        with Image.open(path) as image:
            sampling = tuple(layer[1:3] for layer in image.layer)
            about = tuple(sorted(image.info))
            formats.add((image.format, image.mode, image.size, sampling, about, len(image.getexif())))
    header = ("jfif", "jfif_density", "jfif_unit", "jfif_version")
    assert formats == {("JPEG", "RGB", (64, 64), ((1, 1), (1, 1), (1, 1)), header, 0)}


def test_no_global_statistic_reveals_label_or_class(collection):
    statistics, paths = [], sorted(collection.rglob("*.jpg"))
    for path in paths:
        with Image.open(path) as image:
            quality = sum(image.quantization[0])
            pixels = np.asarray(image, float)
        statistics.append([path.stat().st_size, quality, *pixels.mean((0, 1)), *pixels.std((0, 1))])
    for values in np.transpose(statistics):
        assert len(set(values)) > 3  # they vary
        for group in ("fake", "human_faces", "animals", "vehicles"):
            assert auc(values, [group in path.parts for path in paths]) == pytest.approx(0.5, abs=CHANCE)


def test_only_the_decoder_makes_odd_rows_brighter_and_not_columns():
    def brightness_of_odd_rows(picture):
        return float(picture[:, 1::2].mean() / picture[:, ::2].mean())

    for seed, category in enumerate(("human_faces", "animals", "vehicles")):
        light = draw_scene(category, 256, np.random.default_rng(seed))
        camera = photograph(light, np.random.default_rng(seed))(0.1)
        decoder = generate(light, np.random.default_rng(seed))(0.1)
        assert camera.shape == decoder.shape == (3, 128, 128)
        assert brightness_of_odd_rows(camera) == pytest.approx(1, abs=0.015)
        assert 1.1 < brightness_of_odd_rows(decoder) < 1.13
        for picture in (camera, decoder):
            assert brightness_of_odd_rows(picture.swapaxes(1, 2)) == pytest.approx(1, abs=0.015)


def test_only_the_camera_interpolates_the_noise_between_the_measured_pixels():
    def noise_where_measured(picture):
        """Noise variance of green where a Bayer sensor measures green, against where it does not."""
        noise = picture(0.02)[1] - picture(0.01)[1]
        measured = bayer_mask(128)[1] == 1
        return float(noise[measured].var() / noise[~measured].var())

    light = np.full((3, 256, 256), 0.3, np.float32)
    assert noise_where_measured(photograph(light, np.random.default_rng(0))) > 2
    assert noise_where_measured(generate(light, np.random.default_rng(0))) == pytest.approx(1, abs=0.15)


def test_bayer_mask_measures_one_channel_per_pixel():
    mask = bayer_mask(64)
    assert (mask.sum(0) == 1).all()
    assert mask.sum((1, 2)).tolist() == [1024, 2048, 1024]
    assert mask[:, 0, 0].tolist() == [1, 0, 0]


def test_progress_reaches_the_total(tmp_path):
    calls = []
    write_sample_data(tmp_path, images=30, size=64, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 30) for done in range(1, 31)]


@pytest.mark.parametrize("images", [29, 0, -5])
def test_too_few_images_are_refused(tmp_path, images):
    with pytest.raises(DataError, match="at least 30 images"):
        write_sample_data(tmp_path, images=images)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [56, 1032, 100])
def test_odd_sizes_are_refused(tmp_path, size):
    with pytest.raises(DataError, match=f"multiple of 8 from 64 to 1024, not {size}"):
        write_sample_data(tmp_path, size=size)
    assert list(tmp_path.iterdir()) == []
