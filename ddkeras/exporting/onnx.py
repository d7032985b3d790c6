"""Exporting a run's network to ONNX."""

import os
from pathlib import Path

import keras
import tensorflow as tf

from ddkeras.exceptions import ConfigError
from ddkeras.exporting.bundle import ONNX
from ddkeras.exporting.network import export_network
from ddkeras.runs.run import Run


def export_onnx(run: Run, exports: str | os.PathLike) -> Path:
    """Export the run's network to the next version in `exports`/<run>-onnx.

    Inputs and outputs are those of `export_litert`; the batch may have any size.

    Returns:
        The version's folder.

    Raises:
        ConfigError: the converter is not installed.
    """
    try:
        import tf2onnx  # noqa: F401, PLC0415  an extra that Keras needs
    except ImportError as error:
        raise ConfigError('ONNX needs tf2onnx; install it with: pip install "ddkeras[onnx]"') from error

    def write(scorer: keras.Model, signature: list[tf.TensorSpec], path: Path) -> None:
        scorer.export(path, format="onnx", input_signature=signature, verbose=False)

    return export_network(run, Path(exports) / f"{run.name}-onnx", ONNX, {"format": "ONNX"}, write)
