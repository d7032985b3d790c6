"""`ddk export`."""

import functools
from pathlib import Path
from typing import Any, get_args

import click

from ddkeras import api
from ddkeras.cli import console
from ddkeras.cli.environment import load_tensorflow
from ddkeras.cli.options import run_option
from ddkeras.cli.stderr import silence_stderr
from ddkeras.progress import progress_bar


def _format_result(result: dict[str, Any]) -> str:
    if "saved_model" not in result:
        return f"Model in {result['model']}\nNext: ddk predict --run {result['model']} PATH..."
    return f"SavedModel in {result['saved_model']}\nNext: ddk serve {result['model_base_path']}"


@console.command("export", format_result=_format_result)
@run_option
@click.option(
    "--to",
    "form",
    default="savedmodel",
    show_default=True,
    type=click.Choice(get_args(api.ExportFormat)),
    help="Format of the model.",
)
@click.option(
    "--records",
    default=api.RECORDS,
    show_default=True,
    type=click.Path(path_type=Path),
    help="For litert-int8: records whose training images the rounding is learned on.",
)
@click.option(
    "--output",
    default=api.EXPORTS,
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder for all exports.",
)
def export(run_folder: Path, form: api.ExportFormat, records: Path, output: Path) -> dict[str, Any]:
    """Export a run as a SavedModel, LiteRT or ONNX.

    A SavedModel is for TensorFlow Serving or ddk serve. Its signature serving_default takes image_bytes, a batch of
    encoded image files; the signature images takes pixels. Both return fake_probability, verdict, logit and, when the
    run has categories, category and category_probabilities. Decoding, resizing, calibration and thresholds are
    inside, so that a served score equals that of ddk predict. An image that cannot be decoded has the verdict error;
    the others in its batch are scored.

    LiteRT and ONNX models contain the same, except for decoding and resizing: they take pixels. litert and onnx score
    as the run does; litert-float16 does almost, at half the size; litert-int8 takes less than a third of it, and a
    minute or more to learn its rounding on training images. Measure these two before you use them; see
    docs/export.md. ONNX needs the extra "ddkeras[onnx]", litert-int8 "ddkeras[litert]".

    Each export of a run gets the next version number, with labels.txt, model_card.json and SHA256SUMS.

    \b
    Examples:
      ddk export
      ddk export --run artifacts/runs/xception-20260131-120000
      ddk export --to onnx
      ddk export --to litert-int8 --records artifacts/records
    """
    load_tensorflow()
    from ddkeras.runs.run import open_run

    run = open_run(run_folder)
    console.note(f"loading {run.name}, and tracing its graph")
    with silence_stderr() as stderr:
        progress = functools.partial(progress_bar, file=stderr)
        folder = api.export(run, form, output=output, records=records, progress=progress)
    if form == "savedmodel":
        return {"saved_model": str(folder), "model_base_path": str(folder.parent)}
    return {"model": str(folder)}
