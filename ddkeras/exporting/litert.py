"""A run's network as LiteRT, in float32, float16 or int8."""

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
import tensorflow as tf

from ddkeras.exceptions import ConfigError
from ddkeras.exporting import quantization
from ddkeras.exporting.bundle import LITERT
from ddkeras.exporting.network import export_network
from ddkeras.models.tensorflow_internals import litert_operations
from ddkeras.runs.run import Run
from pipelines.loading.batches import training_batches
from pipelines.records.store import Records

_ROUNDING_STEPS, _ROUNDING_BATCH = 200, 16


_CHANNEL_AXES = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3}  # of the kernels of LiteRT's operations


_NO_QUANTIZER = 'litert-int8 needs the quantizer of LiteRT; install it with: pip install "ddkeras[litert]"'


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

    return export_network(run, Path(exports) / f"{run.name}-{kind}", LITERT, described, write, prepare)


def _round_off(network: keras.Model, run: Run, records: Records, progress: Callable[[int, int], None]) -> None:
    """Have the weights of a network on a grid of 8 bits; its scores of training images stay what they are."""
    epochs = -(-_ROUNDING_STEPS // -(-records.split("train", labelled=True).examples // _ROUNDING_BATCH))
    batches = training_batches(
        records, image_size=run.recipe.image_size, batch_size=_ROUNDING_BATCH, epochs=epochs, seed=0
    )
    images = batches.map(lambda images, *_: images).take(_ROUNDING_STEPS)
    quantization.learn(network, images, _ROUNDING_STEPS, progress)


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
    for operation in litert_operations(interpreter):
        axis = _CHANNEL_AXES.get(operation["op_name"])
        if axis is not None and quantization.is_rounded(interpreter.get_tensor(operation["inputs"][1]), axis):
            yield operation["op_name"], names[operation["outputs"][0]]
