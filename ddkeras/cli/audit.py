"""`ddk audit`."""

from collections import Counter
from pathlib import Path
from typing import Any

import click

from ddkeras import api
from ddkeras.cli import console
from ddkeras.cli.environment import load_tensorflow
from ddkeras.cli.options import data_options

_MARKER = "audit.json"  # in every folder that this command may replace
_TARGETS = {"label": "fake or real", "category": "category"}


def _format_result(result: dict[str, Any]) -> str:
    lines = [f"{result['verdict'].upper()}: {result['meaning']}"]
    lines += [f"  {finding['verdict']}: {finding['text']}; {finding['remedy']}" for finding in result["findings"]]
    lines += [f"note: {note}" for note in result["notes"]]
    lines.append(f"shortcuts: AUC (95% interval) of classifiers that see no pixels, on {result['sampled']} images")
    lines += [f"  {line}" for line in _format_shortcuts(result["shortcuts"])]
    lines += _format_views(result["views"])
    images = {kind: sum(leak["images"].values()) for kind, leak in result["leaks"].items() if kind != "flat"}
    lines += [
        "leaks:",
        f"  across splits: {images['exact_across_splits']} byte for byte, {images['near_across_splits']} nearly",
        f"  under both labels: {images['exact_across_labels']}",
        f"  fakes beside the photo they were made from, which is not a leak: {images['near_across_labels']}",
    ]
    lines.append("balance:")
    lines += [f"  {line}" for line in _format_balance(result["balance"]["counts"])]
    lines.append(f"See {result['folder']}/audit.html; all numbers are in {result['folder']}/audit.json")
    return "\n".join(lines)


def _format_shortcuts(rows: list[dict[str, Any]]) -> list[str]:
    lines: dict[str, str] = {}
    for row in rows:
        target = _TARGETS[row["target"]] + (f" in {row['within']}" if row["within"] else "")
        if row["auc"] is None:
            lines[target] = "too few images to say"
            continue
        auc = f"{row['group']} {row['auc']:.3f}"
        if row["group"] == "file":
            auc += f" ({row['low']:.3f} to {row['high']:.3f}) {row['verdict']}"
        lines[target] = f"{lines[target]}, {auc}" if target in lines else auc
    return [f"{target}: {text}" for target, text in lines.items()]


def _format_views(views: dict[str, Any]) -> list[str]:
    from pipelines.audit.shortcuts import format_auc
    from pipelines.audit.views import format_shrinking

    lines = [f"view: {views['suggestion'] or 'none'}; {views['reason']}"]
    if views["images"]:
        says = "too few images to say" if views["auc"] is None else f"{format_auc(views)} {views['verdict']}"
        lines.append(f"  squash would make {format_shrinking(views)}")
        lines.append(f"  fake or real by this alone: {says}")
    return lines


def _format_balance(counts: list[dict[str, Any]]) -> list[str]:
    lines = []
    for split in dict.fromkeys(row["split"] for row in counts):
        images: Counter[str] = Counter()
        for column in ("label", "category"):
            for row in counts:
                images[row[column]] += row["images"] if row["split"] == split else 0
        listed = [f"{number} {name}" for name, number in images.items() if name and number]
        lines.append(f"{split}: {', '.join(listed)}")
    return lines


@console.command("audit", format_result=_format_result)
@click.argument("path", default=api.RECORDS, type=click.Path(path_type=Path))
@click.option(
    "--image-size",
    default=224,
    show_default=True,
    type=int,
    help="Height and width of the network's input that you intend, in pixels; see ddk fit --image-size.",
)
@click.option(
    "--warn",
    default=0.6,
    show_default=True,
    type=click.FloatRange(0.5, 1),
    help="Warn above this AUC of a classifier that sees no pixels.",
)
@click.option(
    "--fail",
    default=0.75,
    show_default=True,
    type=click.FloatRange(0.5, 1),
    help="Fail above this AUC; 1 never fails.",
)
@click.option(
    "--output",
    default="artifacts/audit",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder for audit.json and audit.html.",
)
@data_options
@click.option("--workers", type=click.IntRange(1), help="Number of processes.  [default: one per core]")
def audit(path: Path, output: Path, **options: Any) -> dict[str, Any]:
    """Look for shortcuts, leaks and imbalance in data, and suggest a view of its images.

    Any of these lets a detector score well for the wrong reason. PATH is a data folder, laid out as for
    make-tfrecords, or a folder of records.

    \b
    Shortcuts  can real and fake, or the categories, be told apart by the files alone: format, compression, size,
               metadata, names? A classifier that never sees a pixel is cross-validated, overall and per category.
    View       how far would scaling whole images to the network's input, the view squash, shrink those of each
               label? Can real and fake be told apart by that? Or would the view windows, never scaled, suit them?
    Leaks      do any images occur in two splits, or under both labels, byte for byte or as near-duplicates?
    Balance    how many images are there of each split, label, category and source?

    Writes audit.json with all numbers and audit.html to read. The exit code is 1 when the audit fails: because of a
    shortcut, of files labelled both real and fake, or when more than 5% of a split leaks from another.

    \b
    Examples:
      ddk audit data/
      ddk audit --fail 0.9 --json
    """
    from pipelines import atomic
    from pipelines.records.store import MANIFEST

    atomic.check_folder(output, marker=_MARKER)
    data: api.AnyRecords = path
    if path == Path(api.RECORDS) or (path / MANIFEST).is_file():
        load_tensorflow()
        data = api.open_records(path)
    report = api.audit(data, **options, progress=True)
    with atomic.folder(output, marker=_MARKER) as partial:
        report.report(partial)
    if report.verdict == "fail":
        worst = report.findings[0]
        console.fail_after_result(f"{worst['text']}; {worst['remedy']}")
    return {"folder": str(output), **report.result}
