"""What is measured on one split of the records: frozen dataclasses, and their form in metrics.json."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from ddkeras.metrics.bootstrap import Estimate
from ddkeras.metrics.calibration import OperatingPoint


@dataclass(frozen=True)
class ThresholdMetrics:
    """Metrics of fake-or-not decisions; see `classification.threshold_metrics`.

    `confusion` counts images by label (rows: real, fake) and decision (columns: not fake, fake).
    """

    accuracy: Estimate
    balanced_accuracy: Estimate
    precision: Estimate
    recall: Estimate
    f1: Estimate
    false_positive_rate: Estimate
    confusion: list[list[int]]


@dataclass(frozen=True)
class ProbabilityMetrics:
    """How reliable probabilities are; see `classification.probability_metrics`."""

    log_loss: Estimate
    brier: Estimate
    calibration_error: Estimate


@dataclass(frozen=True)
class AuthenticityMetrics:
    """Metrics of the authenticity head; fake is the positive class.

    Args:
        auc, average_precision, equal_error_rate: see `classification.ranking_metrics`.
        recall_at: recall by the highest false positive rate that is allowed.
        calibrated, uncalibrated: of the probabilities with and without the fitted temperature.
        at_half: with the threshold at a probability of 0.5.
        at_operating_point: with the fitted thresholds; an unsure image counts as not called fake.
        coverage: the proportion of images whose verdict is not unsure.
        risk: the proportion of these whose verdict is wrong.
        verdicts: number of images by label, then by verdict.
    """

    auc: Estimate
    average_precision: Estimate
    equal_error_rate: Estimate
    recall_at: dict[float, Estimate]
    calibrated: ProbabilityMetrics
    uncalibrated: ProbabilityMetrics
    at_half: ThresholdMetrics
    at_operating_point: ThresholdMetrics
    coverage: Estimate
    risk: Estimate
    verdicts: dict[str, dict[str, int]]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return _json_ready(
            {
                "auc": self.auc,
                "average_precision": self.average_precision,
                "equal_error_rate": self.equal_error_rate,
                **{f"recall_at_{rate:g}": recall for rate, recall in self.recall_at.items()},
                **_fields(self.calibrated),
                "uncalibrated": self.uncalibrated,
                "at_half": self.at_half,
                "at_operating_point": self.at_operating_point,
                "coverage": self.coverage,
                "risk": self.risk,
                "verdicts": self.verdicts,
            }
        )


@dataclass(frozen=True)
class ClassMetrics:
    """One class of the category head: number of images, and metrics that are NaN where undefined."""

    examples: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class CategoryMetrics:
    """Metrics of the category head, on the images that have a category.

    Args:
        accuracy, macro_f1: the latter over the classes that occur.
        classes: by name.
        confusion: number of images by true class (rows) and predicted class (columns).
        categories: class names, in the order of `confusion`.
        examples: number of images that have a category.
    """

    accuracy: Estimate
    macro_f1: Estimate
    classes: dict[str, ClassMetrics]
    confusion: list[list[int]]
    categories: list[str]
    examples: int


@dataclass(frozen=True)
class SubgroupMetrics:
    """Metrics of the images of one source, of one category, or of both.

    Args:
        subgroup: what its images have in common, such as `{"source": "phone", "category": "cats"}`.
        real, fake: number of images by label.
        auc: against the other label in the same categories, where all have one label.
        false_positive_rate, recall: the proportion of the reals, of the fakes, that is called fake.
        unsure: the proportion of all.
    """

    subgroup: dict[str, str]
    real: int
    fake: int
    auc: Estimate
    false_positive_rate: Estimate
    recall: Estimate
    unsure: Estimate

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return self.subgroup | _json_ready(
            {
                "real": self.real,
                "fake": self.fake,
                "auc": self.auc,
                "called_fake_of_real": self.false_positive_rate,
                "called_fake_of_fake": self.recall,
                "unsure": self.unsure,
            }
        )


@dataclass(frozen=True)
class PerturbedMetrics:
    """Metrics of images after the perturbation `name`."""

    name: str
    auc: Estimate
    false_positive_rate: Estimate
    recall: Estimate

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return _json_ready(
            {
                "name": self.name,
                "auc": self.auc,
                "called_fake_of_real": self.false_positive_rate,
                "called_fake_of_fake": self.recall,
            }
        )


@dataclass(frozen=True)
class Robustness:
    """Metrics of the same `images` under each perturbation; the first of the `variants` is without one."""

    images: int
    variants: list[PerturbedMetrics]


@dataclass(frozen=True)
class BiasProbe:
    """How far the AUC depends on the codec of one label's images.

    Args:
        by: the codec with the greatest swing.
        auc: by codec, then by which images were re-encoded: `neither`, `reals`, `fakes` or `both`.
        swing: the greatest of the four AUCs less the least, for the codec `by`.
        verdict: ok, warn or fail.
        text: the verdict in words.
    """

    by: str
    auc: dict[str, dict[str, Estimate]]
    swing: Estimate
    verdict: str
    text: str


@dataclass(frozen=True)
class UnstableImage:
    """An image whose verdict changes: verdicts and probabilities unchanged, then under each mild perturbation."""

    path: str
    label: int
    verdicts: list[str]
    probabilities: list[float]


@dataclass(frozen=True)
class Stability:
    """How many verdicts change under mild perturbations.

    Args:
        by: their names.
        examples: number of images tried.
        flips: the proportion whose verdict changes under at least one.
        worst: the images that flip with the greatest change of probability.
    """

    by: list[str]
    examples: int
    flips: Estimate
    worst: list[UnstableImage]


@dataclass(frozen=True)
class FeedbackImage:
    """An image of the regression set, with the names of its label and of its verdict."""

    path: str
    label: str
    verdict: str
    fake_probability: float


@dataclass(frozen=True)
class Feedback:
    """Results on a regression set.

    Args:
        right: number of images with the right verdict.
        still_wrong, still_unsure: the others, by falling probability of fake.
        in_train: paths of the images that are also in the training split.
    """

    right: int
    still_wrong: list[FeedbackImage]
    still_unsure: list[FeedbackImage]
    in_train: list[str]


@dataclass(frozen=True)
class Provenance:
    """What the numbers were measured with, and on.

    Args:
        run: name of the run or ensemble.
        recipe: of a run; None for an ensemble.
        members: of an ensemble, each with `weight`, `run` and `recipe`; None for a run.
        operating_point: the thresholds and the temperature used.
        records: fingerprint of the records.
        skipped_records: number of damaged records that were left out.
        trained_on_records: fingerprint of the records it was trained on; empty where members differ in it.
        versions: of the packages the numbers depend on.
    """

    run: str
    recipe: dict[str, Any] | None
    members: list[dict[str, Any]] | None
    operating_point: OperatingPoint
    records: str
    skipped_records: int
    trained_on_records: str
    versions: dict[str, str]


@dataclass(frozen=True)
class SplitMetrics:
    """All numbers of one split.

    Args:
        split: its name.
        examples: number of images.
        labels: number of images by label name.
        groups: number of groups of related images, such as the edits of one photo.
        held_out: the source to which the images of its label are limited, if any.
        notes: what limits the use of the numbers, in sentences.
        category: None without a category head.
        tables: a row for each subgroup, by what defines them: `source`, `category`, `source and category`.
        robustness, bias_probe, stability: None where no images were perturbed.
        feedback: None except for the regression set.
    """

    split: str
    examples: int
    labels: dict[str, int]
    groups: int
    held_out: str | None
    notes: list[str]
    authenticity: AuthenticityMetrics
    category: CategoryMetrics | None
    tables: dict[str, list[SubgroupMetrics]]
    provenance: Provenance
    robustness: Robustness | None = None
    bias_probe: BiasProbe | None = None
    stability: Stability | None = None
    feedback: Feedback | None = None

    def to_dict(self) -> dict[str, Any]:
        """The content of metrics.json."""
        numbers: dict[str, Any] = {}
        for name, value in _fields(self).items():
            numbers |= _fields(value) if isinstance(value, Provenance) else {name: value}
        return {
            name: _json_ready(value) for name, value in numbers.items() if value is not None or name == "held_out"
        }


def _fields(value: Any) -> dict[str, Any]:
    """The fields of a dataclass by name."""
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _json_ready(value: Any) -> Any:
    """Dataclasses as dicts and NaN as None, at any depth."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if dataclasses.is_dataclass(value):
        value = _fields(value)
    if isinstance(value, dict):
        return {name: _json_ready(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_json_ready(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
