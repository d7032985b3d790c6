"""A run's model as a file that runs without us: a SavedModel with the decode, or the network as LiteRT or ONNX.

artifacts/export/<run>/<version>/               beside what `export_folder` adds to each
    saved_model.pb, fingerprint.pb              the graph with its weights; variables/ is empty
    assets.extra/tf_serving_warmup_requests     what TensorFlow Serving sends itself before it says that it is ready
artifacts/export/<run>-<format>/<version>/
    model.tflite or model.onnx
"""

import contextlib
import importlib.util
import io
import os
import re
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog, PredictLog

from ddkeras import rounding
from ddkeras.calibration import VERDICTS
from ddkeras.errors import ConfigError
from ddkeras.export_folder import LITERT, ONNX, SAVED_MODEL, next_version, written
from ddkeras.freezing import frozen
from ddkeras.runs import Run
from pipelines.decoding import decode_those_readable, resize
from pipelines.loading import batches as reading
from pipelines.records.store import Records

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
_ROUNDING_STEPS, _ROUNDING_BATCH = 200, 16
_CHANNEL_AXES = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3}  # of the kernels of LiteRT's operations
_NO_QUANTIZER = 'litert-int8 needs the quantizer of LiteRT; install it with: pip install "ddkeras[litert]"'


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
    with written(final, run, model=SAVED_MODEL, described=described) as partial_folder:
        tf.saved_model.save(tf.Module(), partial_folder, signatures=_signatures(run))
        _write_warm_up(partial_folder / "assets.extra" / "tf_serving_warmup_requests", run)
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
    run: Run,
    exports: str | os.PathLike,
    *,
    precision: str = "float32",
    records: Records | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write the run's network to `exports`/<run>-litert, or <run>-litert-<precision>, and the next version in it.

    Decoding and resizing are not in it. It takes `images`, float32 (batch, image_size, image_size, 3), RGB in 0..255,
    and returns what `model.scoring_model` does; its batch is 1 until the interpreter is told another.

    Args:
        precision: of the weights: float32; float16; or int8, but for the first convolutions and the heads. LiteRT
            computes in float32 with all of them.
        records: whose `train` images the rounding to int8 is learnt from.
        progress: called with (done, total) while it is.

    Returns:
        The version's folder.

    Raises:
        DataError: the records have no such split, or a damaged one.
        ConfigError: what quantises is not installed.
    """
    kind = "litert" if precision == "float32" else f"litert-{precision}"
    described = {"format": f"LiteRT, {precision}"}
    options, prepare = {}, None
    if precision == "float16":
        options = {"optimizations": [tf.lite.Optimize.DEFAULT], "target_spec": {"supported_types": [tf.float16]}}
    if precision == "int8":
        if not importlib.util.find_spec("ai_edge_quantizer"):  # before minutes go by
            raise ConfigError(_NO_QUANTIZER)
        images = min(records.split("train", labelled=True).examples, _ROUNDING_STEPS * _ROUNDING_BATCH)
        described["rounded_on"] = {"records": records.fingerprint, "images": images}
        prepare = partial(_round_off, run=run, records=records, progress=progress)

    def write(scorer: keras.Model, signature: list[tf.TensorSpec], path: Path) -> None:
        scorer.export(os.fspath(path), format="litert", input_signature=signature, verbose=False, **options)
        if precision == "int8":
            path.write_bytes(_quantized(path))

    return _export_network(run, Path(exports) / f"{run.name}-{kind}", LITERT, described, write, prepare)


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
    run: Run,
    base: Path,
    model: str,
    described: dict,
    write: Callable[[keras.Model, list[tf.TensorSpec], Path], None],
    prepare: Callable[[keras.Model], None] | None = None,
) -> Path:
    """Write a network that LiteRT or ONNX can hold; `prepare` may change its weights before."""
    final = next_version(base)
    described = {**described, "inputs": _NETWORK_INPUTS, "outputs": _had(run, _NETWORK_OUTPUTS)}
    with written(final, run, model=model, described=described) as partial_folder:
        size = run.recipe.image_size
        signature = [tf.TensorSpec([None, size, size, 3], tf.float32, name="images")]
        network = _convertible(run.load_model())
        if prepare:
            prepare(network)
        write(run.load_scorer(network), signature, partial_folder / model)
    return final


def _convertible(network: keras.Model) -> keras.Model:
    """The same model, in float32 and with its constants in the graph.

    Neither LiteRT nor ONNX Runtime has the operations of a network of mixed precision, whose variables are float32 as
    they are. What a Normalization holds as tensors, as in an EfficientNet, tf2onnx would take for inputs.
    """
    for layer in network._flatten_layers():
        layer.dtype_policy = "float32"
        if isinstance(layer, keras.layers.Normalization):
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)
    return network


def _round_off(network: keras.Model, run: Run, records: Records, progress: Callable[[int, int], None]) -> None:
    """Have the weights of a network on a grid of 8 bits; its scores of training images stay what they are."""
    epochs = -(-_ROUNDING_STEPS // -(-records.split("train", labelled=True).examples // _ROUNDING_BATCH))
    batches = reading.training(
        records, image_size=run.recipe.image_size, batch_size=_ROUNDING_BATCH, epochs=epochs, seed=0
    )
    images = batches.map(lambda images, *_: images).take(_ROUNDING_STEPS)
    rounding.learn(network, images, _ROUNDING_STEPS, progress)


def _quantized(path: Path) -> bytes:
    """The LiteRT model in `path` with those convolutions in 8 bits that are held by them without loss.

    Only weights: these are what makes a file large, and LiteRT computes in float32 as fast on a CPU.
    """
    try:
        from ai_edge_quantizer import qtyping, quantizer  # noqa: PLC0415  an extra
    except ImportError as error:
        raise ConfigError(_NO_QUANTIZER) from error

    recipe = quantizer.Quantizer(os.fspath(path))
    for kind, output in _rounded_convolutions(path):
        operation = qtyping.TFLOperationName[kind]
        recipe.add_weight_only_config(regex=f"^{re.escape(output)};?$", operation_name=operation, num_bits=8)
    with contextlib.redirect_stdout(io.StringIO()):  # what it says of itself
        return bytes(recipe.quantize().quantized_model)


def _rounded_convolutions(path: Path) -> Iterator[tuple[str, str]]:
    """The kind of each convolution whose kernel was rounded, and the name of its output."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # use LiteRT's own: here it is not needed
        interpreter = tf.lite.Interpreter(os.fspath(path))
    names = {tensor["index"]: tensor["name"] for tensor in interpreter.get_tensor_details()}
    for operation in interpreter._get_ops_details():
        axis = _CHANNEL_AXES.get(operation["op_name"])
        if axis is not None and rounding.is_rounded(interpreter.get_tensor(operation["inputs"][1]), axis):
            yield operation["op_name"], names[operation["outputs"][0]]
