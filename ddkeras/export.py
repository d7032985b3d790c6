"""A run as a SavedModel that TensorFlow Serving loads: images in, verdicts out, and nothing of ours needed.

artifacts/export/<run>/<version>/
    saved_model.pb, variables/, fingerprint.pb
    assets.extra/tf_serving_warmup_requests    what TensorFlow Serving sends itself before it says that it is ready
    labels.txt          the categories, one in a line, in the order of `category_probabilities`
    model_card.json     what it is, how it was made, what was measured, what it is not for
    SHA256SUMS          of all other files; check them with: sha256sum -c SHA256SUMS
"""

import dataclasses
import hashlib
import io
import json
import os
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog, PredictLog

from ddkeras.calibration import VERDICTS
from ddkeras.runs import Run, package_versions
from ddkeras.wording import INTENDED_USE, LIMITS_OF_USE
from pipelines import atomic
from pipelines.decoding import decode_those_readable, resize
from pipelines.examples import LABELS

ERROR = "error"  # the verdict on what is no image
INPUTS = {
    "serving_default": ("image_bytes", tf.TensorSpec([None], tf.string, name="image_bytes")),
    "images": ("images", tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")),
}
OUTPUTS = {
    "fake_probability": "calibrated probability that the image is fake, from 0 to 1; NaN with the verdict error",
    "verdict": f"{', '.join(VERDICTS)}, or {ERROR} for what cannot be decoded",
    "logit": "of fake, before calibration",
    "category": "the likeliest category; empty with the verdict error",
    "category_probabilities": "of each category, in the order of labels.txt; of sum 1",
}
_MEASURED = ("auc", "average_precision", "log_loss", "calibration_error", "coverage", "risk")


def export_saved_model(run: Run, exports: str | os.PathLike) -> Path:
    """Write the run's model to `exports`/<run>/<version>, the version being one more than the highest there.

    The graph holds the decode, the resize, the pixel scaling and the operating point, and loads with TensorFlow
    alone. Its signatures are `serving_default`, which takes `image_bytes`, string (batch,), encoded images; and
    `images`, which takes `images`, uint8 (batch, height, width, 3), RGB of any size. Both return what `OUTPUTS` says,
    each (batch,), strings or float32, but for `category_probabilities` (batch, categories); those of categories only
    where the run has them. What cannot be decoded is a row with the verdict `error`; the others have their scores.

    Returns:
        The version's folder; its parent is the base path to give to TensorFlow Serving.
    """
    base = Path(exports) / run.name
    versions = [int(path.name) for path in base.glob("*") if path.name.isdigit()]
    final = base / str(max(versions, default=0) + 1)
    with atomic.folder(final, marker="saved_model.pb") as partial:
        archive = keras.export.ExportArchive()
        scorer = run.load_scorer()
        archive.track(scorer)
        for name, endpoint in _endpoints(run, scorer).items():
            archive.add_endpoint(name, endpoint)
        archive.write_out(partial, verbose=False)
        _write_warm_up(partial / "assets.extra" / "tf_serving_warmup_requests", run)
        (partial / "labels.txt").write_text("".join(f"{name}\n" for name in run.categories), encoding="utf-8")
        (partial / "model_card.json").write_text(json.dumps(_model_card(run), indent=2) + "\n", encoding="utf-8")
        _write_sums(partial)
    return final


def _endpoints(run: Run, scorer: keras.Model) -> dict:
    size = run.recipe.image_size

    def serving_default(image_bytes):
        images, is_readable = decode_those_readable(image_bytes, size)
        return _answer(run, scorer(images, training=False), is_readable)

    def images(images):
        scores = scorer(resize(images, size), training=False)
        return _answer(run, scores, tf.ones_like(scores["verdict"], tf.bool))

    return {
        function.__name__: tf.function(function, input_signature=[INPUTS[function.__name__][1]])
        for function in (serving_default, images)
    }


def _answer(run: Run, scores: dict[str, tf.Tensor], is_readable: tf.Tensor) -> dict[str, tf.Tensor]:
    """Scores as a server gives them: names in place of numbers, and none for what was not read."""

    def or_nan(values: tf.Tensor) -> tf.Tensor:
        known = is_readable if values.shape.rank == 1 else is_readable[:, tf.newaxis]
        return tf.where(known, values, np.nan)

    answer = {name: or_nan(values) for name, values in scores.items() if name != "verdict"}
    answer["verdict"] = tf.where(is_readable, tf.gather(tf.constant(VERDICTS), scores["verdict"]), ERROR)
    if run.categories:
        best = tf.argmax(scores["category_probabilities"], axis=-1)
        answer["category"] = tf.where(is_readable, tf.gather(tf.constant(run.categories), best), "")
    return answer


# --- what goes with it -----------------------------------------------------------------------------------------


def _write_warm_up(path: Path, run: Run) -> None:
    """Requests in the form in which TensorFlow Serving logs them, to both signatures."""
    path.parent.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (2, run.recipe.image_size, run.recipe.image_size, 3), np.uint8)
    values = {"serving_default": [_jpeg(image) for image in pixels], "images": pixels}
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
        for signature, (name, spec) in INPUTS.items():
            request = PredictRequest()
            request.model_spec.name = run.name
            request.model_spec.signature_name = signature
            request.inputs[name].CopyFrom(tf.make_tensor_proto(values[signature], spec.dtype))
            writer.write(PredictionLog(predict_log=PredictLog(request=request)).SerializeToString())


def _jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def _model_card(run: Run) -> dict:
    outputs = {name: text for name, text in OUTPUTS.items() if run.categories or not name.startswith("category")}
    return {
        "name": run.name,
        "intended_use": INTENDED_USE,
        "limits_of_use": list(LIMITS_OF_USE),
        "inputs": {signature: name for signature, (name, _) in INPUTS.items()},
        "outputs": outputs,
        "image_size": run.recipe.image_size,
        "labels": list(LABELS),
        "categories": run.categories,
        "operating_point": run.point.to_dict(),
        "measured": {
            path.parent.name: _measured(path) for path in sorted(run.folder.glob("evaluation/*/metrics.json"))
        },
        "records": run.fingerprint,
        "recipe": dataclasses.asdict(run.recipe),
        **run.cost(),
        "versions": package_versions(),
    }


def _measured(path: Path) -> dict:
    """The numbers of a split that matter most; all are in its report."""
    found = json.loads(path.read_text())
    authenticity = found["authenticity"]
    point = authenticity["at_operating_point"]
    return {
        "records": found["records"],
        "examples": found["examples"],
        **{name: authenticity[name] for name in _MEASURED},
        **{name: point[name] for name in ("false_positive_rate", "recall")},
        "bias_probe": found.get("bias_probe", {}).get("verdict"),
        "notes": found["notes"],
    }


def _write_sums(folder: Path) -> None:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in paths]
    (folder / "SHA256SUMS").write_text("".join(lines))
