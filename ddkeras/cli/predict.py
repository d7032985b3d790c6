"""`ddk predict`."""

from pathlib import Path

import click

from ddkeras.cli import console


def _show(result: dict) -> str:
    lines = []
    if single := result.get("prediction"):
        lines.append(_sentence(single))
    called = ", ".join(f"{number} {verdict}" for verdict, number in result["verdicts"].items())
    lines.append(f"{result['images']} images ({called or 'no verdict'}), {result['errors']} with an error")
    lines.append(f"Scores in {result['output']}")
    return "\n".join(lines)


def _sentence(row: dict) -> str:
    if row["error"]:
        return f"{row['path']}: not scored, {row['error']}"
    category = f", {row['category']} ({row['category_probability']:.1%})" if row["category"] else ""
    return f"{row['path']}: {row['verdict']}, fake with probability {row['fake_probability']:.1%}{category}"


@console.command("predict", show=_show)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--run", "run_folder", default=console.LATEST_RUN, show_default=True, type=click.Path(path_type=Path))
@click.option(
    "--output",
    default="artifacts/predictions.csv",
    show_default=True,
    type=click.Path(path_type=Path),
    help="The CSV file to write.",
)
def predict(paths: tuple[Path, ...], run_folder: Path, output: Path) -> dict:
    """Score image files, and all images in folders, with a trained run.

    Writes a CSV with path, fake_probability, verdict, category, category_probability, error. A file that cannot be
    read is a row with its error. A single image is also answered in one line.

    \b
    Examples:
      ddk predict photo.jpg
      ddk predict inbox/ more/*.png --output scores.csv
    """
    from pipelines.layouts import find_images

    files = find_images(paths)
    console.load_tensorflow()
    from ddkeras import prediction
    from ddkeras.runs import open_run

    run = open_run(run_folder)
    with console.progress("scoring") as progress:
        summary = prediction.write_csv(output, prediction.predict(run, files), total=len(files), progress=progress)
    return {"output": str(output), "run": run.name, **summary}
