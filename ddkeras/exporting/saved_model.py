"""Exporting a run to a SavedModel, decoding included, that TensorFlow Serving loads.

artifacts/export/<run>/<version>/, in addition to the files that `bundle` describes
    saved_model.pb, fingerprint.pb              the graph with its weights; variables/ is empty
    assets.extra/tf_serving_warmup_requests     requests that TensorFlow Serving warms up with
"""

import io
import os
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog, PredictLog

from ddkeras.exporting.bundle import select_outputs, write_bundle
from ddkeras.metrics.calibration import TOO_SMALL, VERDICTS, require_finite
from ddkeras.models.aggregation import aggregate
from ddkeras.models.frozen_graph import freeze_graph
from ddkeras.runs.run import Run
from pipelines.views import Pixels, Windowed, Windows, flat, try_view

ERROR = "error"  # the verdict for files that cannot be decoded, and for scores that are not finite
INPUTS = {  # by signature: the name and the type of its input
    "serving_default": ("image_bytes", tf.TensorSpec([None], tf.string, name="image_bytes")),
    "images": ("images", tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")),
}
RUNTIME = (
    "TensorFlow alone: both signatures hold operations on strings, and serving_default decodes files. For OpenVINO "
    "and other runtimes: ddk export --to onnx, whose input images is float32 (batch, size, size, 3), RGB, 0 to 255"
)
OUTPUTS = {
    "fake_probability": "calibrated probability that the image is fake, from 0 to 1; NaN with the verdict error",
    "verdict": f"{', '.join(VERDICTS)}, or {ERROR} for what cannot be decoded, or has no finite score",
    "reason": "why the verdict is unsure, if that does not follow from the score: too few pixels; else empty",
    "logit": "of fake, before calibration",
    "category": "the likeliest category; empty with the verdict error",
    "category_probabilities": "of each category, in the order of labels.txt; of sum 1",
}


def export_saved_model(run: Run, exports: str | os.PathLike) -> Path:
    """Export the run's model to the next version in `exports`/<run>.

    The graph includes decoding, resizing, pixel scaling and the operating point, and needs TensorFlow alone. The
    signature `serving_default` takes `image_bytes`, string (batch,), encoded images; the signature `images` takes
    `images`, uint8 (batch, height, width, 3), RGB of any size. Both return `OUTPUTS`, strings or float32 (batch,),
    but `category_probabilities` (batch, categories); the category outputs only if the run has categories. A file that
    cannot be decoded gets the verdict `error`, and does not affect the others. Where the view is windows, the
    signature `windows` takes `images`, uint8 (batch, size, size, 3), and scores each by itself.

    Returns:
        The version's folder; its parent is the model base path for TensorFlow Serving.

    Raises:
        ConfigError: the run cannot be loaded, or gives scores that are not finite.
    """
    inputs = {signature: name for signature, (name, _) in _inputs(run).items()}
    details = {"format": "SavedModel", "runtime": RUNTIME, "inputs": inputs, "outputs": select_outputs(OUTPUTS, run)}

    def write(folder: Path) -> None:
        tf.saved_model.save(tf.Module(), folder, signatures=_signatures(run))
        _write_warm_up_requests(folder / "assets.extra" / "tf_serving_warmup_requests", run)

    return write_bundle(Path(exports) / run.name, run, details=details, write=write)


def _signatures(run: Run) -> dict[str, tf.types.experimental.PolymorphicFunction]:
    size, view = run.recipe.image_size, run.view
    scorer = freeze_graph(run.load_scorer(), size)
    require_finite(scorer(tf.constant(_noise(size)))["logit"].numpy(), run.name)

    def score(pixels: Pixels) -> dict[str, tf.Tensor]:
        return scorer(pixels) if not isinstance(pixels, Windowed) else _by_image(run, scorer(flat(pixels)), pixels)

    def score_files(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels, sides = try_view(image_bytes, view)
        return _outputs(run, score(pixels), sides)

    def score_pixels(images: tf.Tensor) -> dict[str, tf.Tensor]:
        scores = score(view.of_images(images))
        return _outputs(run, scores, tf.fill(tf.shape(scores["verdict"]), tf.reduce_min(tf.shape(images)[1:3])))

    def score_windows(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {name: values for name, values in scorer(images).items() if values.dtype == tf.float32}

    functions = {"serving_default": score_files, "images": score_pixels, "windows": score_windows}
    return {name: tf.function(functions[name], input_signature=[spec]) for name, (_, spec) in _inputs(run).items()}


def _inputs(run: Run) -> dict[str, tuple[str, tf.TensorSpec]]:
    if not isinstance(run.view, Windows):
        return INPUTS
    size = run.recipe.image_size
    return INPUTS | {"windows": ("images", tf.TensorSpec([None, size, size, 3], tf.uint8, name="images"))}


def _by_image(run: Run, scores: dict[str, tf.Tensor], pixels: Windowed) -> dict[str, tf.Tensor]:
    """The outputs of `detector.scoring_model` for images, from those for each of their windows."""
    outputs = aggregate(scores, pixels.counts, run.recipe.aggregate, whole=run.view.whole)
    outputs["fake_probability"] = run.point.probabilities(outputs["logit"])
    verdict = run.point.verdicts(outputs["logit"], outputs.get("category_probabilities"), run.categories)
    return {**outputs, "verdict": verdict}


def _outputs(run: Run, scores: dict[str, tf.Tensor], sides: tf.Tensor) -> dict[str, tf.Tensor]:
    """The outputs of a signature: names in place of indices, and NaN or `ERROR` for images without a score.

    Args:
        scores: the outputs of `detector.scoring_model`.
        sides: int32 (batch,), the shorter side of each image in pixels, 0 where it could not be decoded.
    """
    is_scored = (sides > 0) & tf.math.is_finite(scores["logit"])
    is_small = is_scored & (sides < run.min_side)

    def or_nan(values: tf.Tensor) -> tf.Tensor:
        return tf.where(is_scored if values.shape.rank == 1 else is_scored[:, tf.newaxis], values, np.nan)

    outputs = {name: or_nan(values) for name, values in scores.items() if name != "verdict"}
    verdicts = tf.where(is_small, VERDICTS.index("unsure"), scores["verdict"])
    outputs["verdict"] = tf.where(is_scored, tf.gather(tf.constant(VERDICTS), verdicts), ERROR)
    before, after = TOO_SMALL.format(side="|", min_side=run.min_side).split("|")
    outputs["reason"] = tf.where(is_small, tf.strings.join([before, tf.strings.as_string(sides), after]), "")
    if run.categories:
        likeliest = tf.argmax(scores["category_probabilities"], axis=-1)
        outputs["category"] = tf.where(is_scored, tf.gather(tf.constant(run.categories), likeliest), "")
    return outputs


def _write_warm_up_requests(path: Path, run: Run) -> None:
    """Write one request per signature, in the format of TensorFlow Serving's request logs."""
    path.parent.mkdir()
    size = run.recipe.image_size
    pixels = _noise(size)
    values = {"serving_default": [_jpeg(image) for image in pixels], "images": pixels, "windows": pixels}
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
        for signature, (name, spec) in _inputs(run).items():
            request = PredictRequest()
            request.model_spec.name = run.name
            request.model_spec.signature_name = signature
            request.inputs[name].CopyFrom(tf.make_tensor_proto(values[signature], spec.dtype))
            writer.write(PredictionLog(predict_log=PredictLog(request=request)).SerializeToString())


def _noise(size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)


def _jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()
