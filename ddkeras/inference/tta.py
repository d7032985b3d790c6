"""Test-time augmentation: one answer from several views of an image, none of which changes what it shows."""

import functools

import numpy as np
from PIL import Image, ImageOps

from ddkeras.inference.scorers import ImageScorer
from ddkeras.inference.views import Scores, Views
from pipelines.transforms.perturbations import MILD_PERTURBATIONS, Perturbation

_CROP = 0.9  # of each side


def _cut(image: Image.Image, across: float, down: float) -> Image.Image:
    """A part of the image, whose place goes from 0, at the left and the top, to 1."""
    width, height = (max(1, round(side * _CROP)) for side in image.size)
    left, top = round((image.width - width) * across), round((image.height - height) * down)
    return image.crop((left, top, left + width, top + height))


WAYS: dict[str, Perturbation] = {  # in the order in which they are taken, after the image as it is
    "mirrored": ImageOps.mirror,
    "the middle 90%": functools.partial(_cut, across=0.5, down=0.5),
    "90%, upper left": functools.partial(_cut, across=0, down=0),
    "90%, lower right": functools.partial(_cut, across=1, down=1),
    "90%, upper right": functools.partial(_cut, across=1, down=0),
    "90%, lower left": functools.partial(_cut, across=0, down=1),
    **MILD_PERTURBATIONS,
}


def in_views(number: int) -> Views:
    """The first views of an image, from 2 to 1 + `len(WAYS)`.

    The answer is that at the operating point of the scorer for the mean of their logits, and the mean of their
    probabilities of each category; `spread` is the standard deviation of their probabilities of being fake.
    """
    return Views(tuple(WAYS.values())[: number - 1], _judge)


def _judge(scorer: ImageScorer, scores: Scores) -> Scores:
    logits = scores["logit"].mean(axis=1, dtype=np.float64).astype(np.float32)
    found = {"logit": logits, "fake_probability": np.asarray(scorer.point.probabilities(logits))}
    if scorer.categories:
        found["category_probabilities"] = scores["category_probabilities"].mean(axis=1)
    verdict = scorer.point.verdicts(logits, found.get("category_probabilities"), scorer.categories)
    return found | {"verdict": np.asarray(verdict), "spread": scores["fake_probability"].std(axis=1)}
