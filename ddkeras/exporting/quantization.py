"""8-bit weights whose rounding is learned, so that the logits of real images barely change.

Rounding each weight to the nearest of 255 values shifts the logits of a detector, which relies on faint traces,
across its thresholds. As in AdaRound (Nagel et al. 2020, https://arxiv.org/abs/2004.10568) the rounding is optimized
instead; here for the logits of the whole network, by a few hundred steps of self-distillation.
"""

from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf

from ddkeras.models.detector import all_layers

_MAX_LEVEL = 127  # the largest weight of each channel in quantization steps, as in LiteRT's int8
_FLOAT_SHARE = 0.01  # of all weights: the first convolutions stay in float32, as their errors propagate the furthest
_LEARNING_RATE = 0.003  # initial, for Adam, in quantization steps
_CATEGORY_WEIGHT = 0.1  # of the category logits in the loss
_TOLERANCE = 0.01  # of a quantization step, within which a weight counts as quantized


def learn_rounding(
    network: keras.Model, images: Iterable[np.ndarray], steps: int, progress: Callable[[int, int], None]
) -> None:
    """Round the convolution kernels in place, except for the first convolutions.

    Each output channel has its own scale, 1/127 of its largest weight, which is kept. The other weights are trained
    with Adam to minimize the squared difference between the logits of the rounded and the original network. Weights
    are rounded in the forward pass; gradients pass straight through (Bengio et al. 2013,
    https://arxiv.org/abs/1308.3432). The teacher is the network itself (Mishra & Marr 2017,
    https://arxiv.org/abs/1711.05852).

    Args:
        network: maps RGB in 0..255 to logits by head; float32.
        images: one batch per step, (batch, size, size, 3), in 0..255. Without batches, weights are rounded to the
            nearest value.
        steps: the number of batches.
        progress: called with (done, steps) after each step.
    """
    kernels = _kernels(network)
    originals = [tf.constant(kernel) for kernel, _ in kernels]
    scales = [_scale(kernel.numpy(), axes) for kernel, axes in kernels]
    levels = [tf.Variable(original / scale) for original, scale in zip(originals, scales, strict=True)]
    is_largest = [tf.abs(level) > _MAX_LEVEL - _TOLERANCE for level in levels]
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, max(1, steps)))
    optimizer.build(levels)

    def assign_rounded() -> None:
        for (kernel, _), level, scale in zip(kernels, levels, scales, strict=True):
            kernel.assign(tf.round(level) * scale)

    @tf.function
    def train_step(batch: tf.Tensor) -> None:
        for (kernel, _), original in zip(kernels, originals, strict=True):
            kernel.assign(original)
        targets = network(batch, training=False)
        assign_rounded()
        variables = [kernel.value for kernel, _ in kernels]
        with tf.GradientTape() as tape:
            loss = _distillation_loss(targets, network(batch, training=False))
        gradients = zip(tape.gradient(loss, variables), scales, is_largest, strict=True)
        optimizer.apply([tf.where(fixed, 0.0, gradient * scale) for gradient, scale, fixed in gradients], levels)
        for level in levels:
            level.assign(tf.clip_by_value(level, -_MAX_LEVEL, _MAX_LEVEL))

    for done, batch in enumerate(images, start=1):
        train_step(tf.cast(batch, tf.float32))
        progress(done, steps)
    assign_rounded()


def is_quantized(kernel: np.ndarray, axis: int) -> bool:
    """Whether 8 bits hold a kernel without loss, with one scale per channel along `axis`."""
    levels = kernel / _scale(kernel, tuple(set(range(kernel.ndim)) - {axis}))
    return bool(np.abs(levels - np.rint(levels)).max() < _TOLERANCE)


def _kernels(network: keras.Model) -> list[tuple[keras.Variable, tuple[int, ...]]]:
    """The convolution kernels to round, in order, each with the axes that share a scale."""
    kernels = []
    for layer in all_layers(network):
        for variable in layer.variables if not isinstance(layer, keras.Model) else ():
            if len(variable.shape) == 4:
                is_depthwise = isinstance(layer, keras.layers.DepthwiseConv2D) or "depthwise" in variable.name
                kernels.append((variable, (0, 1, 3) if is_depthwise else (0, 1, 2)))
    cumulative = np.cumsum([np.prod(variable.shape) for variable, _ in kernels])
    return [
        kernel for kernel, weights in zip(kernels, cumulative, strict=True) if weights > _FLOAT_SHARE * cumulative[-1]
    ]


def _scale(kernel: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    largest = np.abs(kernel).max(axis=axes, keepdims=True)
    return np.where(largest > 0, largest / _MAX_LEVEL, 1).astype(np.float32)


def _distillation_loss(targets: dict[str, tf.Tensor], logits: dict[str, tf.Tensor]) -> tf.Tensor:
    weights = {"authenticity": 1.0, "category": _CATEGORY_WEIGHT, "attention": 1.0}
    return sum(weights[head] * tf.reduce_mean((logits[head] - targets[head]) ** 2) for head in targets)
