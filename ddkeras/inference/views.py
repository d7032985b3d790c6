"""Scoring several views of each image in one batch, and aggregating their scores into one answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ddkeras.inference.scorers import ImageScorer, Outputs
from pipelines.transforms.perturbations import Perturbation


def original_view(scorer: ImageScorer, outputs: Outputs) -> Outputs:
    """The outputs of the unmodified image, which is the first view; those of all views are (n, views, ...)."""
    return {name: values[:, 0] for name, values in outputs.items()}


@dataclass(frozen=True)
class Views:
    """Which views of an image are scored, and how their scores are aggregated.

    Args:
        transforms: each makes one more view of the decoded image, after the unmodified one.
        aggregate: `aggregate(scorer, outputs)` maps the outputs of all views, (n, 1 + transforms, ...), to outputs
            per image, (n, ...); it may add float32 (n,) arrays.
    """

    transforms: tuple[Perturbation, ...] = ()
    aggregate: Callable[[ImageScorer, Outputs], Outputs] = original_view

    @property
    def count(self) -> int:
        """The number of views per image."""
        return 1 + len(self.transforms)


ORIGINAL = Views()


def score_views(scorer: ImageScorer, images: Mapping[int, np.ndarray]) -> Outputs:
    """Score each view.

    Args:
        images: by size, for each of the scorer's `sizes`: uint8 (n, views, size, size, 3), RGB.

    Returns:
        The scorer's outputs as arrays (n, views, ...).
    """
    outputs = scorer.score_sizes({size: batch.reshape(-1, *batch.shape[2:]) for size, batch in images.items()})
    number, views = images[scorer.sizes[0]].shape[:2]
    return {name: values.reshape(number, views, *values.shape[1:]) for name, values in outputs.items()}
