"""What LiteRT and ONNX exports share: the network alone, without decoding and resizing, made convertible."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ddkeras.exporting.bundle import select_outputs, write_bundle
from ddkeras.metrics.calibration import VERDICTS, require_finite
from ddkeras.models.detector import all_layers
from ddkeras.runs.run import Run

_INPUTS = {  # by view
    "squash": "float32 (batch, image_size, image_size, 3), RGB from 0 to 255, decoded and resized before",
    "windows": "float32 (batch, image_size, image_size, 3), RGB from 0 to 255, windows that were cut "
    "at native resolution before; the logit of an image is aggregated from theirs",
}
_OUTPUTS = {
    "fake_probability": "calibrated probability that the image is fake, from 0 to 1",
    "verdict": f"index of {', '.join(VERDICTS)}",
    "logit": "of fake, before calibration",
    "category_probabilities": "of each category, in the order of labels.txt; of sum 1",
    "attention": "whose softmax over the windows of an image is their weight in its logit",
}


def export_network(
    run: Run,
    base: Path,
    model: str,
    details: dict[str, Any],
    write: Callable[[keras.Model, list[tf.TensorSpec], Path], None],
    prepare: Callable[[keras.Model], None] | None = None,
) -> Path:
    """Write the network of a run, in a form that LiteRT and ONNX support, to the next version in `base`.

    Args:
        model: the name of the model file.
        details: added to the model card, beside the inputs and outputs.
        write: converts the scoring model, with the given input signature, to the given file.
        prepare: changes the weights of the network before.

    Returns:
        The version's folder.

    Raises:
        ConfigError: the run cannot be loaded, or gives scores that are not finite.
    """
    details = {**details, "inputs": {"images": _INPUTS[run.recipe.view]}, "outputs": select_outputs(_OUTPUTS, run)}

    def write_files(folder: Path) -> None:
        size = run.recipe.image_size
        signature = [tf.TensorSpec([None, size, size, 3], tf.float32, name="images")]
        network = _convertible(run.load_model())
        if prepare:
            prepare(network)
        scorer = run.load_scorer(network)
        noise = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype(np.float32)
        require_finite(np.asarray(scorer(noise)["logit"]), run.name)
        write(scorer, signature, folder / model)

    return write_bundle(base, run, details=details, write=write_files)


def _convertible(network: keras.Model) -> keras.Model:
    """Set the network to float32, and make its constants part of the graph.

    LiteRT and ONNX Runtime lack mixed-precision operations; the variables of such a network are float32 anyway. The
    tensors that a Normalization layer holds, as in EfficientNet, would become inputs of the ONNX graph.
    """
    for layer in (network, *all_layers(network)):
        layer.dtype_policy = "float32"
        if isinstance(layer, keras.layers.Normalization):
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)
    return network
