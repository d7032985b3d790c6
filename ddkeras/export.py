"""A run's model as a file that runs without us: a SavedModel with the decode, or the network as LiteRT or ONNX.

artifacts/export/<run>/<version>/               beside what `export_folder` adds to each
    saved_model.pb, fingerprint.pb              the graph with its weights; variables/ is empty
    assets.extra/tf_serving_warmup_requests     what TensorFlow Serving sends itself before it says that it is ready
artifacts/export/<run>-<format>/<version>/
    model.tflite or model.onnx
"""

import io
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog, PredictLog

from ddkeras.calibration import VERDICTS
from ddkeras.errors import ConfigError
from ddkeras.export_folder import LITERT, ONNX, SAVED_MODEL, next_version, written
from ddkeras.freezing import frozen
from ddkeras.runs import Run
from pipelines import reading
from pipelines.decoding import decode_those_readable, resize
from pipelines.records import Records

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
_NETWORK_INPUTS = {
    "images": "float32 (batch, image_size, image_size, 3), RGB from 0 to 255, decoded and resized before"
}
_NETWORK_OUTPUTS = {
    "fake_probability": "calibrated probability that the image is fake, from 0 to 1",
    "verdict": f"index of {', '.join(VERDICTS)}",
    "logit": "of fake, before calibration",
    "category_probabilities": "of each category, in the order of labels.txt; of sum 1",
}
_HEADS = ("/authenticity", "/category")  # in the names that their operations have in a graph
_FIRST_CONVOLUTIONS = 2  # of a MobileNetV2, a third of int8's error is theirs (scripts/export_parity.py)
_CALIBRATED_ON = 200  # images; LiteRT's own guide asks for a few hundred


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
    described = {"format": "SavedModel", "inputs": inputs, "outputs": _had(run, OUTPUTS)}
    with written(final, run, model=SAVED_MODEL, described=described) as partial:
        tf.saved_model.save(tf.Module(), partial, signatures=_signatures(run))
        _write_warm_up(partial / "assets.extra" / "tf_serving_warmup_requests", run)
    return final


def _had(run: Run, outputs: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in outputs.items() if run.categories or not name.startswith("category")}


def _signatures(run: Run) -> dict:
    size = run.recipe.image_size
    scorer = frozen(run.load_scorer(), size)

    def serving_default(image_bytes):
        images, is_readable = decode_those_readable(image_bytes, size)
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


def export_litert(
    run: Run, exports: str | os.PathLike, *, precision: str = "float32", records: Records | None = None
) -> Path:
    """Write the run's network to `exports`/<run>-litert, or <run>-litert-<precision>, and the next version in it.

    Decoding and resizing are not in it. It takes `images`, float32 (batch, image_size, image_size, 3), RGB in 0..255,
    and returns what `model.scoring_model` does; its batch is 1 until the interpreter is told another.

    Args:
        precision: float32; float16, of the weights, which halves the file; or int8, of weights and activations. The
            first convolutions, the heads and what follows from them stay float32.
        records: whose `train` images say what values activations take; only int8 needs them.

    Returns:
        The version's folder.

    Raises:
        DataError: the records have no such split, or a damaged one.
    """
    kind = "litert" if precision == "float32" else f"litert-{precision}"
    described = {"format": f"LiteRT, {precision}"}
    options = {}
    if precision == "float16":
        options = {"optimizations": [tf.lite.Optimize.DEFAULT], "target_spec": {"supported_types": [tf.float16]}}
    if precision == "int8":
        images = list(_calibration_images(run, records))
        described["calibrated_on"] = {"records": records.fingerprint, "images": len(images)}
        options = {
            "optimizations": [tf.lite.Optimize.DEFAULT],
            "representative_dataset": lambda: ([image] for image in images),
            "_experimental_calibrate_only": True,
        }

    def write(scorer: keras.Model, signature: list[tf.TensorSpec], path: Path) -> None:
        scorer.export(path, format="litert", input_signature=signature, verbose=False, **options)
        if precision == "int8":
            path.write_bytes(_quantized(path.read_bytes()))

    return _export_network(run, Path(exports) / f"{run.name}-{kind}", LITERT, described, write)


