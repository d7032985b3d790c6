"""Tiny images, folders, networks and processes, for tests in any folder."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image

SUPPORT = Path(__file__).parent
REPOSITORY = SUPPORT.parents[1]
CATEGORIES = ("animals", "vehicles")
PORTRAIT = Path(mpl.get_data_path()) / "sample_data/grace_hopper.jpg"  # 512 x 600


def encode(kind: str = "JPEG", size: int = 40, seed: int = 0, **options) -> bytes:
    """A small image, of noise that depends on `seed`, as the bytes of a file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def plant(root: Path, counts: dict[str, int]) -> Path:
    """Write `counts[folder]` different JPEGs to each `root/folder`."""
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
    """Scores by a SavedModel, as text, from a process that has TensorFlow but cannot import ddkeras or pipelines."""
    command = [sys.executable, "-c", SERVE, folder, *paths]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=folder)
    return json.loads(done.stdout)


def tiny_network(*, include_top, weights, input_tensor, name):
    """A backbone with the interface of `keras.applications`, but three layers: it trains in seconds."""
    import keras

    assert not include_top
    assert weights is None
    features = keras.layers.Conv2D(8, 3, strides=4, use_bias=False, name="conv")(input_tensor)
    features = keras.layers.ReLU()(keras.layers.BatchNormalization(name="norm")(features))
    return keras.Model(keras.utils.get_source_inputs(input_tensor)[0], features, name=name)


def register_tiny() -> None:
    """Add `tiny` to the backbones."""
    from ddkeras.models.backbones import BACKBONES, Backbone

    BACKBONES["tiny"] = Backbone(tiny_network, 32)


# Code for a Python process that runs `ddk` with the backbone `tiny`.
DDK_WITH_TINY = (
    f"import sys; sys.path.insert(0, {os.fspath(SUPPORT)!r}); import tiny; tiny.register_tiny(); "
    "from ddkeras.cli import main; main()"
)


def change_json(path: Path, *names: str, **values) -> None:
    """Remove fields from a JSON file, and set others."""
    content = json.loads(path.read_text())
    kept = {name: value for name, value in content.items() if name not in names}
    path.write_text(json.dumps(kept | values))


def start_ddk(folder: Path, *arguments, **environment) -> subprocess.Popen:
    """Start `ddk` in a process of its own."""
    command = [sys.executable, "-c", DDK_WITH_TINY, *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def with_each_verdict(run, records, folder: Path):
    """A copy of the run whose operating point yields every verdict, with other thresholds for one category."""
    from ddkeras.evaluation import scoring
    from ddkeras.metrics.calibration import Limits, OperatingPoint
    from ddkeras.runs.run import copy_run

    copy = copy_run(run, folder)
    low, high = np.quantile(scoring.score(copy, records, ["validation"])["validation"].logits, [0.3, 0.7])
    limits, others = Limits(float(low), float(high)), Limits(float(low) - 0.01, float(high) - 0.01)
    fitted = {"false_alarms": 0.01, "misses": 0.05, "reals": 6, "fakes": 6}
    return copy.with_operating_point(OperatingPoint(1.7, limits, {"vehicles": others}, fitted))


def portrait(height: int) -> np.ndarray:
    """A photograph of a face, uint8 (height, width, 3), RGB, of any height."""
    with Image.open(PORTRAIT) as image:
        size = (round(image.width / image.height * height), height)
        return np.asarray(image.convert("RGB").resize(size, Image.Resampling.LANCZOS))


def with_head_weights(value: float, run, folder: Path):
    """A copy of the run with one value for all weights of the authenticity head; 3e38 makes its logits infinite."""
    import keras

    from ddkeras.runs.run import copy_run

    copy = copy_run(run, folder)
    model = keras.saving.load_model(copy.model_path, compile=False)
    head = model.get_layer("authenticity")
    head.set_weights([np.full_like(weights, value) for weights in head.get_weights()])
    model.save(copy.model_path)
    return copy
