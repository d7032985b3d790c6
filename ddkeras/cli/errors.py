"""`ddk errors`."""

import dataclasses
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ddkeras import api
from ddkeras.cli import console
from ddkeras.cli.environment import load_tensorflow
from ddkeras.cli.options import REGRESSION_SET, run_option
from ddkeras.exceptions import ConfigError
from ddkeras.progress import progress_bar
from pipelines.wording import count_of

_FOLDER = Path("artifacts/errors")


def _format_result(result: dict[str, Any]) -> str:
    return _format_feedback(result) if "added" in result else _format_errors(result)


def _format_errors(result: dict[str, Any]) -> str:
    lines = [f"{result['run']} on {result['split']}, {count_of(result['images'], 'image')}:"]
    for kind, number in result["mistakes"].items():
        shown = result["shown"][kind]
        lines.append(f"  {kind}: {number}" + (f", of which {shown} are shown" if shown < number else ""))
    if not any(result["mistakes"].values()):
        lines.append("  no verdict and no category is wrong")
    if result["unsure"]:
        lines.append(f"  {result['unsure']} are unsure, which is not an error")
    lines += [f"note: {note}" for note in result["notes"]]
    lines.append(f"See {result['folder']}/index.html; a row for each is in {result['folder']}/errors.csv")
    lines.append("Next: ddk errors --feedback DIR, with images under their correct labels")
    return "\n".join(lines)


def _format_feedback(result: dict[str, Any]) -> str:
    lines = [f"note: {note}" for note in result["notes"]]
    lines += [f"left out {file['path']}: {file['reason']}" for file in result["quarantined"]]
    lines += [
        f"corrected {image['path']}: it was {image['was']}, and is {image['now']}" for image in result["corrected"]
    ]
    added = count_of(result["added"], "image")
    lines.append(f"{added} added, {len(result['corrected'])} corrected, {result['unchanged']} there before")
    labels = ", ".join(f"{number} {name}" for name, number in result["labels"].items())
    lines.append(f"{count_of(result['images'], 'image')} ({labels}) in {result['folder']}. Next: ddk evaluate")
    return "\n".join(lines)


@console.command("errors", format_result=_format_result)
@run_option
@click.option(
    "--split",
    default="validation",
    show_default=True,
    help="Split, as named in the run's folder: evaluation/SPLIT.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder of the images.  [default: the folder that the records were made from]",
)
@click.option(
    "--records",
    default=api.RECORDS,
    show_default=True,
    type=click.Path(path_type=Path),
    help="Records that supply images whose files are gone.",
)
@click.option("--limit", type=click.IntRange(1), help="Maximum number of each kind.  [default: all]")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help=f"Folder to write.  [default: {_FOLDER}/RUN/SPLIT]",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing folder.")
@click.option(
    "--feedback",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Instead of showing errors, add the images in DIR to the regression set.",
)
@click.option(
    "--regression",
    default=REGRESSION_SET,
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder of the regression set.",
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
) -> dict[str, Any]:
    """Show misclassified images, or collect corrected ones.

    Evaluate the split first. Its misclassified images become a folder to browse, of links to the files, the most
    confident errors first:

    \b
      real-called-fake/001_0.987_photo.jpg    a real image called fake, with a confidence of 98.7%
      fake-called-real/                       fakes called real
      wrong-category/                         whatever the verdict
      errors.csv, index.html                  all of them as a table; the first of each kind as a page

    Unsure is not an error. A link still leads to the same file after it is moved. Where a file is gone, the image is
    written from the records.

    --feedback adds images to the regression set: errors that people found, by browsing the above or in production.
    DIR is laid out like data for make-tfrecords, such as DIR/real/animals/NAME, DIR/fake/NAME; links are followed,
    files copied. An image that is in the set already gets the new label. From then on `ddk evaluate` evaluates every
    run on the set, too, and lists which of its images are still wrong.

    \b
    Examples:
      ddk errors
      ddk errors --split test --limit 50
      ddk errors --run artifacts/runs/xception-20260131-120000 --data /mnt/photos
      mkdir -p feedback/fake && mv artifacts/errors/RUN/validation/fake-called-real/00* feedback/fake
      ddk errors --feedback feedback && ddk evaluate
    """
    if feedback is not None:
        _refuse_with_feedback("split", "data", "records", "limit", "output", "overwrite")
    load_tensorflow()
    from ddkeras.evaluation import error_analysis
    from ddkeras.runs.run import open_run
    from pipelines.datasets.examples import REGRESSION
    from pipelines.records import regression_set

    run = open_run(run_folder)
    if feedback is not None:
        with progress_bar("checking") as progress:
            return dict(regression_set.add(regression, feedback, classes=run.categories, progress=progress))
    errors = error_analysis.collect(
        run,
        split,
        output or _FOLDER / run.name / split,
        data=regression if split == REGRESSION and data is None else data,
        records=records,
        limit=limit,
        overwrite=overwrite,
    )
    return dataclasses.asdict(errors)


def _refuse_with_feedback(*names: str) -> None:
    context = click.get_current_context()
    for name in names:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise ConfigError(f"--{name} is for showing errors and does not apply with --feedback; leave out one")
