"""`ddk explain`."""

from pathlib import Path
from typing import Any, get_args

import click

from ddkeras import api
from ddkeras.cli import console
from ddkeras.cli.environment import load_tensorflow
from ddkeras.cli.options import run_option
from ddkeras.cli.stderr import silence_stderr
from pipelines.wording import count_of


def _format_result(result: dict[str, Any]) -> str:
    lines = []
    if single := result.get("explanation"):
        lines.append(_format_single(single, result["output"]))
    explained = ", ".join(f"{number} for {name}" for name, number in result["explained"].items())
    lines.append(
        f"{count_of(result['images'], 'image')} ({explained or 'none explained'}), {result['errors']} with an error"
    )
    if result["sheet"]:
        lines.append(f"See {result['sheet']}")
    lines.append(f"Pictures and scores in {result['output']}")
    return "\n".join(lines)


def _format_single(row: dict[str, Any], folder: str) -> str:
    if row["error"]:
        return f"{row['path']}: not explained, {row['error']}"
    return (
        f"{row['path']}: {row['verdict']}, fake with probability {row['fake_probability']:.1%}; evidence for "
        f"{row['explained']}: {folder}/{row['picture']}"
    )


@console.command("explain", format_result=_format_result)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@run_option
@click.option(
    "--method",
    type=click.Choice(get_args(api.ExplanationMethod)),
    default="gradcam",
    show_default=True,
    help="occlusion covers 81 patches of the image one after another: slow, and a check on the other two.",
)
@click.option(
    "--head",
    type=click.Choice(get_args(api.ExplainedHead)),
    default="authenticity",
    show_default=True,
    help="Head to explain: the verdict or the category.",
)
@click.option("--category", help="With --head category: the category to explain.  [default: the predicted one]")
@click.option(
    "--output",
    default="artifacts/explanations",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder for the pictures, explanations.csv and sheet.png.",
)
@click.option("--overwrite", is_flag=True, help="Replace existing explanations.")
def explain(
    paths: tuple[Path, ...],
    run_folder: Path,
    method: api.ExplanationMethod,
    head: api.ExplainedHead,
    category: str | None,
    output: Path,
    overwrite: bool,
) -> dict[str, Any]:
    """Show which parts of images a score depends on.

    PATHs are image files or folders of images. Writes one picture per image: on the left what the network sees, on
    the right the same in grey, with the evidence for the prediction in colour. Where no image could be explained, the
    exit code is 1.

    \b
    Orange  evidence for fake, where the verdict is fake
    Blue    evidence for real, where the verdict is real
    Violet  evidence for the category, with --head category

    Where the verdict is unsure, the more probable label is explained. Each image has its own scale: the strongest
    colour marks the strongest evidence in that image, however weak it is. Scores, and the error of each unreadable
    image, are in explanations.csv; for several images, sheet.png shows up to 24 at a glance.

    A map shows what the score depends on. It does not prove what is fake in an image; see docs/explaining.md.

    \b
    Examples:
      ddk explain photo.jpg
      ddk explain inbox/ --method occlusion --output artifacts/occlusions
      ddk explain inbox/ --head category --category animals --overwrite
    """
    from pipelines.datasets.layouts import find_images

    api.check_explanation(method, head, category)
    files = find_images(paths)
    load_tensorflow()
    from ddkeras.explanation import overlays
    from ddkeras.explanation.explainer import load_explainer
    from ddkeras.runs.run import open_run

    run = open_run(run_folder)
    console.note(f"loading {run.name}")
    with silence_stderr():
        explanations = api.Explanations(load_explainer(run), files, method, head, category)
    summary = explanations.save(output, overwrite=overwrite, progress=True)
    if summary["errors"] == summary["images"]:
        console.fail_after_result(f"no image could be explained; {output / overlays.TABLE} says why, for each")
    sheet = str(output / overlays.SHEET) if summary["on_sheet"] else None
    return {"output": str(output), "sheet": sheet, "run": run.name, "method": method, "head": head, **summary}
