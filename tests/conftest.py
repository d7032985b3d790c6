"""Tiny images, tiny records and one tiny trained run, each made once."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ddkeras.cli  # noqa: F401  sets the environment that the commands run in, before TensorFlow is loaded

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the same arithmetic wherever the tests run

CATEGORIES = ("animals", "vehicles")


def encode(kind: str = "JPEG", size: int = 40, seed: int = 0, **options) -> bytes:
    """A small image, of noise that depends on `seed`, as the bytes of a file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def plant(root: Path, counts: dict[str, int]) -> Path:
    """Put `counts[folder]` different JPEGs into each `root/folder`."""
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            name = f"{index:03}.jpg"
            (root / folder / name).write_bytes(encode(seed=abs(hash_of(f"{folder}/{name}"))))
    return root


def hash_of(text: str) -> int:
    """The same number for the same text in every process, unlike `hash`."""
    return sum(ord(letter) * 31**place for place, letter in enumerate(text)) % 2**31


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
    from pipelines.layouts import read_layout
    from pipelines.records import open_records, write_records

    folder = tmp_path_factory.mktemp("made") / "records"
    write_records(read_layout(data), folder)
    return open_records(folder)


@pytest.fixture(scope="session")
def recipe():
    """The quickest recipe there is: the smallest network at the smallest size, two epochs."""
    from ddkeras.config import Recipe

    return Recipe(backbone="mobilenetv2", image_size=32, weights="none", epochs=2, batch_size=8)


@pytest.fixture(scope="session")
def run(recipe, records, tmp_path_factory):
    """A run trained on `records`."""
    from ddkeras import training

    return training.fit(recipe, records, tmp_path_factory.mktemp("runs"), verbose=0)


@pytest.fixture(scope="session")
def reference() -> Path:
    """A folder of public images that cannot be shipped; tests that need it skip where it is not."""
    folder = os.environ.get("DDK_REFERENCE_DATA")
    if not folder:
        pytest.skip("DDK_REFERENCE_DATA is not set")
    return Path(folder)
