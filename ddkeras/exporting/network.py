"""What LiteRT and ONNX share: the network without decode and resize, made convertible and written with its bundle."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from ddkeras.exporting.bundle import next_version, save
from ddkeras.metrics.calibration import VERDICTS
from ddkeras.models.detector import all_layers
from ddkeras.runs.run import Run

_NETWORK_INPUTS = {
    "images": "float32 (batch, image_size, image_size, 3), RGB from 0 to 255, decoded and resized before"
}


_NETWORK_OUTPUTS = {
    "fake_probability": "calibrated probability that the image is fake, from 0 to 1",
    "verdict": f"index of {', '.join(VERDICTS)}",
    "logit": "of fake, before calibration",
    "category_probabilities": "of each category, in the order of labels.txt; of sum 1",
}


def available_outputs(run: Run, outputs: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in outputs.items() if run.categories or not name.startswith("category")}


def export_network(
    run: Run,
    base: Path,
    model: str,
    described: dict,
    write: Callable[[keras.Model, list[tf.TensorSpec], Path], None],
    prepare: Callable[[keras.Model], None] | None = None,
) -> Path:
    """Write a network that LiteRT or ONNX can hold; `prepare` may change its weights before."""
    final = next_version(base)
    described = {**described, "inputs": _NETWORK_INPUTS, "outputs": available_outputs(run, _NETWORK_OUTPUTS)}
    with save(final, run, model=model, described=described) as partial_folder:
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
    for layer in (network, *all_layers(network)):
        layer.dtype_policy = "float32"
        if isinstance(layer, keras.layers.Normalization):
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)
    return network
