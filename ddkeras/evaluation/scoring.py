"""The scores of the splits of some records by a run or an ensemble, and the operating point fitted on them."""

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np

from ddkeras.inference import scorers
from ddkeras.inference.scorers import ImageScorer
from ddkeras.metrics import calibration
from ddkeras.metrics.calibration import FALSE_ALARMS, MISSES, OperatingPoint
from ddkeras.runs.detector import Detector
from pipelines.datasets.examples import LABELS
from pipelines.exceptions import DataError
from pipelines.loading.batches import inference_batches
from pipelines.records import corruption, queries
from pipelines.records.store import Records

Progress = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


@dataclass(frozen=True)
class Scores:
    """What a run makes of each image of a split, and what is known of it; arrays of n.

    `groups` names what images were made from, or each image where that is unknown; `categories` are indices of those
    of the run, -1 where unknown; `category_probabilities` (n, categories) is None where the run has no such head.
    """

    paths: np.ndarray
    labels: np.ndarray
    sources: np.ndarray
    groups: np.ndarray
    categories: np.ndarray
    logits: np.ndarray
    category_probabilities: np.ndarray | None

    def at(self, chosen: np.ndarray) -> "Scores":
        """Those of some images, by a mask or by their places."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return Scores(**{name: None if array is None else array[chosen] for name, array in values.items()})

    def verdicts(self, point: OperatingPoint, names: list[str]) -> np.ndarray:
        """Indices of `calibration.VERDICTS` at an operating point; `names` are those of the run's categories."""
        return np.asarray(point.verdicts(self.logits, self.category_probabilities, names))

    @property
    def predicted(self) -> np.ndarray | None:
        """The index of the likeliest category of each image, where the run has categories."""
        return None if self.category_probabilities is None else self.category_probabilities.argmax(axis=-1)


def silent(_: str) -> AbstractContextManager[Callable[[int, int], None]]:
    """A `Progress` that shows nothing."""
    return nullcontext(lambda *_: None)


def score(
    detector: Detector, records: Records, splits: Sequence[str], *, progress: Progress = silent
) -> dict[str, Scores]:
    """Score labelled splits of the records.

    Args:
        progress: `progress(label)` is a context whose value is called with how many are done, and how many there are.

    Raises:
        DataError: the records have other classes than the run, a split is missing, unlabelled or damaged, or a
            score is not a number.
    """
    if detector.categories and records.categories != detector.categories:
        of_records, of_detector = (", ".join(each.categories) or "none" for each in (records, detector))
        raise DataError(
            f"{records.folder} has the classes {of_records}, but the run {detector.name} was trained on "
            f"{of_detector}; give the records it was trained on, or train again"
        )
    for split in splits:
        records.split(split, labelled=True)
    scorer, found = scorers.of(detector), {}
    for split in splits:
        with corruption.named(records.splits[split]), progress(split) as move:
            found[split] = _score_split(detector, scorer, records, split, move)
    return found


def calibrate(
    detector: Detector, scores: Scores, *, false_alarms: float = FALSE_ALARMS, misses: float = MISSES
) -> Detector:
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


def held_out(scores: Scores, source: str) -> Scores:
    """The images of a source, and those of the other label and the same categories to tell them from.

    Of the same categories, or the number would say what subjects are fakes of, not whether these are found.

    Raises:
        DataError: no image comes from it.
    """
    own = scores.sources == source
    if not own.any():
        there = ", ".join(sorted({str(known) for known in scores.sources if known})) or "not known"
        raise DataError(f"no image comes from the source {source}; the sources are {there}")
    return scores.at(_compared(own, scores))


def _compared(own: np.ndarray, scores: Scores) -> np.ndarray:
    """Images, and those of a label that they lack, of their categories."""
    lacked, shared = ~np.isin(scores.labels, scores.labels[own]), np.isin(scores.categories, scores.categories[own])
    return own | (lacked & shared)


def _score_split(
    run: Detector,
    scorer: ImageScorer,
    records: Records,
    split: str,
    progress: Callable[[int, int], None],
) -> Scores:
    facts = {name: np.array(values) for name, values in queries.facts(records, split).items()}
    parts, done = [], 0
    read = [inference_batches(records, split, image_size=size, batch_size=scorer.batch) for size in scorer.sizes]
    for batches in zip(*read, strict=True):
        images = dict(zip(scorer.sizes, (batch[0] for batch in batches), strict=True))
        parts.append(scorer.score_sizes(images))
        done += len(batches[0][0])
        progress(done, len(facts["path"]))
    outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    wrong = np.flatnonzero(~np.isfinite(outputs["logit"]))
    if len(wrong):
        raise DataError(
            f"the run {run.name} gives {len(wrong)} of {len(facts['path'])} images a score that is no number, the "
            f"first of them {facts['path'][wrong[0]]}; its weights are broken: train again"
        )
    own = (facts["group"] == "") | (facts["group"] == facts["source"])  # which is no photo that others were made from
    return Scores(
        paths=facts["path"],
        labels=facts["label"],
        sources=facts["source"],
        groups=np.where(own, facts["path"], facts["group"]),
        categories=facts["category"],
        logits=outputs["logit"],
        category_probabilities=outputs.get("category_probabilities"),
    )
