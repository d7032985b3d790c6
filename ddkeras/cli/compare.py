"""`ddk compare`."""

from pathlib import Path

import click

from ddkeras.cli import console


def _show(result: dict) -> str:
    lines = [f"{result['examples']} images of {result['split']}; a: {result['a']}, b: {result['b']}"]
    for name, found in result["measures"].items():
        a, b, difference = (found[which] for which in ("a", "b", "difference"))
        if difference["value"] is None:
            lines.append(f"  {name:20} cannot be had")
            continue
        interval = f"{difference['value']:+.4f} ({difference['low']:+.4f} to {difference['high']:+.4f})"
        lines.append(
            f"  {name:20} {a['value']:.4f}  {b['value']:.4f}  {interval}{'' if found['differs'] else ', may be luck'}"
        )
    lines.append(
        f"{result['fixed']} images are right in b alone, {result['regressed']} in a alone: {result['output']}"
    )
    return "\n".join(lines)


@console.command("compare", show=_show)
@click.argument("a", metavar="RUN_A", type=click.Path(path_type=Path))
@click.argument("b", metavar="RUN_B", type=click.Path(path_type=Path))
@click.option("--split", default="validation", show_default=True)
@click.option(
    "--output",
    default="artifacts/comparison.csv",
    show_default=True,
    type=click.Path(path_type=Path),
    help="The CSV file to write, of the images on which their verdicts differ in being right.",
)
def compare(a: Path, b: Path, split: str, output: Path) -> dict:
    """Compare two runs on the same images.

    Tells each measure of both, and the difference with its 95% interval: paired, so that it is narrower than the
    intervals of the two alone. Both have to be evaluated before.

    \b
    Examples:
      ddk compare artifacts/runs/xception-20260131-120000 artifacts/runs/latest
      ddk compare artifacts/runs/a artifacts/runs/b --split test --output changed.csv
    """
    console.load_tensorflow()
    from ddkeras.evaluation import comparison
    from ddkeras.runs.run import open_run
    from pipelines import atomic

    runs = [open_run(folder) for folder in (a, b)]
    compared = comparison.compare(*(comparison.stored_predictions(run, split) for run in runs))
    with atomic.file(output) as partial:
        compared.changed.to_csv(partial, index=False, errors="surrogateescape")
    return {"split": split, "a": runs[0].name, "b": runs[1].name, **compared.to_dict(), "output": str(output)}
