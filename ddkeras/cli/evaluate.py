"""`ddk evaluate`."""

import contextlib
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddkeras.cli import console
from ddkeras.cli.options import check_detector, detector_options, opened_records, records_option
from ddkeras.cli.progress import progress_bar, silence_stderr

if TYPE_CHECKING:
    from ddkeras.metrics.split_metrics import AuthenticityMetrics, Feedback
    from ddkeras.reporting.model_card import AuditSummary
    from pipelines.records.store import Records

AUDIT = Path("artifacts/audit/audit.json")
_NEXT = "Next: ddk errors, ddk predict PATH, ddk export"
RATE = click.FloatRange(0, 0.5)


def _show(result: dict) -> str:
    lines = []
    for name, report in result["splits"].items():
        metrics = report.metrics
        text = _feedback(metrics.feedback) if metrics.feedback else _authenticity(metrics.authenticity)
        lines.append(f"{name} ({metrics.examples} images): {text}")
        if metrics.category and metrics.category.examples:
            lines.append(f"  category accuracy {metrics.category.accuracy}, macro F1 {metrics.category.macro_f1}")
        if metrics.bias_probe:
            lines.append(f"  {metrics.bias_probe.verdict.upper()}: {metrics.bias_probe.text}")
        if metrics.stability:
            lines.append(f"  {metrics.stability.flips} of verdicts flip when images are mildly re-encoded")
        lines += [f"  note: {note}" for note in metrics.notes]
        lines.append(f"  see {result['folder']}/{name}/report.html, or report.pdf there")
    ensemble = result.get("ensemble")
    lines.append(f"Next: ddk predict PATH --model {ensemble}" if ensemble else _NEXT)
    return "\n".join(lines)


def _authenticity(metrics: "AuthenticityMetrics") -> str:
    point = metrics.at_operating_point
    return (
        f"authenticity AUC {metrics.auc}, accuracy at 0.5 {metrics.at_half.accuracy}; "
        f"called fake: of reals {point.false_positive_rate}, of fakes {point.recall}"
    )


def _feedback(feedback: "Feedback") -> str:
    wrong, unsure = len(feedback.still_wrong), len(feedback.still_unsure)
    return f"{feedback.right} right, {wrong} still wrong, {unsure} unsure"


@console.command("evaluate", show=_show)
@detector_options("In place of a run, repeated: the runs of an ensemble, which is measured as one.")
@records_option
@click.option(
    "--split", "splits", multiple=True, help="Only this split; can be repeated.  [default: all labelled but train]"
)
@click.option(
    "--hold-out", metavar="SOURCE", help="Of all sources only this one, and the other label in its categories."
)
@click.option(
    "--regression",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help=f"The regression set, see ddk errors.  [default: {console.REGRESSION}, if there is one]",
)
@click.option("--false-alarms", type=RATE, help="Call at most this share of real images fake.  [default: 0.01]")
@click.option("--misses", type=RATE, help="Call at most this share of fake images real.  [default: 0.05]")
@click.option(
    "--degrade",
    default=400,
    show_default=True,
    type=click.IntRange(0),
    help="How many images of a split to degrade and score again: for robustness, the bias probe and stability.",
)
def evaluate(
    run_folder: Path | None,
    models: tuple[Path, ...],
    weights: list[float] | None,
    records: Path,
    skip_corrupt: bool,
    splits: tuple[str, ...],
    hold_out: str | None,
    regression: Path | None,
    false_alarms: float | None,
    misses: float | None,
    degrade: int,
) -> dict:
    """Measure a run, or several as one, on the labelled splits of the records.

    Fake is the positive class. Each split gets a folder evaluation/<split> inside the run, with report.html and
    report.pdf to read, all numbers with their 95% intervals in metrics.json, predictions.csv (one row per image), and
    the figures as PNG.

    A verdict is real, fake, or unsure between two limits. They are fitted on validation when the run is trained, so
    that few reals are called fake and few fakes real; --false-alarms and --misses fit them anew, for this run and all
    that is done with it from then on.

    Several --model are measured as an ensemble: the weighted mean of their calibrated logits, with an operating point
    of its own, fitted on validation if all were trained on these records. It is kept, with its reports, in
    artifacts/ensembles/A+B, which ddk predict --model takes.

    Images that were collected with ddk errors --feedback are measured on their own, as the split regression. Nothing
    is fitted on them. Those that are still wrong are listed in metrics.json, under feedback.

    \b
    Examples:
      ddk evaluate
      ddk evaluate --split validation --run artifacts/runs/xception-20260131-120000
      ddk evaluate --false-alarms 0.001 --degrade 0
      ddk evaluate --model artifacts/runs/a --model artifacts/runs/b --weights 2,1
    """
    check_detector(run_folder, models, weights, fewest=1)  # of one alone `compose` has more to say
    console.load_tensorflow()
    from ddkeras.evaluation.evaluate import measure
    from ddkeras.runs.ensemble import compose
    from ddkeras.runs.run import EVALUATION, open_run

    run = compose(models, weights, Path(console.ENSEMBLES)) if models else open_run(run_folder or console.LATEST_RUN)
    rates = {name: rate for name, rate in (("false_alarms", false_alarms), ("misses", misses)) if rate is not None}
    with (
        opened_records(records, skip_corrupt=skip_corrupt) as opened,
        _regression(regression, splits, hold_out, run.categories) as opened_regression,
    ):
        run = run.save() if models else run  # what the records are refused for changes nothing
        found = measure(
            run,
            opened,
            splits,
            tell=functools.partial(click.echo, err=True),
            progress=progress_bar,
            hold_out=hold_out,
            rates=rates,
            degrade=degrade,
            audit=_audit(opened),
            regression=opened_regression,
        )
    told = {"ensemble": str(run.folder)} if models else {}
    return {"folder": str(run.folder / EVALUATION), **told, "splits": found}


@contextlib.contextmanager
def _regression(
    folder: Path | None, splits: tuple[str, ...], hold_out: str | None, categories: list[str]
) -> Iterator["Records | None"]:
    """The regression set, opened, if it is to be measured."""
    from pipelines.datasets.examples import REGRESSION
    from pipelines.records import conversion, regression_set

    place = folder or Path(console.REGRESSION)
    is_asked_for = folder is not None or REGRESSION in splits
    if not is_asked_for and (splits or hold_out or not regression_set.is_at(place)):
        yield None
        return
    with silence_stderr():
        conversion.start_workers()
    with regression_set.opened(place, categories) as opened:
        yield opened


def _audit(records: "Records") -> "AuditSummary | None":
    """What `ddk audit` said of these records, or of the folder they were made of, if it was asked."""
    from ddkeras.reporting.model_card import AuditSummary

    if not AUDIT.is_file():
        return None
    said = json.loads(AUDIT.read_text())
    made_of = json.loads((records.folder / "records.json").read_text())["source"]
    is_theirs = said.get("fingerprint") == records.fingerprint or Path(said["data"]).resolve() == Path(made_of)
    return AuditSummary(said["verdict"], said["meaning"]) if is_theirs else None
