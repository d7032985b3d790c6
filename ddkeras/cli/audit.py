"""`ddk audit`."""

import json
from collections import Counter
from pathlib import Path

import click

from ddkeras.cli import console
from ddkeras.cli.progress import progress_bar

_MARKER = "audit.json"  # says that the folder is ours to replace
_QUESTIONS = {"label": "fake or real", "category": "category"}


def _show(result: dict) -> str:
    lines = [f"{result['verdict'].upper()}: {result['meaning']}"]
    lines += [f"  {found['verdict']}: {found['text']}; {found['remedy']}" for found in result["findings"]]
    lines += [f"note: {note}" for note in result["notes"]]
    lines.append(f"shortcuts: AUC (95% interval) of classifiers that see no pixel, on {result['sampled']} images")
    lines += [f"  {line}" for line in _shortcut_lines(result["shortcuts"])]
    pairs = {kind: sum(found["images"].values()) for kind, found in result["leaks"].items() if kind != "flat"}
    lines += [
        "leaks:",
        f"  across splits: {pairs['exact_across_splits']} byte for byte, {pairs['near_across_splits']} nearly",
        f"  under both labels: {pairs['exact_across_labels']}",
        f"  fakes beside the photo they were made from, which is no leak: {pairs['near_across_labels']}",
    ]
    lines.append("balance:")
    lines += [f"  {line}" for line in _balance_lines(result["balance"]["counts"])]
    lines.append(f"See {result['folder']}/audit.html; all numbers are in {result['folder']}/audit.json")
    return "\n".join(lines)


def _shortcut_lines(rows: list[dict]) -> list[str]:
    lines = {}
    for row in rows:
        question = _QUESTIONS[row["target"]] + (f" in {row['within']}" if row["within"] else "")
        if row["auc"] is None:
            lines[question] = "too few images to say"
            continue
        told = f"{row['group']} {row['auc']:.3f}"
        if row["group"] == "file":
            told += f" ({row['low']:.3f} to {row['high']:.3f}) {row['verdict']}"
        lines[question] = f"{lines[question]}, {told}" if question in lines else told
    return [f"{question}: {told}" for question, told in lines.items()]


def _balance_lines(counts: list[dict]) -> list[str]:
    lines = []
    for split in dict.fromkeys(row["split"] for row in counts):
        numbers = Counter()
        for what in ("label", "category"):  # the labels first
            for row in counts:
                numbers[row[what]] += row["images"] if row["split"] == split else 0
        named = [f"{number} {name}" for name, number in numbers.items() if name and number]
        lines.append(f"{split}: {', '.join(named)}")
    return lines


@console.command("audit", show=_show)
@click.argument("path", default=console.RECORDS, type=click.Path(path_type=Path))
@click.option(
    "--warn",
    default=0.6,
    show_default=True,
    type=click.FloatRange(0.5, 1),
    help="AUC of a classifier that sees no pixel, above which it is a warning.",
)
@click.option(
    "--fail",
    default=0.75,
    show_default=True,
    type=click.FloatRange(0.5, 1),
    help="The same, above which the audit fails. 1 never does.",
)
@click.option(
    "--output",
    default="artifacts/audit",
    show_default=True,
    type=click.Path(path_type=Path),
    help="The folder to write audit.json and audit.html to.",
)
@click.option("--workers", type=click.IntRange(1), help="Processes.  [default: one per core]")
def audit(path: Path, warn: float, fail: float, output: Path, workers: int | None) -> dict:
    """Look for what would make a detector good for a wrong reason.

    PATH is a data folder as make-tfrecords reads it, or a folder of records.

    \b
    Shortcuts  can fake be told from real, or the category, by the files alone: format, compression, size, metadata,
               names? A classifier that never sees a pixel is cross-validated, overall and in each class.
    Leaks      do images occur in two splits, or under both labels, byte for byte or nearly the same?
    Balance    how many images there are of each split, label, class and source.

    Writes audit.json with all numbers and audit.html to read. When the audit fails, by a shortcut or because files
    are labelled both real and fake or more than 5% of a split leak from another, the exit code is 1.

    \b
    Examples:
      ddk audit data/
      ddk audit --fail 0.9 --json
    """
    from ddkeras.reporting.audit_report import page
    from pipelines import atomic
    from pipelines.audit.report import judge, scan_folder, scan_records, thumbnails
    from pipelines.datasets.layouts import read_layout
    from pipelines.records.store import MANIFEST, open_records

    if path == Path(console.RECORDS) or (path / MANIFEST).is_file():
        console.load_tensorflow()
        data, read = open_records(path), scan_records
    else:
        data, read = read_layout(path), scan_folder
    with progress_bar("looking") as progress:
        seen = read(data, workers=workers, progress=progress)
    with progress_bar("judging") as progress:
        result = judge(seen, warn=warn, fail=fail, progress=progress)
    with atomic.folder(output, marker=_MARKER) as partial:
        (partial / _MARKER).write_text(json.dumps(result, indent=2) + "\n")
        text = page(result, thumbnails(seen, result))
        (partial / "audit.html").write_text(text, encoding="utf-8", errors="replace")
    if result["verdict"] == "fail":
        worst = result["findings"][0]
        click.get_current_context().call_on_close(lambda: _fail(f"{worst['text']}; {worst['remedy']}"))
    return {"folder": str(output), **result}


def _fail(message: str) -> None:
    """End with exit code 1; on closing, so that the result, on which scripts rely too, has been printed before."""
    raise click.ClickException(message)
