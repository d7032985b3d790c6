"""`ddk evaluate`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddkeras import api
from ddkeras.cli import console
from ddkeras.cli.environment import load_tensorflow
from ddkeras.cli.options import (
    ENSEMBLES,
    LATEST_RUN,
    REGRESSION_SET,
    check_weights,
    detector_options,
    intact_records,
    records_option,
)
from ddkeras.cli.stderr import silence_stderr
from pipelines.wording import count_of

if TYPE_CHECKING:
    from ddkeras.metrics.split_metrics import Feedback, SplitMetrics
    from pipelines.records.store import Records

_AUDIT = Path("artifacts/audit/audit.json")
_NEXT = "Next: ddk errors, ddk predict PATH, ddk export"
_RATE = click.FloatRange(0, 0.5)


def _format_result(result: dict[str, Any]) -> str:
    lines = []
    for name, report in result["splits"].items():
        metrics = report.metrics
        text = _format_feedback(metrics.feedback) if metrics.feedback else _format_scores(metrics)
        lines.append(f"{name} ({count_of(metrics.examples, 'image')}): {text}")
        if metrics.category and metrics.category.examples:
            lines.append(f"  category accuracy {metrics.category.accuracy}, macro F1 {metrics.category.macro_f1}")
        if metrics.bias_probe:
            lines.append(f"  {metrics.bias_probe.verdict.upper()}: {metrics.bias_probe.text}")
        if metrics.stability:
            lines.append(f"  {metrics.stability.flips} of verdicts flip when images are mildly re-encoded")
        lines += [f"  note: {note}" for note in metrics.notes]
        lines.append(f"  see {result['folder']}/{name}/report.html, or report.pdf there")
    ensemble = result.get("ensemble")
    lines.append(f"Next: ddk predict PATH --run {ensemble}" if ensemble else _NEXT)
    return "\n".join(lines)


def _format_scores(metrics: "SplitMetrics") -> str:
    from ddkeras.reporting.summary import format_decided, format_grade

    authenticity = metrics.authenticity
    point = authenticity.at_operating_point
    return (
        f"authenticity AUC {authenticity.auc}, {format_grade(authenticity.auc)}; {format_decided(metrics)}\n"
        f"  accuracy at 0.5 {authenticity.at_half.accuracy}; called fake: of reals {point.false_positive_rate}, of "
        f"fakes {point.recall}"
    )


def _format_feedback(feedback: "Feedback") -> str:
    wrong, unsure = len(feedback.still_wrong), len(feedback.still_unsure)
    return f"{feedback.right} right, {wrong} still wrong, {unsure} unsure"


@console.command("evaluate", format_result=_format_result)
@detector_options("Folder of the run; several are evaluated as an ensemble, as one detector.")
@records_option
@click.option(
    "--split", "splits", multiple=True, help="Split to evaluate; repeatable.  [default: all labelled except train]"
)
@click.option(
    "--hold-out",
    metavar="SOURCE",
    help="Evaluate only this source, against images of the other label in its categories.",
)
@click.option(
    "--regression",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help=f"Folder of the regression set, see ddk errors.  [default: {REGRESSION_SET}, if it exists]",
)
@click.option("--false-alarms", type=_RATE, help="Maximum share of real images to call fake.  [default: 0.01]")
@click.option("--misses", type=_RATE, help="Maximum share of fake images to call real.  [default: 0.05]")
@click.option(
    "--degrade",
    default=400,
    show_default=True,
    type=click.IntRange(0),
    help="Images of each split to perturb and score again, for robustness, the bias probe and stability.",
)
def evaluate(
    detectors: tuple[Path, ...],
    ensemble_weights: list[float] | None,
    records: Path,
    skip_corrupt: bool,
    splits: tuple[str, ...],
    hold_out: str | None,
    regression: Path | None,
    false_alarms: float | None,
    misses: float | None,
    degrade: int,
) -> dict[str, Any]:
    """Evaluate a run or an ensemble on labelled splits.

    Fake is the positive class. Each split gets a folder evaluation/<split> inside the run, with report.html and
    report.pdf to read, all numbers with their 95% intervals in metrics.json, predictions.csv (one row per image), and
    the figures as PNG. All are written before images are perturbed (--degrade), which takes the longest, and extended
    afterwards; interrupted in between, they are there without it.

    A verdict is real, fake or, between two thresholds, unsure. The thresholds are fitted on validation at the end of
    training, so that few real images are called fake and few fakes real. --false-alarms and --misses refit them,
    for this run and everything made from it later.

    Several --run are evaluated as an ensemble: the weighted mean of their calibrated logits, with an operating
    point of its own, which is fitted on validation if all were trained on these records. The ensemble is stored, with
    its reports, in artifacts/ensembles/A+B, which ddk predict --run takes.

    Images collected with ddk errors --feedback are evaluated separately, as the split regression. Nothing is fitted
    on them. Those that are still wrong are listed in metrics.json, under feedback.

    \b
    Examples:
      ddk evaluate
      ddk evaluate --split validation --run artifacts/runs/xception-20260131-120000
      ddk evaluate --false-alarms 0.001 --degrade 0
      ddk evaluate --run artifacts/runs/a --run artifacts/runs/b --ensemble-weights 2,1
    """
    check_weights(detectors, ensemble_weights)
    load_tensorflow()
    from ddkeras.runs.ensemble import Ensemble, compose
    from ddkeras.runs.run import EVALUATION, Run, open_run

    detector: Ensemble | Run
    if is_ensemble := len(detectors) > 1:
        detector = compose(detectors, ensemble_weights, Path(ENSEMBLES))
    else:
        detector = open_run(detectors[0] if detectors else LATEST_RUN)
    with intact_records(records, skip_corrupt=skip_corrupt) as opened:
        console.note(f"loading {detector.name}")
        evaluation = api.evaluate(
            detector,
            opened,
            splits,
            hold_out=hold_out,
            false_alarms=false_alarms,
            misses=misses,
            degrade=degrade,
            regression=_regression_set(regression, splits, hold_out),
            audit=_audit(opened),
            progress=True,
            note=console.note,
        )
    result: dict[str, Any] = {"folder": str(detector.folder / EVALUATION)}
    if is_ensemble:
        result["ensemble"] = str(detector.folder)
    return result | {"splits": evaluation}


def _regression_set(folder: Path | None, splits: tuple[str, ...], hold_out: str | None) -> Path | None:
    """The folder of the regression set, if it is to be measured."""
    from pipelines.datasets.examples import REGRESSION
    from pipelines.records import conversion, regression_set

    chosen = folder or Path(REGRESSION_SET)
    is_requested = folder is not None or REGRESSION in splits
    if not is_requested and (splits or hold_out or not regression_set.exists(chosen)):
        return None
    with silence_stderr():
        conversion.start_workers()
    return chosen


def _audit(records: "Records") -> api.AuditReport | None:
    """The stored audit, if it is of these records or of the folder that they were made from."""
    from ddkeras.runs.json_files import of_type, read_json
    from pipelines.records.store import MANIFEST

    if not _AUDIT.is_file():
        return None
    data = json.loads((records.folder / MANIFEST).read_text())["source"]

    def parse(result: dict[str, Any]) -> api.AuditReport | None:
        is_of_records = result.get("fingerprint") == records.fingerprint or Path(result["data"]).resolve() == Path(
            data
        )
        of_type(result["verdict"], str), of_type(result["meaning"], str)
        return api.AuditReport(result) if is_of_records else None

    return read_json(_AUDIT, parse, remedy="remove it, or make it again: ddk audit")
