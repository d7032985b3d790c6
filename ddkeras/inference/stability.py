"""Whether what is said of an image survives that it is saved once more, so mildly that nobody would see it."""

from dataclasses import dataclass

import numpy as np

from ddkeras.inference.scorers import ImageScorer
from ddkeras.inference.views import Scores, Views, as_it_is, scored
from ddkeras.metrics.calibration import VERDICTS
from pipelines.transforms.perturbations import MILD_PERTURBATIONS
from pipelines.transforms.views import make_views


@dataclass(frozen=True, slots=True)
class Stability:
    """What becomes of the answer for an image in each of the `MILD_PERTURBATIONS`.

    Args:
        change: the greatest difference of the probability of being fake from that of the image as it is, from 0 to 1.
        probabilities: of being fake, by the name of the re-encoding.
        flips: whether any verdict differs from that of the image as it is.
    """

    change: float
    probabilities: dict[str, float]
    flips: bool


def stability(scorer: ImageScorer, encoded: list[bytes]) -> list[Stability]:
    """Re-encode images at their own resolution, and score them and what came of it.

    Args:
        encoded: the bytes of image files.

    Raises:
        UnreadableError: one is no image, or a damaged one, or too large for WebP, 16,383 pixels a side.
    """
    found, number = [], max(1, scorer.batch // RE_ENCODED.number)
    for at in range(0, len(encoded), number):
        some = encoded[at : at + number]
        images = {size: np.stack([make_views(one, size, RE_ENCODED.ways) for one in some]) for size in scorer.sizes}
        scores = scored(scorer, images)
        for change, flips, probabilities in zip(
            _changes(scores), _flips(scores), scores["fake_probability"][:, 1:], strict=True
        ):
            by_name = dict(zip(MILD_PERTURBATIONS, map(float, probabilities), strict=True))
            found.append(Stability(float(change), by_name, bool(flips)))
    return found


def _changes(scores: Scores) -> np.ndarray:
    probabilities = scores["fake_probability"]
    return np.abs(probabilities - probabilities[:, :1]).max(axis=1)


def _flips(scores: Scores) -> np.ndarray:
    return (scores["verdict"] != scores["verdict"][:, :1]).any(axis=1)


def _judge(scorer: ImageScorer, scores: Scores) -> Scores:
    """The answer for the image as it is, but unsure where it flips, with its `stability`."""
    own = as_it_is(scorer, scores)
    verdict = np.where(_flips(scores), VERDICTS.index("unsure"), own["verdict"])
    return own | {"verdict": verdict, "stability": _changes(scores)}


RE_ENCODED = Views(tuple(MILD_PERTURBATIONS.values()), _judge)
