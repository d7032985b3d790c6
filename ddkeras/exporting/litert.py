"""Exporting a run's network to LiteRT, in float32, float16 or int8."""

import contextlib
import importlib.util
import io
import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

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
    """Export the run's network to the next version in `exports`/<run>-litert, or <run>-litert-<precision>.

    Decoding and resizing are not included. The input is `images`, float32 (batch, image_size, image_size, 3), RGB in
    0..255; the outputs are those of `model.scoring_model`. The batch size is 1 unless the interpreter resizes it.

    Args:
        precision: of the weights: float32, float16, or int8 for all but the first convolutions and the heads.
            LiteRT computes in float32 with any of them.
        records: for int8, records whose `train` images the rounding is learned from.
        progress: for int8, called with (done, total) while the rounding is learned.

    Returns:
        The version's folder.

    Raises:
        DataError: the records have no such split, or a damaged one.
        ConfigError: the quantizer is not installed, or there are no records for int8.
    """
    kind = "litert" if precision == "float32" else f"litert-{precision}"
    details: dict[str, Any] = {"format": f"LiteRT, {precision}"}
    options: dict[str, Any] = {}
    prepare = None
    if precision == "float16":
        options = {"optimizations": [tf.lite.Optimize.DEFAULT], "target_spec": {"supported_types": [tf.float16]}}
    if precision == "int8":
        if not importlib.util.find_spec("ai_edge_quantizer"):  # fail before the rounding is learned
            raise ConfigError(_NO_QUANTIZER)
        if records is None:
            raise ConfigError("int8 needs records, to learn the rounding from their training images")
        images = min(records.split("train", labelled=True).examples, _ROUNDING_STEPS * _ROUNDING_BATCH)
        details["rounded_on"] = {"records": records.fingerprint, "images": images}
        prepare = partial(_learn_rounding, run=run, records=records, progress=progress)

    def write(scorer: keras.Model, signature: list[tf.TensorSpec], path: Path) -> None:
        scorer.export(os.fspath(path), format="litert", input_signature=signature, verbose=False, **options)
        if precision == "int8":
            path.write_bytes(_quantized_model(path))

    return export_network(run, Path(exports) / f"{run.name}-{kind}", LITERT, details, write, prepare)


def _learn_rounding(network: keras.Model, run: Run, records: Records, progress: Callable[[int, int], None]) -> None:
    """Round the weights of a network to 8 bits, with the rounding learned from training images."""
    epochs = -(-_ROUNDING_STEPS // -(-records.split("train", labelled=True).examples // _ROUNDING_BATCH))
    batches = training_batches(records, view=run.view, batch_size=_ROUNDING_BATCH, epochs=epochs, seed=0)
    images = batches.map(lambda images, *_: images).take(_ROUNDING_STEPS)
    quantization.learn_rounding(network, images, _ROUNDING_STEPS, progress)


def _quantized_model(path: Path) -> bytes:
    """The LiteRT model in `path` with those kernels stored in 8 bits that 8 bits hold without loss.

    Activations stay in float32: the weights are what makes a file large, and on a CPU LiteRT is no faster in int8.
    """
    try:
        from ai_edge_quantizer import qtyping, quantizer  # noqa: PLC0415  an extra
    except ImportError as error:
        raise ConfigError(_NO_QUANTIZER) from error

    recipe = quantizer.Quantizer(os.fspath(path))
    for kind, output in _quantized_convolutions(path):
        operation = qtyping.TFLOperationName[kind]
        recipe.add_weight_only_config(regex=f"^{re.escape(output)};?$", operation_name=operation, num_bits=8)
    with contextlib.redirect_stdout(io.StringIO()):  # its progress output
        return bytes(recipe.quantize().quantized_model)


def _quantized_convolutions(path: Path) -> Iterator[tuple[str, str]]:
    """The operation and the output name of each convolution whose kernel was rounded to 8 bits."""
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415  an extra

    interpreter = Interpreter(os.fspath(path))
    names = {tensor["index"]: tensor["name"] for tensor in interpreter.get_tensor_details()}
    for operation in litert_operations(interpreter):
        axis = _CHANNEL_AXES.get(operation["op_name"])
        if axis is not None and quantization.is_quantized(interpreter.get_tensor(operation["inputs"][1]), axis):
            yield operation["op_name"], names[operation["outputs"][0]]
