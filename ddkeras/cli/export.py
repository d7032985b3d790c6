"""`ddk export`."""

from pathlib import Path

import click

from ddkeras.cli import console
from ddkeras.cli.options import run_option
from ddkeras.cli.progress import progress_bar, silence_stderr

_FORMATS = ("savedmodel", "litert", "litert-float16", "litert-int8", "onnx")


def _show(result: dict) -> str:
    if "saved_model" not in result:
        return f"Model in {result['model']}\nNext: ddk predict --model {result['model']} PATH..."
    return f"SavedModel in {result['saved_model']}\nNext: ddk serve {result['model_base_path']}"


@console.command("export", show=_show)
@run_option
@click.option("--to", "form", default=_FORMATS[0], show_default=True, type=click.Choice(_FORMATS), help="The format.")
@click.option(
    "--records",
    default=console.RECORDS,
    show_default=True,
    type=click.Path(path_type=Path),
    help="For litert-int8: the training images that its rounding is learnt from.",
)
@click.option(
    "--output", default=console.EXPORTS, show_default=True, type=click.Path(path_type=Path), help="Where exports go."
)
def export(run_folder: Path, form: str, records: Path, output: Path) -> dict:
    """Export a run as a SavedModel that TensorFlow Serving loads, or as LiteRT or ONNX.

    The SavedModel's signature serving_default takes image_bytes, a batch of encoded image files; the signature images
    takes pixels. Both return fake_probability, verdict, logit and, when the run has categories, category and
    category_probabilities. Decoding, resizing, calibration and limits are inside, so that a served score equals that
    of ddk predict. An image that cannot be decoded has the verdict error, and the others their scores.

    LiteRT and ONNX hold the same less decoding and resizing: they take pixels. litert and onnx score as the run does,
    litert-float16 nearly so in half the bytes, litert-int8 in less than a third of them, after a minute or more in
    which it learns from training images how to round. Measure these before you use them, see docs/export.md. ONNX
    needs the extra "ddkeras[onnx]", litert-int8 "ddkeras[litert]".

    Each export of a run gets the next version number, with labels.txt, model_card.json and SHA256SUMS.

    \b
    Examples:
      ddk export
      ddk export --run artifacts/runs/xception-20260131-120000
      ddk export --to onnx
      ddk export --to litert-int8 --records artifacts/records
    """
    console.load_tensorflow()
    from ddkeras.exporting import litert, onnx, saved_model
    from ddkeras.runs.run import open_run
    from pipelines.records.store import open_records

    run = open_run(run_folder)
    if form == "savedmodel":
        folder = saved_model.export_saved_model(run, output)
        return {"saved_model": str(folder), "model_base_path": str(folder.parent)}
    if form == "onnx":
        with silence_stderr():
            return {"model": str(onnx.export_onnx(run, output))}
    precision = form.partition("-")[2] or "float32"
    if precision != "int8":
        with silence_stderr():
            return {"model": str(litert.export_litert(run, output, precision=precision))}
    opened = open_records(records)
    with silence_stderr() as spoken, progress_bar("rounding", file=spoken) as progress:
        made = litert.export_litert(run, output, precision=precision, records=opened, progress=progress)
    return {"model": str(made)}
