"""Grad-CAM and Grad-CAM++ over the last feature map, and where the places of that map look in the image."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from ddkeras.exceptions import ConfigError
from ddkeras.explanation.heatmaps import spread
from ddkeras.models.detector import POOLED
from ddkeras.models.frozen_graph import freeze_graph

_NOISES = 4  # images on which it is measured where a feature map looks


def grad_cam(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Selvaraju et al. 2017, equations 1 and 2.

    Args:
        features: float32 (n, rows, columns, channels), a feature map.
        gradients: of the same shape, how what is explained grows with each feature.

    Returns:
        float32 (n, rows, columns), 0 or more.
    """
    weights = gradients.mean(axis=(1, 2))
    return np.maximum(np.einsum("nyxc,nc->nyx", features, weights), 0)


def grad_cam_plus_plus(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Chattopadhay et al. 2018, equations 10 and 19, for the exponential of what is explained, and up to that factor.

    Only what speaks for it has weight. Features count as rectified in the sum over places, as they are in the paper.

    Args:
        features, gradients: as `grad_cam` takes them.

    Returns:
        As `grad_cam`.
    """
    gains = np.maximum(gradients, 0)
    sums = np.maximum(features, 0).sum(axis=(1, 2), keepdims=True)
    weights = (gains / (2 + sums * gains)).sum(axis=(1, 2))
    return np.maximum(np.einsum("nyxc,nc->nyx", features, weights), 0)


WEIGHTINGS = {"gradcam": grad_cam, "gradcam++": grad_cam_plus_plus}


class FeatureMap:
    """What a network makes of an image before it pools that for its heads."""

    def __init__(self, model: keras.Model, name: str):
        features, size = _pooled(model, name), model.input_shape[1]
        trunk = keras.Model(model.input, {"features": features})
        self._heads = keras.Model(features, model.output)
        self._features = freeze_graph(trunk, size)
        self._spread = spread(centres(trunk), size)

    def look(
        self, images: np.ndarray, head: str, directions: np.ndarray, weighted: Callable
    ) -> tuple[np.ndarray, np.ndarray]:
        """The logits of what is explained, float32 (n,), and its heats, float32 (n, size, size), 0 or more."""
        features = self._features(tf.constant(images))["features"]
        with tf.GradientTape() as tape:
            tape.watch(features)
            logits = tf.reduce_sum(self._heads(features, training=False)[head] * directions, axis=1)
        gradients = tape.gradient(logits, features)
        heats = weighted(*(values.numpy().astype(np.float32) for values in (features, gradients)))
        return logits.numpy(), self._spread @ heats @ self._spread.T


def _pooled(model: keras.Model, name: str):
    """The feature map of a network, whatever that is made of: what is pooled for the heads."""
    pooled = next((layer.input for layer in model.layers if layer.name == POOLED), None)
    if pooled is None or len(pooled.shape) != 4:
        raise ConfigError(f"{name} has no feature map that is pooled for its heads; give --method occlusion")
    if pooled.shape[1] * pooled.shape[2] == 1:
        raise ConfigError(
            f"{name} makes of its images of {model.input_shape[1]} pixels a feature map of one place, which cannot "
            "tell where it looked; give --method occlusion, or train on larger images"
        )
    return pooled


def centres(trunk: keras.Model) -> np.ndarray:
    """Where each row of a feature map looks, and each column: float64 (rows,), pixels from the edge of the image.

    They are a stride apart, but not in the middles of equal shares of the image. Strided layers pad one side more
    than the other, some branches of residual networks skip pixels, and what kernels have learned need not lie in
    their middle; maps that leave that out are off by up to half a place. Where the middle of the feature map looks is
    therefore measured, as the centre of its effective field (Luo et al. 2016, https://arxiv.org/abs/1701.04128): of
    the squares of the gradients that images of noise get from it. It is the middle of the image where they get none.

    Args:
        trunk: from images to a dict of `features`, (batch, rows, columns, channels).
    """
    size, (_, places, _, channels) = trunk.input_shape[1], trunk.output["features"].shape
    inner = slice((places - 1) // 2, places // 2 + 1)  # one or two

    @tf.function  # which leaves out the gradients of the kernels
    def squares(noise: tf.Tensor, signs: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(noise)
            features = trunk(noise, training=False)["features"][:, inner, inner]
            seen = tf.reduce_sum(tf.cast(features, tf.float32) * signs)
        return tf.reduce_sum(tf.cast(tape.gradient(seen, noise), tf.float64) ** 2, axis=(0, 3))

    draws, middles = np.random.default_rng(0), []
    for _ in range(_NOISES):
        noise = draws.uniform(0, 255, (1, size, size, 3))
        signs = draws.choice([-1, 1], (inner.stop - inner.start, inner.stop - inner.start, channels))
        energy = squares(tf.constant(noise, tf.float32), tf.constant(signs, tf.float32)).numpy()
        if energy.any():
            middles += [np.average(np.arange(size) + 0.5, weights=energy.sum(axis=axis)) for axis in (0, 1)]
    middle = np.mean(middles) if middles else size / 2
    return middle + _stride(trunk) * (np.arange(places) - (places - 1) / 2)


def _stride(trunk: keras.Model) -> int:
    """Pixels from one place of the feature map to the next."""
    pixels = {id(trunk.input): 1}
    for layer in trunk.layers[1:]:
        source = layer.input[0] if isinstance(layer.input, list) else layer.input
        pixels[id(layer.output)] = pixels[id(source)] * getattr(layer, "strides", (1,))[0]
    return pixels[id(trunk.output["features"])]
