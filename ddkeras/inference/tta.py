"""Test-time augmentation: the mean score of several views of an image, none of which changes its content."""

import functools

import numpy as np
from PIL import Image, ImageOps

from ddkeras.inference.scorers import ImageScorer, Outputs, apply_operating_point
from ddkeras.inference.views import Views
from pipelines.transforms.perturbations import MILD_PERTURBATIONS, Perturbation

_CROP = 0.9  # of each side


def _crop(image: Image.Image, x: float, y: float) -> Image.Image:
    """Crop `_CROP` of each side; x and y place the crop, from 0 (left, top) to 1 (right, bottom)."""
    width, height = (max(1, round(side * _CROP)) for side in image.size)
    left, top = round((image.width - width) * x), round((image.height - height) * y)
    return image.crop((left, top, left + width, top + height))


AUGMENTATIONS: dict[str, Perturbation] = {  # in the order in which they are added to the unmodified image
    "mirrored": ImageOps.mirror,
    "the middle 90%": functools.partial(_crop, x=0.5, y=0.5),
    "90%, upper left": functools.partial(_crop, x=0, y=0),
    "90%, lower right": functools.partial(_crop, x=1, y=1),
    "90%, upper right": functools.partial(_crop, x=1, y=0),
    "90%, lower left": functools.partial(_crop, x=0, y=1),
    **MILD_PERTURBATIONS,
}


def augmented_views(count: int) -> Views:
    """The first `count` views of an image, from 2 to 1 + `len(AUGMENTATIONS)`.

    Logits and category probabilities are averaged over the views; probability and verdict follow from the mean logit
    at the scorer's operating point. `spread` is the standard deviation of the views' fake probabilities.
    """
    return Views(tuple(AUGMENTATIONS.values())[: count - 1], _average)


def _average(scorer: ImageScorer, outputs: Outputs) -> Outputs:
    logits = outputs["logit"].mean(axis=1, dtype=np.float64).astype(np.float32)
    probabilities = outputs["category_probabilities"].mean(axis=1) if scorer.categories else None
    averaged = apply_operating_point(scorer, logits, probabilities)
    return averaged | {"spread": outputs["fake_probability"].std(axis=1)}
