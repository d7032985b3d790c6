"""`ddk evaluate`."""

from pathlib import Path

import click

from ddkeras.cli import console


def _show(result: dict) -> str:
    lines = []
    for split, numbers in result["splits"].items():
        fake = numbers["authenticity"]
        auc = "undefined (one label only)" if fake["auc"] is None else f"{fake['auc']:.4f}"
        lines.append(
            f"{split} ({numbers['examples']} images): authenticity AUC {auc}, accuracy {fake['accuracy']:.4f}, "
            f"precision {fake['precision']:.4f}, recall {fake['recall']:.4f}, log loss {fake['log_loss']:.4f}"
        )
        category = numbers.get("category")
        if category and category["examples"]:
            lines.append(f"  category accuracy {category['accuracy']:.4f}, macro F1 {category['macro_f1']:.4f}")
    lines.append(f"Reports in {result['folder']}. Next: ddk predict PATH, ddk export")
    return "\n".join(lines)


@console.command("evaluate", show=_show)
@click.option("--run", "run_folder", default=console.LATEST_RUN, show_default=True, type=click.Path(path_type=Path))
@console.records_option
@click.option("--split", "splits", multiple=True, help="Only this split; can be repeated.  [default: all labelled]")
def evaluate(run_folder: Path, records: Path, skip_corrupt: bool, splits: tuple[str, ...]) -> dict:
    """Measure a run on the labelled splits of the records.

    Fake is the positive class. Each split gets a folder evaluation/<split> inside the run, with metrics.json,
    predictions.csv (one row per image), and ROC and confusion matrices as PNG; the loss curves are beside them.
    Numbers on train say how much was memorised; believe those on validation and test.

    \b
    Examples:
      ddk evaluate
      ddk evaluate --split validation --run artifacts/runs/xception-20260131-120000
    """
    console.load_tensorflow()
    from ddkeras import evaluation, report
    from ddkeras.runs import open_run
    from pipelines import atomic

    run = open_run(run_folder)
    with console.opened(records, skip_corrupt=skip_corrupt) as opened:
        reports = evaluation.evaluate(run, opened, list(splits) or opened.labelled_splits)
    folder = run.folder / console.EVALUATION
    for split, found in reports.items():
        with atomic.folder(folder / split, marker="metrics.json") as partial:
            report.write_report(partial, found.metrics, found.predictions)
    with atomic.file(folder / "history.png") as partial:
        report.write_history(partial, run.history())
    return {"folder": str(folder), "splits": {split: found.metrics for split, found in reports.items()}}
