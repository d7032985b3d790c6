"""Occlusion: how much the logit falls when a patch of the image is covered.

Zeiler and Fergus 2014, Visualizing and Understanding Convolutional Networks, https://arxiv.org/abs/1311.2901.
"""

import keras
import numpy as np
import tensorflow as tf

from ddkeras.explanation.heatmaps import interpolation_matrix
from ddkeras.models.frozen_graph import freeze_graph

_PATCHES = 9  # per row and per column
_PATCH_SIDE = 0.2  # of the image's, so that neighbours overlap by half


class Occlusion:
    """Heatmaps from covering patches of the image with its mean colour.

    It needs 82 forward passes per image, and uses nothing but the network's outputs.

    Args:
        model: from images in 0..255 to the logits of its heads.
        batch: images per forward pass.
    """

    def __init__(self, model: keras.Model, batch: int):
        size = model.input_shape[1]
        self._logits, self._batch = freeze_graph(model, size), batch
        self._side = max(1, round(_PATCH_SIDE * size))
        self._edges = np.rint(np.linspace(0, size - self._side, _PATCHES)).astype(int)
        self._to_pixels = interpolation_matrix(self._edges + self._side / 2, size)

    def heatmaps(self, images: np.ndarray, head: str, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Explain one logit of each of images, uint8 (n, size, size, 3); the rest is as in `GradCAM.heatmaps`."""
        logits = np.stack([self._logits_when_covered(*each, head) for each in zip(images, directions, strict=True)])
        drops = np.maximum(logits[:, :1] - logits[:, 1:], 0).reshape(-1, _PATCHES, _PATCHES)
        return logits[:, 0], self._to_pixels @ drops @ self._to_pixels.T

    def _logits_when_covered(self, image: np.ndarray, direction: np.ndarray, head: str) -> np.ndarray:
        """The target logit of the image, then with each patch covered, row by row: float32 (1 + patches,)."""
        variants = np.stack([image] * (1 + _PATCHES**2))
        for index, covered in enumerate(variants[1:]):
            top, left = self._edges[index // _PATCHES], self._edges[index % _PATCHES]
            covered[top : top + self._side, left : left + self._side] = np.rint(image.mean(axis=(0, 1)))
        batches = (variants[start : start + self._batch] for start in range(0, len(variants), self._batch))
        return np.concatenate([self._logits(tf.constant(batch))[head].numpy() for batch in batches]) @ direction
