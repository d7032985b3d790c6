"""Whether the score and verdict of an image survive re-encodings too mild to be visible."""

from dataclasses import dataclass

import numpy as np

from ddkeras.inference.scorers import ImageScorer, Outputs
from ddkeras.inference.views import Views, original_view, score_views
from ddkeras.metrics.calibration import VERDICTS
from pipelines.transforms.perturbations import MILD_PERTURBATIONS
from pipelines.transforms.views import make_views
from pipelines.views import stack


@dataclass(frozen=True, slots=True)
class Stability:
    """How the score of an image changes under the `MILD_PERTURBATIONS`, re-encodings.

    Args:
        change: the largest absolute change of the fake probability, from 0 to 1.
        probabilities: the fake probability by re-encoding.
        flips: whether any re-encoding changes the verdict.
    """

    change: float
    probabilities: dict[str, float]
    flips: bool


def stability(scorer: ImageScorer, encoded: list[bytes]) -> list[Stability]:
    """Re-encode images at their own resolution, and compare the scores with those of the originals.

    Args:
        encoded: the contents of image files.

    Returns:
        One result per image.

    Raises:
        UnreadableError: an image is unreadable, damaged, or too large for WebP (16,383 pixels a side).
    """
    results = []
    batch_size = max(1, scorer.batch // RE_ENCODED.count)
    for start in range(0, len(encoded), batch_size):
        batch = encoded[start : start + batch_size]
        images = {
            view: stack([make_views(image, view, RE_ENCODED.transforms) for image in batch]) for view in scorer.views
        }
        outputs = score_views(scorer, images)
        re_encoded = outputs["fake_probability"][:, 1:]
        for change, flips, probabilities in zip(_changes(outputs), _flips(outputs), re_encoded, strict=True):
            by_name = dict(zip(MILD_PERTURBATIONS, map(float, probabilities), strict=True))
            results.append(Stability(float(change), by_name, bool(flips)))
    return results


def _changes(outputs: Outputs) -> np.ndarray:
    probabilities = outputs["fake_probability"]
    return np.abs(probabilities - probabilities[:, :1]).max(axis=1)


def _flips(outputs: Outputs) -> np.ndarray:
    return (outputs["verdict"] != outputs["verdict"][:, :1]).any(axis=1)


def _unsure_if_flipped(scorer: ImageScorer, outputs: Outputs) -> Outputs:
    """The scores of the original, with the verdict unsure where a re-encoding changes it, and its `score_shift`."""
    original = original_view(scorer, outputs)
    verdict = np.where(_flips(outputs), VERDICTS.index("unsure"), original["verdict"])
    return original | {"verdict": verdict, "score_shift": _changes(outputs)}


RE_ENCODED = Views(tuple(MILD_PERTURBATIONS.values()), _unsure_if_flipped)
