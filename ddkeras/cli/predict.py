"""`ddk predict`."""

from pathlib import Path

import click

from ddkeras.cli import console
from ddkeras.errors import ConfigError


def _show(result: dict) -> str:
    lines = []
    if single := result.get("prediction"):
        lines.append(_sentence(single))
        lines += [f"Provenance: {single['provenance']}"] if single["provenance"] else []
    called = ", ".join(f"{number} {verdict}" for verdict, number in result["verdicts"].items())
    lines.append(f"{result['images']} images ({called or 'no verdict'}), {result['errors']} with an error")
    lines.append(f"Scores in {result['output']}")
    lines += [f"Frames of videos in {result['videos']}"] if "videos" in result else []
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
    default="artifacts/predictions.csv",
    show_default=True,
    type=click.Path(path_type=Path),
    help="The CSV file to write.",
)
@click.option(
    "--fps",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0, 60, min_open=True),
    help="How many frames of a video to score a second.",
)
def predict(paths: tuple[Path, ...], run_folder: Path | None, model: Path | None, output: Path, fps: float) -> dict:
    """Score image files, and all images in folders, with a trained run or what was exported of one.

    Writes a CSV with path, fake_probability, verdict, category, category_probability, error, provenance. A file that
    cannot be read is a row with its error. A single image is also answered in one line.

    The provenance is what a file says of its own origin, by a C2PA manifest (with the extra "ddkeras[provenance]") or
    by tags. It has no part in the score.

    A video that is named has one row as well, and its frames over time as a figure and a CSV beside the output; those
    in folders are passed over. It needs the extra "ddkeras[video]".

    An export that was changed since it was written is refused, and no code that lies in a model is run. LiteRT needs
    the extra "ddkeras[litert]", ONNX "ddkeras[onnx]".

    \b
    Examples:
      ddk predict photo.jpg
      ddk predict inbox/ more/*.png --output scores.csv
      ddk predict clip.mp4 --fps 5
      ddk predict inbox/ --model artifacts/export/xception-20260131-120000-onnx
    """
    from pipelines.layouts import find_images
    from pipelines.video import is_video

    if run_folder and model:
        raise ConfigError("--run and --model are both given; leave out one")
    files = find_images(paths)
    console.load_tensorflow()
    from ddkeras import prediction
    from ddkeras.runs import open_run
    from ddkeras.scorers import of_run, open_scorer

    with console.without_chatter():
        scorer = open_scorer(model) if model else of_run(open_run(run_folder or console.LATEST_RUN))
    told = {"output": str(output), "run": scorer.name, **({"model": str(model)} if model else {})}
    with console.progress("scoring") as progress:
        predictions = prediction.predict(scorer, files)
        if any(map(is_video, paths)):
            from ddkeras import video

            told["videos"] = f"{output.with_suffix('')}-videos"
            predictions = video.predict(scorer, files, fps=fps, folder=Path(told["videos"]))
        summary = prediction.write_csv(output, predictions, total=len(files), progress=progress)
    return {**told, **summary}
