"""Grad-CAM and Grad-CAM++: the last feature map, weighted by the gradients of a logit.

- Selvaraju et al. 2017, Grad-CAM, https://arxiv.org/abs/1610.02391
- Chattopadhay et al. 2018, Grad-CAM++, https://arxiv.org/abs/1710.11063
- Luo et al. 2016, Understanding the Effective Receptive Field, https://arxiv.org/abs/1701.04128
"""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from ddkeras.exceptions import ConfigError
from ddkeras.explanation.heatmaps import interpolation_matrix
from ddkeras.models.detector import POOLED

Weighting = Callable[[np.ndarray, np.ndarray], np.ndarray]  # such as `grad_cam`

_BATCH = 4  # images for a pass: on a CPU as fast as more of them, in a fraction of the memory
_NOISE_IMAGES = 4  # on which receptive fields are measured


# --- how feature maps are weighted -----------------------------------------------------------------------------


def grad_cam(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Grad-CAM, equations 1 and 2: weight each channel by its mean gradient.

    Args:
        features: float32 (n, rows, columns, channels), a feature map.
        gradients: the same shape, of the target logit with respect to the features.

    Returns:
        float32 (n, rows, columns), 0 or more.
    """
    weights = gradients.mean(axis=(1, 2))
    return np.maximum(np.einsum("nyxc,nc->nyx", features, weights), 0)


def grad_cam_plus_plus(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Grad-CAM++, equations 10 and 19, of the exponential of the target logit, up to the factor exp(logit).

    Only positive gradients count. As in the paper, features are rectified before they are summed over places.

    Args:
        features, gradients: as for `grad_cam`.

    Returns:
        As `grad_cam`.
    """
    gains = np.maximum(gradients, 0)
    sums = np.maximum(features, 0).sum(axis=(1, 2), keepdims=True)
    weights = (gains / (2 + sums * gains)).sum(axis=(1, 2))
    return np.maximum(np.einsum("nyxc,nc->nyx", features, weights), 0)


WEIGHTINGS: dict[str, Weighting] = {"gradcam": grad_cam, "gradcam++": grad_cam_plus_plus}


# --- heatmaps of a network -------------------------------------------------------------------------------------


class GradCAM:
    """Heatmaps from the feature map that a network pools for its heads.

    Args:
        model: from images in 0..255 to the logits of its heads.
        name: of the run, for messages.

    Raises:
        ConfigError: the network pools no feature map, or one with a single position.
    """

    def __init__(self, model: keras.Model, name: str):
        features, size = _pooled_features(model, name), model.input_shape[1]
        trunk = keras.Model(model.input, {"features": features})
        self._trunk = _traced(trunk, size)
        self._heads = keras.Model(features, model.output)
        self._to_pixels = interpolation_matrix(receptive_field_centres(trunk), size)

    def features(self, images: np.ndarray) -> tf.Tensor:
        """The feature maps, (n, rows, columns, channels), of images, uint8 (n, size, size, 3), RGB."""
        batches = [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]
        return tf.concat([self._trunk(tf.constant(batch))["features"] for batch in batches], axis=0)

    def logits(self, features: tf.Tensor) -> dict[str, np.ndarray]:
        """The logits of each head, float32 (n, logits)."""
        return {name: values.numpy() for name, values in self._heads(features, training=False).items()}

    def heatmaps(
        self, features: tf.Tensor, head: str, directions: np.ndarray, weighting: Weighting
    ) -> tuple[np.ndarray, np.ndarray]:
        """Explain one logit of each image.

        Args:
            features: of the images, from `features`.
            head: the name of the head.
            directions: float32 (n, logits). The target logit of an image is the dot product of its logits and its
                direction: a unit vector picks a category, -1 turns the logit of fake into that of real.
            weighting: one of `WEIGHTINGS`.

        Returns:
            The target logits, float32 (n,), and the heatmaps, float32 (n, size, size), 0 or more.
        """
        with tf.GradientTape() as tape:
            tape.watch(features)
            logits = tf.reduce_sum(self._heads(features, training=False)[head] * directions, axis=1)
        gradients = tape.gradient(logits, features)
        coarse = weighting(*(values.numpy().astype(np.float32) for values in (features, gradients)))
        return logits.numpy(), self._to_pixels @ coarse @ self._to_pixels.T


def _traced(network: keras.Model, size: int) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """The network as a graph that is not frozen.

    Freezing one of 20 million weights takes as long as ten images, and saves a twentieth of the time of each.
    """
    signature = [tf.TensorSpec([None, size, size, 3], tf.uint8)]
    return tf.function(lambda images: network(images, training=False), input_signature=signature, autograph=False)


def _pooled_features(model: keras.Model, name: str) -> keras.KerasTensor:
    """The feature map that is pooled for the heads, whatever the backbone."""
    features = next((layer.input for layer in model.layers if layer.name == POOLED), None)
    if features is None or len(features.shape) != 4:
        raise ConfigError(f"{name} has no feature map that is pooled for its heads; give --method occlusion")
    if features.shape[1] * features.shape[2] == 1:
        raise ConfigError(
            f"{name} reduces its images of {model.input_shape[1]} pixels to a feature map of a single position, "
            "which cannot locate the evidence; give --method occlusion, or train on larger images"
        )
    return features


# --- where feature maps look -----------------------------------------------------------------------------------


def receptive_field_centres(trunk: keras.Model) -> np.ndarray:
    """Measure where the rows of a feature map look in the image, which is also where its columns do.

    Neighbours are a stride apart, but do not lie in the middles of equal shares of the image: strided layers pad one
    side more than the other, some branches of residual networks skip pixels, and the weight of a trained kernel need
    not lie in its middle. Ignoring that shifts heatmaps by up to half a place. The centre of the middle places is
    therefore measured, as the centroid of their effective receptive field (Luo et al. 2016): of the squared
    gradients of the features with respect to images of noise. Without gradients it is the middle of the image.

    Args:
        trunk: from images to a dict with `features`, (batch, rows, columns, channels).

    Returns:
        float64 (rows,), in pixels from the edge of the image.
    """
    size, (_, places, _, channels) = trunk.input_shape[1], trunk.output["features"].shape
    middle = slice((places - 1) // 2, places // 2 + 1)  # one place, or two

    @tf.function  # leaves out the gradients with respect to the kernels
    def squared_gradients(noise: tf.Tensor, signs: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(noise)
            features = trunk(noise, training=False)["features"][:, middle, middle]
            total = tf.reduce_sum(tf.cast(features, tf.float32) * signs)
        return tf.reduce_sum(tf.cast(tape.gradient(total, noise), tf.float64) ** 2, axis=(0, 3))

    rng, centroids = np.random.default_rng(0), []
    for _ in range(_NOISE_IMAGES):
        noise = rng.uniform(0, 255, (1, size, size, 3))
        signs = rng.choice([-1, 1], (middle.stop - middle.start, middle.stop - middle.start, channels))
        energy = squared_gradients(tf.constant(noise, tf.float32), tf.constant(signs, tf.float32)).numpy()
        if energy.any():
            pixels = np.arange(size) + 0.5
            centroids += [np.average(pixels, weights=energy.sum(axis=axis)) for axis in (0, 1)]
    centre = np.mean(centroids) if centroids else size / 2
    return centre + _stride(trunk) * (np.arange(places) - (places - 1) / 2)


def _stride(trunk: keras.Model) -> int:
    """Pixels from one place of the feature map to the next."""
    strides = {id(trunk.input): 1}
    for layer in trunk.layers[1:]:
        source = layer.input[0] if isinstance(layer.input, list) else layer.input
        strides[id(layer.output)] = strides[id(source)] * getattr(layer, "strides", (1,))[0]
    return strides[id(trunk.output["features"])]
