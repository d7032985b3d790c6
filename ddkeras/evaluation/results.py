"""From scores to an evaluation report: metrics with intervals, subgroups, notes and the table of predictions."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd

from ddkeras.evaluation.scoring import Scores, with_counterparts
from ddkeras.metrics import classification
from ddkeras.metrics.bootstrap import Bootstrap, Estimate, Kinds
from ddkeras.metrics.calibration import VERDICTS, OperatingPoint
from ddkeras.metrics.split_metrics import (
    AuthenticityMetrics,
    CategoryMetrics,
    ClassMetrics,
    ProbabilityMetrics,
    Provenance,
    SplitMetrics,
    SubgroupMetrics,
    ThresholdMetrics,
)
from ddkeras.reporting.evaluation_report import EvaluationReport
from ddkeras.runs.detector import Detector
from ddkeras.runs.run import package_versions
from pipelines.datasets.examples import LABELS, REGRESSION
from pipelines.intervals import MIN_IMAGES
from pipelines.records.schema import NO_CATEGORY
from pipelines.records.store import Records
from pipelines.wording import count_of

_TOO_FEW = f"fewer than {MIN_IMAGES}"  # of a label in a subgroup; its metrics are left out


def report(
    detector: Detector, records: Records, split: str, scores: Scores, *, held_out: str | None = None
) -> EvaluationReport:
    """Metrics and predictions of a split.

    Args:
        detector: gave the scores.
        records: contain the split.
        split: its name.
        scores: of the split, or of one source in it; see `scoring.source_subset`.
        held_out: that source.
    """
    point, categories, predicted = detector.point, detector.categories, scores.predicted
    verdicts = scores.verdicts(point, categories)
    bootstrap = Bootstrap(scores.groups)
    metrics = SplitMetrics(
        split=split,
        examples=len(scores.labels),
        labels={name: int((scores.labels == label).sum()) for label, name in enumerate(LABELS)},
        groups=len(np.unique(scores.groups)),
        held_out=held_out,
        notes=_notes(detector, records, split, scores, held_out),
        authenticity=authenticity_metrics(bootstrap, scores.labels, scores.logits, verdicts, point),
        category=None if predicted is None else category_metrics(bootstrap, scores.categories, predicted, categories),
        tables=_subgroup_tables(scores, verdicts, categories),
        provenance=_provenance(detector, records),
    )
    return EvaluationReport(metrics, _predictions(scores, verdicts, point, categories))


# --- the two heads ---------------------------------------------------------------------------------------------


def authenticity_metrics(
    bootstrap: Bootstrap, labels: np.ndarray, logits: np.ndarray, verdicts: np.ndarray, point: OperatingPoint
) -> AuthenticityMetrics:
    """Metrics of the authenticity head; fake is the positive class.

    Args:
        bootstrap: resamples the images.
        labels: (n,), 0 real or 1 fake.
        logits: (n,), of fake.
        verdicts: (n,), indices of `calibration.VERDICTS`.
        point: the operating point that gave the verdicts.
    """
    ranking = _ranking_metrics(bootstrap, labels, logits)
    reals = int((labels == 0).sum())
    is_decided, is_wrong = verdicts != VERDICTS.index("unsure"), (1 - labels) == verdicts

    def selective(weights: np.ndarray) -> dict[str, np.ndarray]:
        decided = weights @ is_decided
        with np.errstate(invalid="ignore"):
            return {"coverage": decided / weights.sum(axis=1), "risk": weights @ is_wrong / decided}

    return AuthenticityMetrics(
        **{name: ranking[name] for name in ("auc", "average_precision", "equal_error_rate")},
        recall_at={
            rate: ranking[f"recall_at_{rate:g}"]
            if reals * rate >= 1
            else Estimate.missing(f"{reals} reals are too few for a false positive rate of {rate:.1%}")
            for rate in classification.FALSE_POSITIVE_RATES
        },
        calibrated=_probability_metrics(bootstrap, labels, logits / point.temperature),
        uncalibrated=_probability_metrics(bootstrap, labels, logits),
        at_half=_threshold_metrics(bootstrap, labels, logits >= 0),
        at_operating_point=_threshold_metrics(bootstrap, labels, verdicts == VERDICTS.index("fake")),
        **bootstrap.estimate(selective, {"risk": {"verdicts": is_decided}}),
        verdicts={
            name: {verdict: int(((labels == label) & (verdicts == v)).sum()) for v, verdict in enumerate(VERDICTS)}
            for label, name in enumerate(LABELS)
        },
    )


def _ranking_metrics(bootstrap: Bootstrap, labels: np.ndarray, logits: np.ndarray) -> dict[str, Estimate]:
    measure = partial(classification.ranking_metrics, labels, logits)
    return bootstrap.estimate(measure, classification.kinds_by_metric(labels, logits >= 0))


def _probability_metrics(bootstrap: Bootstrap, labels: np.ndarray, logits: np.ndarray) -> ProbabilityMetrics:
    measure = partial(classification.probability_metrics, labels, logits)
    return ProbabilityMetrics(**bootstrap.estimate(measure, others=("log_loss", "brier", "calibration_error")))


def _threshold_metrics(bootstrap: Bootstrap, labels: np.ndarray, is_positive: np.ndarray) -> ThresholdMetrics:
    measure = partial(classification.threshold_metrics, labels, is_positive)
    estimates = bootstrap.estimate(measure, classification.kinds_by_metric(labels, is_positive))
    confusion = [
        [int(((labels == label) & (is_positive == decision)).sum()) for decision in (False, True)] for label in (0, 1)
    ]
    return ThresholdMetrics(**estimates, confusion=confusion)


def category_metrics(
    bootstrap: Bootstrap, labels: np.ndarray, predicted: np.ndarray, names: list[str]
) -> CategoryMetrics:
    """Metrics of the category head, on the images that have a category.

    Args:
        bootstrap: resamples the images.
        labels, predicted: (n,), class indices; labels are -1 where unknown.
        names: of the classes.
    """
    is_known = labels != NO_CATEGORY
    labels, predicted = labels[is_known], predicted[is_known]
    confusion = np.zeros((len(names), len(names)), int)
    np.add.at(confusion, (labels, predicted), 1)

    def overall(weights: np.ndarray) -> dict[str, np.ndarray]:
        values = classification.multiclass_metrics(labels, predicted, len(names), weights[:, is_known])
        return {name: values[name] for name in ("accuracy", "macro_f1")}

    by_class = classification.multiclass_metrics(labels, predicted, len(names), np.ones((1, len(labels))))
    among: dict[str, Kinds] = {name: {"images with a category": is_known} for name in ("accuracy", "macro_f1")}
    missing = dict.fromkeys(among, Estimate.missing("no image has a category"))
    return CategoryMetrics(
        **(bootstrap.estimate(overall, among) if len(labels) else missing),
        classes={
            name: ClassMetrics(
                examples=int(confusion[index].sum()),
                precision=float(by_class["precision"][0, index]),
                recall=float(by_class["recall"][0, index]),
                f1=float(by_class["f1"][0, index]),
            )
            for index, name in enumerate(names)
        },
        confusion=confusion.tolist(),
        categories=names,
        examples=len(labels),
    )


# --- subgroups -------------------------------------------------------------------------------------------------


def _subgroup_tables(scores: Scores, verdicts: np.ndarray, categories: list[str]) -> dict[str, list[SubgroupMetrics]]:
    """By source, by category, and by both, as far as they are known."""
    columns = {}
    if len(np.unique(scores.sources)) > 1:
        columns["source"] = scores.sources
    if categories and (scores.categories != NO_CATEGORY).any():
        columns["category"] = np.array([*categories, ""])[scores.categories]
    groupings = [[name] for name in columns] + ([list(columns)] if len(columns) > 1 else [])
    return {
        " and ".join(names): _subgroup_table({name: columns[name] for name in names}, scores, verdicts)
        for names in groupings
    }


def _subgroup_table(columns: dict[str, np.ndarray], scores: Scores, verdicts: np.ndarray) -> list[SubgroupMetrics]:
    """A row for each combination of values that occurs."""
    rows = []
    for values in sorted(set(zip(*columns.values(), strict=True))):
        is_member = np.logical_and.reduce(
            [column == value for column, value in zip(columns.values(), values, strict=True)]
        )
        subgroup = dict(zip(columns, map(str, values), strict=True))
        rows.append(_subgroup_metrics(subgroup, is_member, scores, verdicts))
    return rows


def _subgroup_metrics(
    subgroup: dict[str, str], is_member: np.ndarray, scores: Scores, verdicts: np.ndarray
) -> SubgroupMetrics:
    reals, fakes = (is_member & (scores.labels == label) for label in range(len(LABELS)))
    is_fake, is_unsure = (verdicts == VERDICTS.index(verdict) for verdict in ("fake", "unsure"))
    return SubgroupMetrics(
        subgroup=subgroup,
        real=int(reals.sum()),
        fake=int(fakes.sum()),
        auc=subgroup_auc(scores.at(with_counterparts(is_member, scores))),
        false_positive_rate=_proportion(scores.groups[reals], is_fake[reals]),
        recall=_proportion(scores.groups[fakes], is_fake[fakes]),
        unsure=_proportion(scores.groups[is_member], is_unsure[is_member]),
    )


def subgroup_auc(scores: Scores) -> Estimate:
    """The AUC of some images; missing if there are fewer than `MIN_IMAGES` of a label."""
    if np.bincount(scores.labels, minlength=len(LABELS)).min() < MIN_IMAGES:
        return Estimate.missing(_TOO_FEW)
    return _ranking_metrics(Bootstrap(scores.groups), scores.labels, scores.logits)["auc"]


def _proportion(groups: np.ndarray, is_true: np.ndarray) -> Estimate:
    if len(is_true) < MIN_IMAGES:
        return Estimate.missing(_TOO_FEW if len(is_true) else "none")

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {"share": weights @ is_true / weights.sum(axis=1)}

    return Bootstrap(groups).estimate(measure)["share"]


# --- what goes with the numbers --------------------------------------------------------------------------------


def _notes(detector: Detector, records: Records, split: str, scores: Scores, held_out: str | None) -> list[str]:
    """What limits the use of the numbers."""
    return [
        *_notes_on_numbers(detector, split, scores),
        *_notes_on_sources(detector, records, scores, held_out),
        *_notes_on_training(detector, records, split),
        *_notes_on_classes(detector, records),
        *([f"{records.skipped} damaged records were left out"] if records.skipped else []),
    ]


def _notes_on_numbers(detector: Detector, split: str, scores: Scores) -> Iterator[str]:
    counts = {name: int((scores.labels == label).sum()) for label, name in enumerate(LABELS)}
    absent = [name for name, number in counts.items() if not number]
    if absent:
        yield f"{split} has no {absent[0]} images: metrics that need both labels, such as AUC, are undefined"
    for name, number in counts.items():
        if 0 < number < MIN_IMAGES:
            yield (
                f"{count_of(number, f'{name} image')} in {split}: numbers that rest on fewer than "
                f"{MIN_IMAGES} say little, and have no interval"
            )
    if scores.is_too_small is not None and scores.is_too_small.any():
        images = count_of(int(scores.is_too_small.sum()), "image")
        yield (
            f"{images} with fewer than {detector.min_side} pixels on the shorter "
            "side: the verdict is unsure, whatever the score (min_side of the recipe)"
        )


def _notes_on_sources(detector: Detector, records: Records, scores: Scores, held_out: str | None) -> Iterator[str]:
    if held_out and held_out == detector.hold_out:
        yield f"limited to {held_out}, a source held out of training, and the other label in the same categories"
    elif held_out and is_trained_on(detector, records):
        yield (
            f"limited to {held_out}, a source seen in training, and the other label in the same categories; to train "
            "without it: ddk fit --hold-out"
        )
    elif held_out:
        yield f"limited to {held_out}, and the other label in the same categories"
    elif detector.hold_out and detector.hold_out in scores.sources:
        yield f"the run was trained without the source {detector.hold_out}, which is among these images"


def _notes_on_training(detector: Detector, records: Records, split: str) -> Iterator[str]:
    trained_on_these = is_trained_on(detector, records)
    if split == "train" and trained_on_these:
        yield "the run was trained on these images: expect lower numbers on others"
    if not detector.point.fitted:
        yield detector.unfitted
    elif split == "validation" and trained_on_these:
        yield (
            "the epoch, the calibration and the thresholds were chosen on these images: expect slightly lower "
            "numbers on others"
        )
    if split == REGRESSION:
        yield "people picked these images, mostly because a run got them wrong: they do not represent other images"
    elif not trained_on_these:
        yield (
            "the run was trained on other records than these, or they have been changed since: if both were made of "
            "the same data, some of these images may have been in its training"
        )


def is_trained_on(detector: Detector, records: Records) -> bool:
    """Whether these are the records that a detector was trained on, unchanged."""
    return detector.fingerprint == records.fingerprint


def _notes_on_classes(detector: Detector, records: Records) -> Iterator[str]:
    unknown = [name for name in records.categories if name not in detector.categories]
    if detector.categories and not records.categories:
        yield "the images have no class: authenticity alone is measured"
    elif detector.categories and unknown:
        yield f"the run does not know the classes {', '.join(unknown)}: their images count for authenticity alone"


def _predictions(scores: Scores, verdicts: np.ndarray, point: OperatingPoint, categories: list[str]) -> pd.DataFrame:
    # As objects: pandas' own strings cannot hold a path that is not valid UTF-8.
    paths, groups = (pd.Series(names.tolist(), dtype=object) for names in (scores.paths, scores.groups))
    table = pd.DataFrame({"path": paths, "source": scores.sources, "group": groups, "label": scores.labels})
    table["logit"] = scores.logits
    table["fake_probability"] = np.asarray(point.probabilities(scores.logits))
    table["verdict"] = np.array(VERDICTS)[verdicts]
    if scores.category_probabilities is not None:
        names = np.array([*categories, ""])  # index -1, no category, is the empty name
        table["true_category"] = names[scores.categories]
        table["predicted_category"] = names[scores.category_probabilities.argmax(axis=-1)]
        table["category_probability"] = scores.category_probabilities.max(axis=-1)
    return table


def _provenance(detector: Detector, records: Records) -> Provenance:
    described = detector.describe()
    return Provenance(
        run=described["run"],
        recipe=described.get("recipe"),
        members=described.get("members"),
        operating_point=detector.point,
        records=records.fingerprint,
        skipped_records=records.skipped,
        trained_on_records=detector.fingerprint,
        versions=package_versions(),
    )
