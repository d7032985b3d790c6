"""`ddk export`."""

from pathlib import Path

import click

from ddkeras.cli import console


def _show(result: dict) -> str:
    return f"SavedModel in {result['saved_model']}\nNext: ddk serve {result['model_base_path']}"


@console.command("export", show=_show)
@click.option("--run", "run_folder", default=console.LATEST_RUN, show_default=True, type=click.Path(path_type=Path))
@click.option(
    "--output", default=console.EXPORTS, show_default=True, type=click.Path(path_type=Path), help="Where exports go."
)
def export(run_folder: Path, output: Path) -> dict:
    """Export a run as a SavedModel that TensorFlow Serving loads.

    Its signature serving_default takes image_bytes, a batch of encoded image files; the signature images takes
    pixels. Both return fake_probability, verdict, logit and, when the run has categories, category and
    category_probabilities. Decoding, resizing, calibration and limits are inside, so that a served score equals that
    of ddk predict. An image that cannot be decoded has the verdict error, and the others their scores.

    Each export of a run gets the next version number, with labels.txt, model_card.json, SHA256SUMS, and the requests
    that TensorFlow Serving warms up with.

    \b
    Examples:
      ddk export
      ddk export --run artifacts/runs/xception-20260131-120000
    """
    console.load_tensorflow()
    from ddkeras.export import export_saved_model
    from ddkeras.runs import open_run

    folder = export_saved_model(open_run(run_folder), output)
    return {"saved_model": str(folder), "model_base_path": str(folder.parent)}
