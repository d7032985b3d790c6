"""`ddk errors`."""

import dataclasses
from pathlib import Path

import click
from click.core import ParameterSource

from ddkeras.cli import console
from ddkeras.cli.options import run_option
from ddkeras.cli.progress import progress_bar
from ddkeras.exceptions import ConfigError


def _show(result: dict) -> str:
    return _show_added(result) if "added" in result else _show_found(result)


def _show_found(result: dict) -> str:
    lines = [f"{result['run']} on {result['split']}, {result['images']} images:"]
    for kind, number in result["mistakes"].items():
        shown = result["shown"][kind]
        lines.append(f"  {kind}: {number}" + (f", of which {shown} are shown" if shown < number else ""))
    if not any(result["mistakes"].values()):
        lines.append("  no verdict and no category is wrong")
    if result["unsure"]:
        lines.append(f"  {result['unsure']} are unsure, which is no mistake")
    lines += [f"note: {note}" for note in result["notes"]]
    lines.append(f"See {result['folder']}/index.html; a row for each is in {result['folder']}/errors.csv")
    lines.append("Next: ddk errors --feedback DIR, with images under the labels that are right")
    return "\n".join(lines)


def _show_added(result: dict) -> str:
    lines = [f"note: {note}" for note in result["notes"]]
    lines += [f"left out {bad['path']}: {bad['reason']}" for bad in result["quarantined"]]
    lines += [f"corrected {one['path']}: it was {one['was']}, and is {one['now']}" for one in result["corrected"]]
    lines.append(
        f"{result['added']} images added, {len(result['corrected'])} corrected, {result['unchanged']} there before"
    )
    named = ", ".join(f"{number} {name}" for name, number in result["labels"].items())
    lines.append(f"{result['images']} images ({named}) in {result['folder']}. Next: ddk evaluate")
    return "\n".join(lines)


@console.command("errors", show=_show)
@run_option
@click.option(
    "--split", default="validation", show_default=True, help="Which, as in the run's folder evaluation/SPLIT."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Where the images lie.  [default: where the records were made of them]",
)
@click.option(
    "--records",
    default=console.RECORDS,
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where they are taken from, if their files are gone.",
)
@click.option("--limit", type=click.IntRange(1), help="At most so many of each kind.  [default: all]")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="The folder to write.  [default: artifacts/errors/RUN/SPLIT]",
)
@click.option("--overwrite", is_flag=True, help="Replace a folder that was written before.")
@click.option(
    "--feedback",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Instead of all that, add the images in DIR to the regression set.",
)
@click.option(
    "--regression",
    default=console.REGRESSION,
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where the regression set is.",
)
def errors(
    run_folder: Path,
    split: str,
    data: Path | None,
    records: Path,
    limit: int | None,
    output: Path | None,
    overwrite: bool,
    feedback: Path | None,
    regression: Path,
) -> dict:
    """Show what a run is wrong about; or, with --feedback, keep what it has to get right.

    The split has to be evaluated before. Its misclassified images become a folder to look through, of links to the
    files, the most confident mistakes first:

    \b
      real-called-fake/001_0.987_photo.jpg    a real with the verdict fake, of which the run is 98.7% sure
      fake-called-real/                       fakes with the verdict real
      wrong-category/                         whatever the verdict
      errors.csv, index.html                  all of them as a table; the first of each kind as a page

    What is unsure is no mistake. A link can be moved and leads to the same file still. Where a file is gone, the
    image is written out from the records.

    --feedback adds images to the regression set: mistakes whose right label people found, by looking at the above or
    in use. DIR is laid out as data for make-tfrecords, such as DIR/real/animals/NAME, DIR/fake/NAME; links are
    followed, files copied. An image that is in the set already gets the new label. From then on `ddk evaluate`
    measures the set on its own, for this run and all that come, and says which of its images are still wrong.

    \b
    Examples:
      ddk errors
      ddk errors --split test --limit 50
      ddk errors --run artifacts/runs/xception-20260131-120000 --data /mnt/photos
      mkdir -p feedback/fake && mv artifacts/errors/RUN/validation/fake-called-real/00* feedback/fake
      ddk errors --feedback feedback && ddk evaluate
    """
    if feedback is not None:
        _refuse(click.get_current_context(), "split", "data", "records", "limit", "output", "overwrite")
    console.load_tensorflow()
    from ddkeras.evaluation import error_analysis
    from ddkeras.runs.run import open_run
    from pipelines.datasets.examples import REGRESSION
    from pipelines.records import regression_set as regressions

    run = open_run(run_folder)
    if feedback is not None:
        with progress_bar("looking") as progress:
            return regressions.add(regression, feedback, classes=run.categories, progress=progress)
    collected = error_analysis.collect(
        run,
        split,
        output or Path(console.ERRORS) / run.name / split,
        data=regression if split == REGRESSION and data is None else data,
        records=records,
        limit=limit,
        overwrite=overwrite,
    )
    return dataclasses.asdict(collected)


def _refuse(context: click.Context, *names: str) -> None:
    for name in names:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise ConfigError(f"--{name} is for showing mistakes, which --feedback does not; leave out one")
