"""Evaluate a run or an ensemble on splits of records: what `ddk evaluate` does, in `measure` from top to bottom."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from urllib.parse import quote

import numpy as np
import pandas as pd

from ddkeras.evaluation import results, robustness, scoring
from ddkeras.exceptions import ConfigError
from ddkeras.inference import scorers
from ddkeras.interrupts import Interrupted
from ddkeras.metrics.split_metrics import Feedback, FeedbackImage
from ddkeras.progress import Progress, silent
from ddkeras.reporting.evaluation_report import EvaluationReport, TrainingHistory
from ddkeras.reporting.model_card import AuditSummary, ModelCard
from ddkeras.runs.detector import Detector
from ddkeras.runs.run import EVALUATION, Run
from pipelines import atomic
from pipelines.datasets.examples import LABELS, REGRESSION
from pipelines.records import queries
from pipelines.records.store import Records
from pipelines.transforms.perturbations import PERTURBATIONS
from pipelines.wording import count_of

_MARKER = "metrics.json"  # in every folder that this may replace


def measure(
    detector: Detector,
    records: Records,
    splits: Sequence[str] = (),
    *,
    tell: Callable[[str], None],
    progress: Progress = silent,
    hold_out: str | None = None,
    rates: Mapping[str, float] | None = None,
    degrade: int = robustness.IMAGES,
    audit: AuditSummary | None = None,
    regression: Records | None = None,
) -> dict[str, EvaluationReport]:
    """Evaluate splits, and write a report on each to `evaluation/<split>` in the detector's folder.

    All reports are written before images are perturbed, which takes the longest, and extended afterwards.
    The operating point is fitted on the validation split first if that was never done, or if there are `rates`.

    Args:
        detector: a run or an ensemble.
        records: contain the splits.
        splits: labelled splits; none for all of these but `train`, or for `train` if there is no other.
        tell: is given a line before images are perturbed.
        progress: as in `scoring.score`.
        hold_out: a source to which the images of its label are limited; nothing is perturbed then.
        rates: `false_alarms`, `misses` or both, as in `scoring.calibrate`.
        degrade: how many images of each split to perturb, see `robustness.sample`; 0 for none.
        audit: of the data, for the model card.
        regression: an opened regression set (see `pipelines.records.regression_set`), evaluated as well. Nothing is
            fitted on it, and none of its images are perturbed. With it, `splits` may be its name alone.

    Returns:
        A report on each split, by the name of its folder.

    Raises:
        ConfigError: there are `rates`, and the detector was trained on other records.
        DataError: as in `scoring.score` and `scoring.source_subset`; or a report cannot be written.
        Interrupted: a signal asked to stop while images were perturbed; the reports are there without these.
    """
    splits = _splits_to_measure(splits, records)
    names = {split: f"{split}-{quote(hold_out, safe='')}" if hold_out else split for split in splits}
    for name in [*names.values(), *([REGRESSION] if regression else [])]:
        atomic.check_folder(detector.folder / EVALUATION / name, marker=_MARKER)
    needs_calibration = _needs_calibration(detector, records, rates or {})
    to_score = list(dict.fromkeys([*splits, "validation"] if needs_calibration else splits))
    begin = time.perf_counter()
    scores = scoring.score(detector, records, to_score, progress=progress) if to_score else {}
    images = sum(len(each.labels) for each in scores.values())
    seconds_per_image = (time.perf_counter() - begin) / max(1, images)
    if needs_calibration:
        detector = scoring.calibrate(detector, scores["validation"], **(rates or {}))
    reports = {}
    for split in splits:
        subset = scoring.source_subset(scores[split], hold_out) if hold_out else scores[split]
        report = results.report(detector, records, split, subset, held_out=hold_out)
        reports[names[split]] = _write(report, names[split], detector, records, audit)
    if regression is not None:
        report = _measure_regression(detector, regression, records, progress)
        reports[REGRESSION] = _write(report, REGRESSION, detector, regression, audit)
    if degrade and not hold_out:
        for index, split in enumerate(splits):
            indices = robustness.sample(scores[split].labels, degrade)
            tell(_format_cost(split, len(indices), seconds_per_image))
            try:
                with progress(f"{split}, perturbed") as advance:
                    perturbed = robustness.score_perturbed(
                        scorers.scorer_for(detector), records, split, scores[split], indices, advance
                    )
                report = _with_perturbed(reports[split], perturbed, detector)
                reports[split] = _write(report, split, detector, records, audit)
            except KeyboardInterrupt as error:
                raise Interrupted(_format_unperturbed(detector, splits[index:])) from error
    return reports


def _splits_to_measure(splits: Sequence[str], records: Records) -> list[str]:
    """The splits of the records, without the regression set."""
    if splits:
        return [split for split in splits if split != REGRESSION]
    return [split for split in records.labelled_splits if split != "train"] or ["train"]


def _needs_calibration(detector: Detector, records: Records, rates: Mapping[str, float]) -> bool:
    trained_on_these = results.is_trained_on(detector, records)
    if rates and not trained_on_these:
        raise ConfigError(
            "thresholds are fitted on the records that the run was trained on; give them with --records"
        )
    return bool(rates) or (trained_on_these and not detector.point.fitted)


def _format_cost(split: str, images: int, seconds_per_image: float) -> str:
    number, scored = images * len(PERTURBATIONS), count_of(images, "image")
    return (
        f"{split}: the report is written; scoring {scored} under {len(PERTURBATIONS)} perturbations, "
        f"{number:,} in all, extends it and takes about {number * seconds_per_image:.0f} s; skip it with --degrade 0"
    )


def _format_unperturbed(detector: Detector, splits: Sequence[str]) -> str:
    return (
        f"the reports in {detector.folder / EVALUATION} are complete, but without the perturbed images of "
        f"{', '.join(splits)}"
    )


def _with_perturbed(
    report: EvaluationReport, perturbed: robustness.PerturbedScores, detector: Detector
) -> EvaluationReport:
    metrics = replace(
        report.metrics,
        robustness=robustness.robustness(perturbed, detector.point, detector.categories),
        bias_probe=robustness.bias_probe(perturbed),
        stability=robustness.stability(perturbed, detector.point, detector.categories),
    )
    return replace(report, metrics=metrics)


def _write(
    report: EvaluationReport, name: str, detector: Detector, records: Records, audit: AuditSummary | None
) -> EvaluationReport:
    """Complete the report with thumbnails, training history and model card, and write it."""
    cost = detector.cost()
    training = None  # an ensemble has none of its own
    if isinstance(detector, Run):
        best_epoch = int(detector.best_epoch()["best_epoch"])
        training = TrainingHistory(detector.history(), best_epoch, detector.recipe.loss)
    report = replace(
        report,
        training=training,
        card=ModelCard(audit, cost["parameters"], cost["seconds_of_training"]),
        thumbnails=queries.thumbnails(records, report.metrics.split, report.shown_paths),
    )
    with atomic.folder(detector.folder / EVALUATION / name, marker=_MARKER) as partial:
        report.report(partial)
    return report


# --- the regression set ----------------------------------------------------------------------------------------


def _measure_regression(
    detector: Detector, regression: Records, records: Records, progress: Progress
) -> EvaluationReport:
    """The report on a regression set; `records` tell which of its images are also in the training split."""
    scores = scoring.score(detector, regression, [REGRESSION], progress=progress)[REGRESSION]
    report = results.report(detector, regression, REGRESSION, scores)
    in_train = _in_both(records, "train", regression) if "train" in records.splits else set()
    notes = list(report.metrics.notes)
    if in_train:
        notes.append(f"images that are also in the training split, so that they test nothing: {len(in_train)}")
    if detector.fingerprint != records.fingerprint:
        notes.append(
            "the run was trained on other records than those given, so it is not known which of these images were in "
            "its training"
        )
    return replace(
        report, metrics=replace(report.metrics, notes=notes, feedback=_feedback(report.predictions, in_train))
    )


def _in_both(records: Records, split: str, regression: Records) -> set[str]:
    """The paths in the regression set of images that are also in a split of the records."""
    paths = dict(queries.digests(regression, REGRESSION))
    return {paths[digest] for digest, _ in queries.digests(records, split) if digest in paths}


def _feedback(predictions: pd.DataFrame, in_train: set[str]) -> Feedback:
    table = predictions.assign(label=np.array(LABELS)[predictions["label"]])
    table = table.sort_values("fake_probability", ascending=False, kind="stable")
    is_unsure, is_right = table["verdict"] == "unsure", table["verdict"] == table["label"]
    return Feedback(
        right=int(is_right.sum()),
        still_wrong=_feedback_images(table[~is_right & ~is_unsure]),
        still_unsure=_feedback_images(table[is_unsure]),
        in_train=sorted(in_train),
    )


def _feedback_images(table: pd.DataFrame) -> list[FeedbackImage]:
    columns = ("path", "label", "verdict", "fake_probability")
    return [FeedbackImage(*row) for row in zip(*(table[name].tolist() for name in columns), strict=True)]
