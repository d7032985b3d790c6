"""Score the splits of records with a detector, and calibrate it on the scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ddkeras.inference import scorers
from ddkeras.inference.scorers import ImageScorer
from ddkeras.metrics import calibration
from ddkeras.metrics.calibration import FALSE_ALARMS, MISSES, OperatingPoint
from ddkeras.progress import Progress, silent
from ddkeras.runs.detector import Detector
from pipelines.datasets.examples import LABELS
from pipelines.exceptions import DataError
from pipelines.loading.batches import inference_batches
from pipelines.records import corruption, queries
from pipelines.records.schema import NO_CATEGORY
from pipelines.records.store import Records

_UNSURE = calibration.VERDICTS.index("unsure")
AnyDetector = TypeVar("AnyDetector", bound=Detector)


@dataclass(frozen=True)
class Scores:
    """A detector's scores of n images, and what is known of the images.

    Args:
        paths, sources: (n,), names.
        labels: (n,), 0 real or 1 fake.
        groups: (n,), a name shared by related images, such as the edits of one photo.
        categories: (n,), indices of the detector's categories, -1 where unknown.
        logits: float32 (n,), of fake.
        category_probabilities: float32 (n, categories); None without a category head.
        is_too_small: bool (n,), whether an image has too few pixels for a verdict; None if none has.
    """

    paths: np.ndarray
    labels: np.ndarray
    sources: np.ndarray
    groups: np.ndarray
    categories: np.ndarray
    logits: np.ndarray
    category_probabilities: np.ndarray | None
    is_too_small: np.ndarray | None = None

    def at(self, selection: np.ndarray) -> "Scores":
        """The scores of some images, selected by a mask or by indices."""
        probabilities = self.category_probabilities
        return Scores(
            paths=self.paths[selection],
            labels=self.labels[selection],
            sources=self.sources[selection],
            groups=self.groups[selection],
            categories=self.categories[selection],
            logits=self.logits[selection],
            category_probabilities=None if probabilities is None else probabilities[selection],
            is_too_small=None if self.is_too_small is None else self.is_too_small[selection],
        )

    def verdicts(self, point: OperatingPoint, categories: Sequence[str]) -> np.ndarray:
        """Indices of `calibration.VERDICTS` at an operating point, given the names of the detector's categories."""
        return self.unsure_if_small(np.asarray(point.verdicts(self.logits, self.category_probabilities, categories)))

    def unsure_if_small(self, verdicts: np.ndarray) -> np.ndarray:
        """Verdicts, (..., n), in which images that are too small for one are unsure."""
        return verdicts if self.is_too_small is None else np.where(self.is_too_small, _UNSURE, verdicts)

    @property
    def predicted(self) -> np.ndarray | None:
        """Indices of the predicted categories; None without a category head."""
        return None if self.category_probabilities is None else self.category_probabilities.argmax(axis=-1)


def score(
    detector: Detector, records: Records, splits: Sequence[str], *, progress: Progress = silent
) -> dict[str, Scores]:
    """Score labelled splits of the records.

    Classes are matched by name: images of a class that the detector does not know have no category.

    Args:
        detector: is loaded once for all splits.
        splits: their names.
        progress: `progress(split)` is a context manager; its value is called with the number of images done and the
            number of all.

    Raises:
        DataError: a split is missing, unlabelled or damaged.
        ConfigError: a score is not finite.
    """
    for split in splits:
        records.split(split, labelled=True)
    scorer, scores = scorers.scorer_for(detector), {}
    for split in splits:
        with corruption.locate_errors(records.splits[split]), progress(split) as advance:
            scores[split] = _score_split(scorer, records, split, detector.categories, advance)
    return scores


def calibrate(
    detector: AnyDetector, scores: Scores, *, false_alarms: float = FALSE_ALARMS, misses: float = MISSES
) -> AnyDetector:
    """Fit the temperature and the thresholds on the scores of the validation split, and store them with the detector.

    Images of the held-out source are left out.

    Args:
        detector: gave the scores.
        scores: of the validation split.
        false_alarms: at most this share of the reals is called fake.
        misses: at most this share of the fakes is called real.

    Returns:
        The detector with its operating point; unchanged if the scores are of one label only.
    """
    if detector.hold_out:
        scores = scores.at(scores.sources != detector.hold_out)
    if len(np.unique(scores.labels)) < len(LABELS):
        return detector
    point = calibration.fit(
        scores.logits, scores.labels, scores.predicted, detector.categories, false_alarms=false_alarms, misses=misses
    )
    return detector.with_operating_point(point)


def source_subset(scores: Scores, source: str) -> Scores:
    """The images of a source, and images of the other label in the same categories to tell them from.

    Raises:
        DataError: no image comes from the source.
    """
    is_of_source = scores.sources == source
    if not is_of_source.any():
        available = ", ".join(sorted({str(name) for name in scores.sources if name})) or "not known"
        raise DataError(f"no image comes from the source {source}; the sources are {available}")
    return scores.at(with_counterparts(is_of_source, scores))


def with_counterparts(selected: np.ndarray, scores: Scores) -> np.ndarray:
    """Add images of the label that the selected images lack, if they all have one label.

    Only from the categories of the selected images: against other categories, fakes could be told by their subject.

    Args:
        selected: bool (n,).
        scores: of all n images.

    Returns:
        bool (n,).
    """
    is_other_label = ~np.isin(scores.labels, scores.labels[selected])
    is_same_category = np.isin(scores.categories, scores.categories[selected])
    return selected | (is_other_label & is_same_category)


def _score_split(
    scorer: ImageScorer, records: Records, split: str, categories: list[str], advance: Callable[[int, int], None]
) -> Scores:
    facts = {name: np.array(values) for name, values in queries.metadata(records, split).items()}
    datasets = [inference_batches(records, split, view=view, batch_size=scorer.batch) for view in scorer.views]
    parts: list[dict[str, np.ndarray]] = []
    done = 0
    for batches in zip(*datasets, strict=True):
        images = dict(zip(scorer.views, (batch[0] for batch in batches), strict=True))
        parts.append(scorer.score_images(images))
        done += len(parts[-1]["logit"])
        advance(done, len(facts["path"]))
    outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    # An image without a group, or whose group is only its source, is a group by itself.
    is_alone = (facts["group"] == "") | (facts["group"] == facts["source"])
    return Scores(
        paths=facts["path"],
        labels=facts["label"],
        sources=facts["source"],
        groups=np.where(is_alone, facts["path"], facts["group"]),
        categories=_matched(facts["category"], records.categories, categories),
        logits=outputs["logit"],
        category_probabilities=outputs.get("category_probabilities"),
        is_too_small=facts["shorter_side"] < scorer.min_side,
    )


def _matched(indices: np.ndarray, of_records: list[str], of_detector: list[str]) -> np.ndarray:
    """Indices of the records' classes as indices of the detector's; -1 where it does not know the class."""
    if not of_detector:  # its scores are compared within the classes of the records
        return indices
    positions = {name: index for index, name in enumerate(of_detector)}
    table = np.array([*(positions.get(name, NO_CATEGORY) for name in of_records), NO_CATEGORY])
    return table[indices]
