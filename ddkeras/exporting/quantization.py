"""Weights in 8 bits, rounded so that the logits of real images stay what they were.

To round each weight to the nearest of 255 values moves the logits of a detector, which reads faint traces, across its
limits. Which way to round is learnt instead, in a few hundred steps, from what the unrounded network says of images.
"""

from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf

from ddkeras.models.detector import all_layers

_MOST = 127  # the greatest weight of each channel, in steps; that of LiteRT's int8
_SPARED = 0.01  # share of the weights, those of the first convolutions, whose errors all others would enlarge
_RATE = 0.003  # of Adam at the beginning, in steps of a channel
_OF_CATEGORY = 0.1  # weight of that head's logits
_ON_THE_GRID = 0.01  # of a step: further off a weight is not one that was rounded


def learn(
    network: keras.Model, images: Iterable[np.ndarray], steps: int, progress: Callable[[int, int], None]
) -> None:
    """Round the kernels of the convolutions in place, but for the first of them.

    Each output channel has steps of its own, a 127th of its greatest weight, which stays as it is. The others are
    moved against the gradient of the squared difference of logits, rounded in each forward pass, the rounding being
    passed over in the backward pass (Bengio et al. 2013, https://arxiv.org/abs/1308.3432; the teacher is the network
    itself, as in Mishra & Marr 2017, https://arxiv.org/abs/1711.05852).

    Args:
        network: from RGB in 0..255 to logits by head; float32.
        images: as many batches as there are steps, (batch, size, size, 3), 0..255. With none each weight becomes the
            nearest value.
        progress: called with (done, steps) after each.
    """
    kernels = _kernels(network)
    exact = [tf.constant(kernel) for kernel, _ in kernels]
    scales = [_scale(kernel.numpy(), axes) for kernel, axes in kernels]
    levels = [tf.Variable(value / scale) for value, scale in zip(exact, scales, strict=True)]
    is_greatest = [tf.abs(level) > _MOST - _ON_THE_GRID for level in levels]
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(_RATE, max(1, steps)))
    optimizer.build(levels)

    def round_off() -> None:
        for (kernel, _), level, scale in zip(kernels, levels, scales, strict=True):
            kernel.assign(tf.round(level) * scale)

    @tf.function
    def step(batch: tf.Tensor) -> None:
        for (kernel, _), value in zip(kernels, exact, strict=True):
            kernel.assign(value)
        wanted = network(batch, training=False)
        round_off()
        variables = [kernel.value for kernel, _ in kernels]
        with tf.GradientTape() as tape:
            loss = _difference(wanted, network(batch, training=False))
        gradients = zip(tape.gradient(loss, variables), scales, is_greatest, strict=True)
        optimizer.apply([tf.where(stays, 0.0, gradient * scale) for gradient, scale, stays in gradients], levels)
        for level in levels:
            level.assign(tf.clip_by_value(level, -_MOST, _MOST))

    for done, batch in enumerate(images, start=1):
        step(tf.cast(batch, tf.float32))
        progress(done, steps)
    round_off()


def is_rounded(kernel: np.ndarray, axis: int) -> bool:
    """Whether 8 bits hold a kernel without loss, each channel along `axis` having steps of its own."""
    levels = kernel / _scale(kernel, tuple(set(range(kernel.ndim)) - {axis}))
    return bool(np.abs(levels - np.rint(levels)).max() < _ON_THE_GRID)


def _kernels(network: keras.Model) -> list[tuple[keras.Variable, tuple[int, ...]]]:
    """Of the convolutions in their order, less the first, and for each the axes that share a scale."""
    found = []
    for layer in all_layers(network):
        for variable in layer.variables if not isinstance(layer, keras.Model) else ():
            if len(variable.shape) == 4:
                is_by_channel = isinstance(layer, keras.layers.DepthwiseConv2D) or "depthwise" in variable.name
                found.append((variable, (0, 1, 3) if is_by_channel else (0, 1, 2)))
    sizes = np.cumsum([np.prod(variable.shape) for variable, _ in found])
    return [kernel for kernel, size in zip(found, sizes, strict=True) if size > _SPARED * sizes[-1]]


def _scale(kernel: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    greatest = np.abs(kernel).max(axis=axes, keepdims=True)
    return np.where(greatest > 0, greatest / _MOST, 1).astype(np.float32)


def _difference(wanted: dict[str, tf.Tensor], found: dict[str, tf.Tensor]) -> tf.Tensor:
    weights = {"authenticity": 1.0, "category": _OF_CATEGORY}
    return sum(weights[head] * tf.reduce_mean((found[head] - wanted[head]) ** 2) for head in wanted)
