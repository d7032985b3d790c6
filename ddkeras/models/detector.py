"""The detector network: a trunk with two heads on its pooled features."""

from collections.abc import Iterator

import keras

from ddkeras.metrics.calibration import OperatingPoint

HEADS = ("authenticity", "category")
HEAD_LAYERS = (*HEADS, "attention_hidden", "attention")  # what is trained above a frozen trunk
_ATTENTION_UNITS = 64
POOLED = "pooled"  # the layer whose input is the feature map


def build_model(trunk: keras.Model, categories: int, *, dropout: float = 0.2, attention: bool = False) -> keras.Model:
    """Add the heads to `trunk`.

    Args:
        trunk: from images to a feature map, see `backbones.build_trunk`.
        categories: number of classes; 0 builds no category head.
        dropout: dropout rate of the pooled features, in [0, 1).
        attention: score how much each image, a window of a larger one, counts among the others.

    Returns:
        A model from float32 (batch, size, size, 3), RGB in 0..255, to a dict of float32 logits: `authenticity`
        (batch, 1), whose sigmoid is the probability that the image is fake, `category` (batch, categories), and
        `attention` (batch, 1); see `aggregation.aggregate`.
    """
    features = keras.layers.GlobalAveragePooling2D(name=POOLED)(trunk.output)
    features = keras.layers.Dropout(dropout, name="dropout")(features)
    # float32 in any precision: float16 logits saturate while the loss still has a gradient.
    outputs = {"authenticity": keras.layers.Dense(1, dtype="float32", name="authenticity")(features)}
    if categories:
        outputs["category"] = keras.layers.Dense(categories, dtype="float32", name="category")(features)
    if attention:
        hidden = keras.layers.Dense(_ATTENTION_UNITS, activation="tanh", name="attention_hidden")(features)
        outputs["attention"] = keras.layers.Dense(1, dtype="float32", name="attention")(hidden)
    return keras.Model(trunk.inputs[0], outputs, name=trunk.name)


def average_with_mirror(model: keras.Model) -> keras.Model:
    """The same network with its logits averaged over each image and its mirror image."""
    logits, mirrored = model.output, model(keras.ops.flip(model.input, axis=2))
    return keras.Model(model.input, {head: (logits[head] + mirrored[head]) / 2 for head in logits})


def scoring_model(
    model: keras.Model, point: OperatingPoint, categories: list[str], *, mirrored: bool = False
) -> keras.Model:
    """The same network with probabilities and verdicts as outputs.

    Args:
        model: from `build_model`.
        point: calibration and thresholds.
        categories: the class names of the category head, in the order of its outputs.
        mirrored: average the logits over each image and its mirror image.

    Returns:
        A model from the same images to a dict of float32 `logit` (batch,), of fake; `fake_probability` (batch,), in
        [0, 1]; int32 `verdict` (batch,), indices of `calibration.VERDICTS`; and, with a category head, float32
        `category_probabilities` (batch, categories), each row of sum 1. A model with attention has `attention`
        (batch,), too.
    """
    logits = (average_with_mirror(model) if mirrored else model).output
    logit = logits["authenticity"][:, 0]
    outputs = {"logit": logit, "fake_probability": point.probabilities(logit)}
    if "category" in logits:
        outputs["category_probabilities"] = keras.ops.softmax(logits["category"])
    if "attention" in logits:
        outputs["attention"] = logits["attention"][:, 0]
    outputs["verdict"] = point.verdicts(logit, outputs.get("category_probabilities"), categories)
    return keras.Model(model.input, outputs, name=f"{model.name}_scores")


def all_layers(network: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a network in order, those of nested models included."""
    for layer in network.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from all_layers(layer)
