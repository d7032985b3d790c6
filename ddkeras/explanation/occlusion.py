"""Occlusion: what the logit loses when patches of the image are covered."""

import keras
import numpy as np
import tensorflow as tf

from ddkeras.explanation.heatmaps import spread
from ddkeras.models.frozen_graph import freeze_graph

_PATCHES = 9  # down and across


_SIDE = 0.2  # of a patch, as a share of the image's: they overlap by half


class Occlusion:
    """What the logits of a network lose when patches of the image are covered with its mean colour."""

    def __init__(self, model: keras.Model, batch: int):
        size = model.input_shape[1]
        self._logits, self._batch = freeze_graph(model, size), batch
        self._side = max(1, round(_SIDE * size))
        self._edges = np.rint(np.linspace(0, size - self._side, _PATCHES)).astype(int)
        self._spread = spread(self._edges + self._side / 2, size)

    def look(self, images: np.ndarray, head: str, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `_FeatureMap.look`."""
        logits = np.stack([self._look(*each, head) for each in zip(images, directions, strict=True)])
        drops = np.maximum(logits[:, :1] - logits[:, 1:], 0).reshape(-1, _PATCHES, _PATCHES)
        return logits[:, 0], self._spread @ drops @ self._spread.T

    def _look(self, image: np.ndarray, direction: np.ndarray, head: str) -> np.ndarray:
        """The logit of what is explained, of the image and of all that are made of it by covering one patch."""
        images = np.stack([image] * (1 + _PATCHES**2))
        for place, covered in enumerate(images[1:]):
            top, left = self._edges[place // _PATCHES], self._edges[place % _PATCHES]
            covered[top : top + self._side, left : left + self._side] = np.rint(image.mean(axis=(0, 1)))
        batches = (images[first : first + self._batch] for first in range(0, len(images), self._batch))
        return np.concatenate([self._logits(tf.constant(batch))[head].numpy() for batch in batches]) @ direction