def export_onnx(run: Run, exports: str | os.PathLike) -> Path:
    """The same as `export_litert` with float32, as ONNX in `exports`/<run>-onnx; for a batch of any size.

    Raises:
        ConfigError: what converts to ONNX is not installed.
    """
    try:
        import tf2onnx  # noqa: F401, PLC0415  an extra; Keras asks for it
    except ImportError as error:
        raise ConfigError('ONNX needs tf2onnx; install it with: pip install "ddkeras[onnx]"') from error

    def write(scorer: keras.Model, signature: list[tf.TensorSpec], path: Path) -> None:
        scorer.export(path, format="onnx", input_signature=signature, verbose=False)

    return _export_network(run, Path(exports) / f"{run.name}-onnx", ONNX, {"format": "ONNX"}, write)


def _export_network(
    run: Run, base: Path, model: str, described: dict, write: Callable[[keras.Model, list[tf.TensorSpec], Path], None]
) -> Path:
    final = next_version(base)
    described = {**described, "inputs": _NETWORK_INPUTS, "outputs": _had(run, _NETWORK_OUTPUTS)}
    with written(final, run, model=model, described=described) as partial:
        size = run.recipe.image_size
        signature = [tf.TensorSpec([None, size, size, 3], tf.float32, name="images")]
        write(_convertible(run.load_scorer()), signature, partial / model)
    return final


def _convertible(scorer: keras.Model) -> keras.Model:
    """The same model, in float32 and with its constants in the graph.

    Neither LiteRT nor ONNX Runtime has the operations of a network of mixed precision, whose variables are float32 as
    they are. What a Normalization holds as tensors, as in an EfficientNet, tf2onnx would take for inputs.
    """
    for layer in scorer._flatten_layers():
        layer.dtype_policy = "float32"
        if isinstance(layer, keras.layers.Normalization):
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)
    return scorer


def _calibration_images(run: Run, records: Records) -> Iterator[np.ndarray]:
    """Training images in random order, the same each time, float32 (1, image_size, image_size, 3)."""
    batches = reading.training(records, image_size=run.recipe.image_size, batch_size=run.recipe.batch, seed=0)
    images = batches.map(lambda images, *_: images).unbatch().take(_CALIBRATED_ON)
    for image in images.as_numpy_iterator():
        yield image[np.newaxis].astype(np.float32)


def _quantized(calibrated: bytes) -> bytes:
    """A LiteRT model to int8, but for its first convolutions, its heads and what follows from them.

    Keras's exporter, and the converter in it, would quantise all of it: a probability would be a multiple of 1/256,
    no logit greater than those of the calibration images, and an error of the first layers is one of all that follow.
    Only this function of the converter spares some.
    """
    from tensorflow.lite.python.convert import mlir_quantize  # noqa: PLC0415  slow to load, and seldom needed

    return mlir_quantize(calibrated, denylisted_nodes=_kept_in_float(calibrated))


def _kept_in_float(content: bytes) -> list[str]:
    """The names of what those operations of a LiteRT model give that are not to be quantised."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # use LiteRT's own: here it is not needed
        interpreter = tf.lite.Interpreter(model_content=content)
    names = {tensor["index"]: tensor["name"] for tensor in interpreter.get_tensor_details()}
    kept, convolutions, after_a_head = [], {}, set()  # by tensor: how many convolutions it comes from
    for operation in interpreter._get_ops_details():  # in the order in which they are run
        outputs, kind = [names[index] for index in operation["outputs"]], operation["op_name"]
        deepest = max((convolutions.get(index, 0) for index in operation["inputs"]), default=0)
        depth = deepest + ("CONV_2D" in kind)
        convolutions |= dict.fromkeys(operation["outputs"], depth)
        is_head = kind == "FULLY_CONNECTED" and any(head in name for name in outputs for head in _HEADS)
        if is_head or not after_a_head.isdisjoint(operation["inputs"]):
            after_a_head.update(operation["outputs"])
            kept += outputs
        elif depth <= _FIRST_CONVOLUTIONS:
            kept += outputs
    return kept
