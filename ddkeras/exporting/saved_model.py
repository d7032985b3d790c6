"""A run's model as a file that runs without us: a SavedModel with the decode, or the network as LiteRT or ONNX.

artifacts/export/<run>/<version>/               beside what `export_folder` adds to each
    saved_model.pb, fingerprint.pb              the graph with its weights; variables/ is empty
    assets.extra/tf_serving_warmup_requests     what TensorFlow Serving sends itself before it says that it is ready
artifacts/export/<run>-<format>/<version>/
    model.tflite or model.onnx
"""

import io
import os
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog, PredictLog

from ddkeras.exporting.bundle import SAVED_MODEL, next_version, save
from ddkeras.exporting.network import available_outputs
from ddkeras.metrics.calibration import VERDICTS
from ddkeras.models.frozen_graph import freeze_graph
from ddkeras.runs.run import Run
from pipelines.decoding import resize, try_decode_and_resize

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


# --- SavedModel ------------------------------------------------------------------------------------------------


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
    final = next_version(Path(exports) / run.name)
    inputs = {signature: name for signature, (name, _) in INPUTS.items()}
    described = {"format": "SavedModel", "inputs": inputs, "outputs": available_outputs(run, OUTPUTS)}
    with save(final, run, model=SAVED_MODEL, described=described) as partial_folder:
        tf.saved_model.save(tf.Module(), partial_folder, signatures=_signatures(run))
        _write_warm_up(partial_folder / "assets.extra" / "tf_serving_warmup_requests", run)
    return final


def _signatures(run: Run) -> dict:
    size = run.recipe.image_size
    scorer = freeze_graph(run.load_scorer(), size)

    def serving_default(image_bytes):
        images, is_readable = try_decode_and_resize(image_bytes, size)
        return _answer(run, scorer(images), is_readable)

    def images(images):
        scores = scorer(resize(images, size))
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


# --- LiteRT and ONNX -------------------------------------------------------------------------------------------
