"""Scoring several views of each image in one batch, and aggregating their scores into one answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from keras import tree

from ddkeras.inference.scorers import ImageScorer, Outputs
from pipelines.transforms.perturbations import Perturbation
from pipelines.views import Pixels, View


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


def score_views(scorer: ImageScorer, images: Mapping[View, Pixels]) -> Outputs:
    """Score each view.

    Args:
        images: for each of the scorer's `views` the pixels of n images, each of whose arrays is (n, views, ...).

    Returns:
        The scorer's outputs as arrays (n, views, ...).
    """
    flattened = {
        view: tree.map_structure(lambda values: values.reshape(-1, *values.shape[2:]), pixels)
        for view, pixels in images.items()
    }
    number, views = tree.flatten(images[scorer.views[0]])[0].shape[:2]
    outputs = scorer.score_images(flattened)
    return {name: values.reshape(number, views, *values.shape[1:]) for name, values in outputs.items()}
