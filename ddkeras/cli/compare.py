"""`ddk compare`."""

from pathlib import Path
from typing import Any

import click

from ddkeras.cli import console
from ddkeras.cli.environment import load_tensorflow
from pipelines.wording import count_of


def _format_result(result: dict[str, Any]) -> str:
    lines = [f"{count_of(result['examples'], 'image')} of {result['split']}; a: {result['a']}, b: {result['b']}"]
    for name, measure in result["measures"].items():
        a, b, difference = (measure[key] for key in ("a", "b", "difference"))
        if difference["value"] is None:
            lines.append(f"  {name:20} undefined")
            continue
        interval = "no interval"
        if difference["low"] is not None:
            interval = f"{difference['low']:+.4f} to {difference['high']:+.4f}"
        doubt = "" if measure["differs"] else f", {difference.get('reason', 'may be chance')}"
        values = f"{a['value']:.4f}  {b['value']:.4f}  {difference['value']:+.4f}"
        lines.append(f"  {name:20} {values} ({interval}){doubt}")
    lines.append(
        f"{count_of(result['fixed'], 'image')} right only in b, {result['regressed']} only in a: {result['output']}"
    )
    return "\n".join(lines)


@console.command("compare", format_result=_format_result)
@click.argument("a", metavar="RUN_A", type=click.Path(path_type=Path))
@click.argument("b", metavar="RUN_B", type=click.Path(path_type=Path))
@click.option("--split", default="validation", show_default=True, help="Split to compare on.")
@click.option(
    "--output",
    default="artifacts/comparison.csv",
    show_default=True,
    type=click.Path(path_type=Path),
    help="CSV file for the images that only one of the two classifies correctly.",
)
def compare(a: Path, b: Path, split: str, output: Path) -> dict[str, Any]:
    """Compare two runs on the same images.

    Prints each measure of both runs, and the difference with its 95% interval. The comparison is paired, so this
    interval is narrower than those of the two runs. Evaluate both runs first.

    \b
    Examples:
      ddk compare artifacts/runs/xception-20260131-120000 artifacts/runs/latest
      ddk compare artifacts/runs/a artifacts/runs/b --split test --output changed.csv
    """
    load_tensorflow()
    from ddkeras.evaluation import comparison
    from ddkeras.runs.run import open_run
    from pipelines import atomic
    from pipelines.spreadsheets import harmless_table

    atomic.check_place(output)
    runs = [open_run(folder) for folder in (a, b)]
    compared = comparison.compare(*(comparison.stored_predictions(run, split) for run in runs))
    with atomic.file(output) as partial:
        harmless_table(compared.changed).to_csv(partial, index=False, errors="surrogateescape")
    return {"split": split, "a": runs[0].name, "b": runs[1].name, **compared.to_dict(), "output": str(output)}
