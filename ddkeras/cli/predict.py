"""`ddk predict`."""

import dataclasses
import os
from pathlib import Path

import click

from ddkeras import prediction_table as table
from ddkeras.cli import console
from ddkeras.errors import ConfigError

_OUTPUT = "artifacts/predictions.csv"


def _show(result: dict) -> str:
    lines = []
    if single := result.get("prediction"):
        lines.append(_sentence(single))
    if "output" in result:
        called = ", ".join(f"{number} {verdict}" for verdict, number in result["verdicts"].items())
        empty = ", and so without a label" if result["errors"] and result["format"] != "scores" else ""
        lines.append(f"{result['images']} images ({called or 'no verdict'}), {result['errors']} with an error{empty}")
        lines.append(f"Scores in {result['output']}")
    return "\n".join(lines)


def _sentence(row: dict) -> str:
    if row["error"]:
        return f"{row['path']}: not scored, {row['error']}"
    category = f", {row['category']} ({row['category_probability']:.1%})" if row["category"] else ""
    return f"{row['path']}: {row['verdict']}, fake with probability {row['fake_probability']:.1%}{category}"


@console.command("predict", show=_show)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--run", "run_folder", type=click.Path(path_type=Path), help=f"[default: {console.LATEST_RUN}]")
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="In place of a run: an export's folder, its model.onnx or model.tflite, or a run's model.keras.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help=f"The file to write; its suffix says how: .csv, .jsonl or .parquet.  [default: {_OUTPUT}; for a single "
    "image none]",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(table.FORMATS),
    default="scores",
    show_default=True,
    help="Which columns: all that is known; or image_path, label (0 real, 1 fake) and class, as the ArtiFact data "
    "sets list images, without or with confidences.",
)
@click.option("--resume", is_flag=True, help="Go on with an output that was begun and stopped.")
@click.option("--overwrite", is_flag=True, help="Replace an output that is there, finished or not.")
def predict(
    paths: tuple[Path, ...],
    run_folder: Path | None,
    model: Path | None,
    output: Path | None,
    form: str,
    resume: bool,
    overwrite: bool,
) -> dict:
    """Score image files, and all images in folders, with a trained run or what was exported of one.

    Writes a row for each image: path, fake_probability, verdict (real, fake or unsure), category,
    category_probability, the probability of each category, error. A file that cannot be read is a row with its error.
    A single image is answered in one line, and written only where --output says.

    The output appears when it is complete. Ctrl-C stops after the images that are being scored; --resume goes on from
    there, also after the process was killed, and the output is the same to the byte as if nothing had been. See
    docs/predicting.md.

    An export that was changed since it was written is refused, and no code that lies in a model is run. LiteRT needs
    the extra "ddkeras[litert]", ONNX "ddkeras[onnx]", .parquet "ddkeras[parquet]".

    \b
    Examples:
      ddk predict photo.jpg
      ddk predict inbox/ more/*.png --output scores.parquet
      ddk predict inbox/ more/*.png --output scores.parquet --resume
      ddk predict inbox/ --model artifacts/export/xception-20260131-120000-onnx
      ddk predict test/ --format artifact --output submission.csv
    """
    from pipelines.layouts import find_image_names

    if run_folder and model:
        raise ConfigError("--run and --model are both given; leave out one")
    is_single = len(paths) == 1 and not paths[0].is_dir()
    is_written = output or resume or overwrite or form != "scores" or not is_single
    output = output or Path(_OUTPUT)
    if is_written:
        table.check(output, resume=resume, overwrite=overwrite)
    files = [] if resume else find_image_names(paths)
    console.load_tensorflow()
    from ddkeras import prediction
    from ddkeras.runs import open_run
    from ddkeras.scorers import of_run, open_scorer

    with console.without_chatter():
        scorer = open_scorer(model) if model else of_run(open_run(run_folder or console.LATEST_RUN))
    told = {"run": scorer.name, **({"model": str(model)} if model else {})}
    if not is_written:
        (one,) = prediction.predict(scorer, files)
        return told | {"images": 1, "errors": int(bool(one.error)), "prediction": dataclasses.asdict(one)}
    begun_with = {
        "paths": ", ".join(os.path.abspath(path) for path in paths),
        "format": form,
        "model": f"{scorer.name} ({scorer.digest[:12]})",
        "batches of": prediction.batch_size(scorer),
    }
    summary = table.write(
        output,
        lambda files: prediction.predict_batches(scorer, files),
        files,
        columns=table.columns(form, scorer.categories),
        begun_with=begun_with,
        resume=resume,
        progress=lambda: console.progress_alone("scoring", "images"),
    )
    return {"output": str(output), "format": form, **told, **summary}
