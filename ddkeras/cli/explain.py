"""`ddk explain`."""

from pathlib import Path

import click

from ddkeras.cli import console
from ddkeras.cli.options import run_option
from ddkeras.cli.progress import progress_bar, silence_stderr
from ddkeras.exceptions import ConfigError


def _show(result: dict) -> str:
    lines = []
    if single := result.get("explanation"):
        lines.append(_sentence(single, result["output"]))
    told = ", ".join(f"{number} for {name}" for name, number in result["explained"].items())
    lines.append(f"{result['images']} images ({told or 'none explained'}), {result['errors']} with an error")
    if result["sheet"]:
        lines.append(f"See {result['sheet']}")
    lines.append(f"Pictures and scores in {result['output']}")
    return "\n".join(lines)


def _sentence(row: dict, folder: str) -> str:
    if row["error"]:
        return f"{row['path']}: not explained, {row['error']}"
    return (
        f"{row['path']}: {row['verdict']}, fake with probability {row['fake_probability']:.1%}; what speaks for "
        f"{row['explained']}: {folder}/{row['picture']}"
    )


@console.command("explain", show=_show)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@run_option
@click.option(
    "--method",
    type=click.Choice(("gradcam", "gradcam++", "occlusion")),
    default="gradcam",
    show_default=True,
    help="occlusion covers 81 patches of the image, one after the other: slow, and a check on the others.",
)
@click.option(
    "--head",
    type=click.Choice(("authenticity", "category")),
    default="authenticity",
    show_default=True,
    help="What is explained: the verdict, or the category.",
)
@click.option("--category", help="With --head category: this one.  [default: the one that is predicted]")
@click.option(
    "--output",
    default="artifacts/explanations",
    show_default=True,
    type=click.Path(path_type=Path),
    help="The folder to write pictures, explanations.csv and sheet.png to.",
)
@click.option("--overwrite", is_flag=True, help="Replace what this command wrote to that folder before.")
def explain(
    paths: tuple[Path, ...],
    run_folder: Path,
    method: str,
    head: str,
    category: str | None,
    output: Path,
    overwrite: bool,
) -> dict:
    """Show where a trained run looked, in image files and all images in folders.

    Writes a picture of each image: on the left as the network sees it, on the right in grey, coloured where it speaks
    for what the model says.

    \b
    Orange  speaks for fake, where the verdict is fake
    Blue    speaks for real, where the verdict is real
    Violet  speaks for the category, with --head category

    Where the verdict is unsure, the label that is more probable is explained. Each image has a scale of its own: the
    strongest colour is where most speaks for it there, however little that is. Scores, and the error of each image
    that cannot be read, are in explanations.csv; of several images sheet.png shows up to 24 at a glance.

    A map tells what the score depends on. It is no proof of what is fake in an image, see docs/explaining.md.

    \b
    Examples:
      ddk explain photo.jpg
      ddk explain inbox/ --method occlusion --output artifacts/occlusions
      ddk explain inbox/ --head category --category animals --overwrite
    """
    from pipelines.datasets.layouts import find_images

    if category and head != "category":
        raise ConfigError(f"--category {category} is of the category head; add --head category")
    files = find_images(paths)
    console.load_tensorflow()
    from ddkeras.explanation import overlays
    from ddkeras.explanation.explainer import Explainer, explain_files
    from ddkeras.runs.run import open_run
    from pipelines import atomic

    if (output / overlays.TABLE).is_file() and not overwrite:
        raise ConfigError(f"{output} holds explanations; give another --output, or --overwrite to replace them")
    run = open_run(run_folder)
    with atomic.folder(output, marker=overlays.TABLE) as partial:
        with silence_stderr():
            explainer = Explainer(run)
        explained = explain_files(explainer, files, method, head=head, category=category)
        title = f"Where {run.name} looked, by {method}"
        with progress_bar("explaining") as progress:
            summary = overlays.write(partial, explained, title, total=len(files), progress=progress)
    sheet = str(output / overlays.SHEET) if summary["on_sheet"] else None
    asked = {"run": run.name, "method": method, "head": head}
    return {"output": str(output), "sheet": sheet, **asked, **summary}
