"""Several views of each image, scored in the same batches, and one answer that follows from all of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ddkeras.inference.scorers import ImageScorer
from pipelines.transforms.perturbations import Perturbation

Scores = dict[str, np.ndarray]


def as_it_is(scorer: ImageScorer, scores: Scores) -> Scores:
    """The scores of the first view, which is the image as it is; those of all are (n, views, ...)."""
    return {name: values[:, 0] for name, values in scores.items()}


@dataclass(frozen=True)
class Views:
    """How images are looked at.

    Args:
        ways: what makes another view of the decoded image, which comes before them as it is.
        judge: `judge(scorer, scores)` is the answer: from what `Scorer.score` says with a second axis,
            (n, 1 + ways, ...), to the same without it, perhaps with columns of its own, float32 (n,).
    """

    ways: tuple[Perturbation, ...] = ()
    judge: Callable[[ImageScorer, Scores], Scores] = as_it_is

    @property
    def number(self) -> int:
        """How many there are of an image."""
        return 1 + len(self.ways)


AS_IS = Views()


def scored(scorer: ImageScorer, images: Mapping[int, np.ndarray]) -> Scores:
    """What the scorer says of each view.

    Args:
        images: uint8 (n, views, size, size, 3), RGB, of each of its `sizes`.

    Returns:
        Arrays (n, views, ...).
    """
    scores = scorer.score_sizes({size: each.reshape(-1, *each.shape[2:]) for size, each in images.items()})
    number, views = images[scorer.sizes[0]].shape[:2]
    return {name: values.reshape(number, views, *values.shape[1:]) for name, values in scores.items()}
