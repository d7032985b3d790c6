"""Scores against labels: a Report, which holds numbers and draws nothing.

Images are scored once; all that is said of a split follows from its scores.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from ddkeras.evaluation.scoring import Scores, _compared
from ddkeras.metrics import classification
from ddkeras.metrics.bootstrap import Bootstrap
from ddkeras.metrics.calibration import VERDICTS, OperatingPoint
from ddkeras.runs.detector import Detector
from ddkeras.runs.run import package_versions
from pipelines.datasets.examples import LABELS, REGRESSION
from pipelines.records.schema import NO_CATEGORY
from pipelines.records.store import Records

_FEW = 30  # images in a split, from which on numbers say something
FEWEST = 20  # images of a label in a part of a split, below which its numbers are left out
_TOO_FEW = f"fewer than {FEWEST}"


@dataclass(frozen=True)
class Report:
    """What a run scored on one split.

    `predictions` has one row per image: path, source, group, label (0 real, 1 fake), logit, fake_probability,
    verdict, and where there are classes category, predicted_category (names, the first empty when unknown) and
    category_probability.
    """

    metrics: dict  # all numbers, ready for JSON
    predictions: pd.DataFrame


# --- scoring ---------------------------------------------------------------------------------------------------


# --- numbers ---------------------------------------------------------------------------------------------------


def report(run: Detector, records: Records, split: str, scores: Scores, *, held_out: str | None = None) -> Report:
    """All that follows from the scores of a split; with `held_out`, of those of one source alone."""
    sample = Bootstrap(scores.groups)
    verdicts = scores.verdicts(run.point, run.categories)
    numbers = {
        "split": split,
        "examples": len(scores.labels),
        "labels": {name: int((scores.labels == label).sum()) for label, name in enumerate(LABELS)},
        "groups": len(np.unique(scores.groups)),
        "held_out": held_out,
        "notes": _notes(run, records, split, scores, held_out),
        "authenticity": authenticity(sample, scores.labels, scores.logits, verdicts, run.point),
    }
    if run.categories:
        numbers["category"] = category(sample, scores.categories, scores.predicted, run.categories)
    numbers["tables"] = _tables(scores, verdicts, run.categories)
    return Report(numbers | _provenance(run, records), _predictions(run, scores, verdicts))


def authenticity(
    sample: Bootstrap, labels: np.ndarray, logits: np.ndarray, verdicts: np.ndarray, point: OperatingPoint
) -> dict:
    """The numbers of the authenticity head; fake is the positive class.

    Args:
        sample: of the images.
        labels: (n,), 0 real or 1 fake.
        logits: (n,), of fake.
        verdicts: (n,), indices of `calibration.VERDICTS`.
        point: the operating point, from which the verdicts are.

    Returns:
        Estimates (`value`, `low`, `high`; see `intervals.Sample`) of `metrics.ranking` and `metrics.probabilistic`,
        the latter also `uncalibrated`; those of `metrics.called` `at_half`, a probability of 0.5, and
        `at_operating_point`, where what is unsure is not called fake; `coverage`, the share of images whose verdict
        is not unsure, and `risk`, the share of these that are wrong; and how many of each label have each verdict.
    """
    reals, fakes = int((labels == 0).sum()), int((labels == 1).sum())
    counts = dict.fromkeys(("auc", "average_precision", "equal_error_rate"), min(reals, fakes))
    ranks = sample.estimate(partial(classification.ranking, labels, logits), counts)
    for rate in classification.FALSE_ALARM_RATES:
        if reals * rate < 1:
            ranks[f"recall_at_{rate:g}"] = _none(
                f"{reals} reals are too few to tell a false positive rate of {rate:.1%}"
            )
    probabilities = sample.estimate(partial(classification.probabilistic, labels, logits / point.temperature))
    uncalibrated = sample.estimate(partial(classification.probabilistic, labels, logits))
    decided, wrong = verdicts != VERDICTS.index("unsure"), (1 - labels) == verdicts

    def decisions(weights: np.ndarray) -> dict[str, np.ndarray]:
        number = weights @ decided
        with np.errstate(invalid="ignore"):
            return {"coverage": number / weights.sum(axis=1), "risk": weights @ wrong / number}

    return {
        **ranks,
        **probabilities,
        "uncalibrated": uncalibrated,
        "at_half": _called(sample, labels, logits >= 0),
        "at_operating_point": _called(sample, labels, verdicts == VERDICTS.index("fake")),
        **sample.estimate(decisions, {"coverage": len(labels), "risk": int(decided.sum())}),
        "verdicts": {
            name: {said: int(((labels == label) & (verdicts == v)).sum()) for v, said in enumerate(VERDICTS)}
            for label, name in enumerate(LABELS)
        },
    }


def category(sample: Bootstrap, labels: np.ndarray, predicted: np.ndarray, names: list[str]) -> dict:
    """The numbers of the category head; images without a category count for nothing.

    Args:
        sample: of the images.
        labels, predicted: (n,), class indices, labels -1 where unknown.
        names: the classes.

    Returns:
        Estimates of `accuracy` and of `macro_f1` over the classes that occur; of each of the `classes` its
        `examples`, `precision`, `recall` and `f1`; the `confusion` matrix (rows true, columns predicted), and the
        number of `examples` that have a category.
    """
    known = labels != NO_CATEGORY
    labels, predicted = labels[known], predicted[known]
    confusion = np.zeros((len(names), len(names)), int)
    np.add.at(confusion, (labels, predicted), 1)

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        found = classification.multiclass_metrics(labels, predicted, len(names), weights[:, known])
        return {name: values for name, values in found.items() if values.ndim == 1}

    occurring = confusion.sum(axis=1)
    each = classification.multiclass_metrics(labels, predicted, len(names), np.ones((1, len(labels))))
    classes = {
        name: {"examples": int(occurring[index])}
        | {measured: _or_none(each[measured][0, index]) for measured in ("precision", "recall", "f1")}
        for index, name in enumerate(names)
    }
    estimates = sample.estimate(measure, {"accuracy": len(labels), "macro_f1": len(labels)}) if len(labels) else {}
    return {
        "accuracy": estimates.get("accuracy", _none("no image has a category")),
        "macro_f1": estimates.get("macro_f1", _none("no image has a category")),
        "classes": classes,
        "confusion": confusion.tolist(),
        "categories": names,
        "examples": len(labels),
    }


def _called(sample: Bootstrap, labels: np.ndarray, is_called: np.ndarray) -> dict:
    is_fake = labels == 1
    reals, fakes = int((~is_fake).sum()), int(is_fake.sum())
    denominators = {
        "accuracy": len(labels),
        "balanced_accuracy": min(reals, fakes),
        "recall": fakes,
        "f1": fakes,
        "precision": int(is_called.sum()),
        "false_positive_rate": reals,
    }
    found = sample.estimate(partial(classification.threshold_metrics, labels, is_called), denominators)
    confusion = [[int(((labels == label) & (is_called == said)).sum()) for said in (False, True)] for label in (0, 1)]
    return {**found, "confusion": confusion}


# --- who it fails ----------------------------------------------------------------------------------------------


def _tables(scores: Scores, verdicts: np.ndarray, names: list[str]) -> dict[str, list[dict]]:
    """The numbers of images of one source, of one category, and of both."""
    columns = {}
    if len(np.unique(scores.sources)) > 1:
        columns["source"] = scores.sources
    if names and (scores.categories != NO_CATEGORY).any():
        columns["category"] = np.array([*names, ""])[scores.categories]
    ways = [[name] for name in columns] + [list(columns)] * (len(columns) > 1)
    return {" and ".join(way): _table({name: columns[name] for name in way}, scores, verdicts) for way in ways}


def _table(columns: dict[str, np.ndarray], scores: Scores, verdicts: np.ndarray) -> list[dict]:
    """A row for each combination of values that occurs."""
    rows = []
    for values in sorted(set(zip(*columns.values(), strict=True))):
        own = np.logical_and.reduce([column == value for column, value in zip(columns.values(), values, strict=True)])
        rows.append(dict(zip(columns, map(str, values), strict=True)) | _cell(own, scores, verdicts))
    return rows


def _cell(own: np.ndarray, scores: Scores, verdicts: np.ndarray) -> dict:
    reals, fakes = (own & (scores.labels == label) for label in range(len(LABELS)))
    fake, unsure = (verdicts == VERDICTS.index(said) for said in ("fake", "unsure"))
    return {
        "real": int(reals.sum()),
        "fake": int(fakes.sum()),
        "auc": auc(scores.at(_compared(own, scores))),
        "called_fake_of_real": _proportion(scores.groups[reals], fake[reals]),
        "called_fake_of_fake": _proportion(scores.groups[fakes], fake[fakes]),
        "unsure": _proportion(scores.groups[own], unsure[own]),
    }


def auc(scores: Scores) -> dict:
    """An estimate of the AUC; none where there are fewer than `FEWEST` images of a label."""
    rarest = int(np.bincount(scores.labels, minlength=len(LABELS)).min())
    if rarest < FEWEST:
        return _none(_TOO_FEW)
    rank = partial(classification.ranking, scores.labels, scores.logits)
    return Bootstrap(scores.groups).estimate(rank, {"auc": rarest})["auc"]


def _proportion(groups: np.ndarray, is_so: np.ndarray) -> dict:
    if len(is_so) < FEWEST:
        return _none(_TOO_FEW if len(is_so) else "none")
    shares = {"share": len(is_so)}
    return Bootstrap(groups).estimate(lambda weights: {"share": weights @ is_so / weights.sum(axis=1)}, shares)[
        "share"
    ]


# --- what goes with the numbers --------------------------------------------------------------------------------


def _notes(run: Detector, records: Records, split: str, scores: Scores, held_out: str | None) -> list[str]:
    """What a reader has to know to believe no more of the numbers than they say."""
    notes, number = [], len(scores.labels)
    absent = [name for label, name in enumerate(LABELS) if not (scores.labels == label).any()]
    if absent:
        notes.append(f"no image of {split} is {absent[0]}: what ranks real against fake, such as AUC, cannot be had")
    if held_out and held_out == run.hold_out:
        notes.append(f"only {held_out}, which was not in training, and the other label of its categories")
    elif held_out:
        notes.append(f"only {held_out}, and the other label; the run has seen it: train without, ddk fit --hold-out")
    elif run.hold_out:
        notes.append(f"the run was trained without {run.hold_out}, which is among these images")
    if number < _FEW:
        notes.append(f"{number} images say little: look at the intervals")
    if split == "train":
        notes.append("the run was trained on these images: the numbers say how much it knows by heart")
    if not run.point.fitted:
        notes.append(run.unfitted)
    elif split == "validation":
        notes.append(
            "the epoch, the calibration and the limits were chosen on these images: expect somewhat less on others"
        )
    if split == REGRESSION:
        notes.append("people picked these images, most because a run was wrong on them: others are not like them")
    elif run.fingerprint != records.fingerprint:
        notes.append("these are not the records that the run was trained on, or they were changed since")
    if records.skipped:
        notes.append(f"{records.skipped} damaged records were left out")
    return notes


def _predictions(run: Detector, scores: Scores, verdicts: np.ndarray) -> pd.DataFrame:
    # As objects: pandas' own strings cannot hold a path that is no UTF-8.
    paths, groups = (pd.Series(names.tolist(), dtype=object) for names in (scores.paths, scores.groups))
    table = pd.DataFrame({"path": paths, "source": scores.sources, "group": groups, "label": scores.labels})
    table["logit"] = scores.logits
    table["fake_probability"] = np.asarray(run.point.probabilities(scores.logits))
    table["verdict"] = np.array(VERDICTS)[verdicts]
    if run.categories:
        names = np.array([*run.categories, ""])  # so that -1, no category, is the empty name
        table["category"] = names[scores.categories]
        table["predicted_category"] = names[scores.predicted]
        table["category_probability"] = scores.category_probabilities.max(axis=-1)
    return table


def _provenance(run: Detector, records: Records) -> dict:
    """Every number has its data."""
    return {
        **run.describe(),
        "operating_point": run.point.to_dict(),
        "records": records.fingerprint,
        "skipped_records": records.skipped,
        "trained_on_records": run.fingerprint,
        "versions": package_versions(),
    }


def _none(reason: str) -> dict:
    return {"value": None, "low": None, "high": None, "reason": reason}


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
