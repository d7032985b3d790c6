"""`ddk predict`."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddkeras.cli import console
from ddkeras.cli.options import check_detector, detector_options
from ddkeras.cli.progress import lone_progress_bar, silence_stderr
from ddkeras.exceptions import ConfigError
from ddkeras.inference import writers as table

if TYPE_CHECKING:
    from ddkeras.inference import scorers, views
    from ddkeras.inference.prediction import Prediction
    from pipelines.media.faces import FaceFinder

_OUTPUT = "artifacts/predictions.csv"
_VIEWS = 10  # that `ddkeras.inference.tta` has of an image


def _show(result: dict) -> str:
    lines = []
    if single := result.get("prediction"):
        lines.append(_sentence(single))
        lines += [f"Provenance: {single['provenance']}"] if single["provenance"] else []
    if "output" in result:
        called = ", ".join(f"{number} {verdict}" for verdict, number in result["verdicts"].items())
        empty = ", and so without a label" if result["errors"] and result["format"] != "scores" else ""
        lines.append(f"{result['images']} images ({called or 'no verdict'}), {result['errors']} with an error{empty}")
        lines.append(f"Scores in {result['output']}")
    lines += [f"Frames of videos in {result['videos']}"] if "videos" in result else []
    return "\n".join(lines)


def _sentence(row: dict) -> str:
    if row["error"]:
        return f"{row['path']}: not scored, {row['error']}"
    category = f", {row['category']} ({row['category_probability']:.1%})" if row["category"] else ""
    moves = "" if row["stability"] is None else f", which re-encoding moves by {row['stability']:.1%}"
    spread = "" if row["spread"] is None else f", with a spread of {row['spread']:.1%} over its views"
    said = f"{row['path']}: {row['verdict']}, fake with probability {row['fake_probability']:.1%}"
    return f"{said}{moves}{spread}{category}"


@console.command("predict", show=_show)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@detector_options(
    "In place of a run: an export's folder, its model.onnx or model.tflite, a run's model.keras, or an ensemble's "
    "folder. Can be repeated: several answer together."
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
@click.option(
    "--fps",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0, 60, min_open=True),
    help="How many frames of a video to score a second.",
)
@click.option(
    "--faces",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The ONNX file of YuNet, which finds faces: in videos these are scored, each cut out, in place of frames.",
)
@click.option(
    "--stability",
    "is_with_stability",
    is_flag=True,
    help="Score each image also as JPEG 95, JPEG 90 and WebP 90: how far its probability moves is the column "
    "stability, and a verdict that flips becomes unsure. Takes about four times as long. Not of videos.",
)
@click.option(
    "--tta",
    metavar="N",
    type=click.IntRange(2, _VIEWS),
    help=f"Score each image in N views, 2 to {_VIEWS}: as it is, mirrored, cropped, re-encoded. The answer is that "
    "of their mean logit, and how far they lie apart is the column spread. Takes about N times as long. Not of "
    "videos.",
)
@click.option("--resume", is_flag=True, help="Go on with an output that was begun and stopped.")
@click.option("--overwrite", is_flag=True, help="Replace an output that is there, finished or not.")
def predict(
    paths: tuple[Path, ...],
    run_folder: Path | None,
    models: tuple[Path, ...],
    weights: list[float] | None,
    output: Path | None,
    form: str,
    fps: float,
    faces: Path | None,
    is_with_stability: bool,
    tta: int | None,
    resume: bool,
    overwrite: bool,
) -> dict:
    """Score image files, and all images in folders, with a trained run or what was exported of one.

    Writes a row for each image: path, fake_probability, verdict (real, fake or unsure), category,
    category_probability, the probability of each category, stability, spread, error, provenance. A file that cannot
    be read is a row with its error. A single image is answered in one line, and written only where --output says.

    The output appears when it is complete. Ctrl-C stops after the images that are being scored; --resume goes on from
    there, also after the process was killed, and the output is the same to the byte as if nothing had been. See
    docs/predicting.md.

    The provenance is what a file says of its own origin, by a C2PA manifest (with the extra "ddkeras[provenance]") or
    by tags. It has no part in the score.

    A video that is named has one row as well, and its frames over time as a figure and a CSV beside the output; those
    in folders are passed over. It needs the extra "ddkeras[video]", and "ddkeras[faces]" with --faces; docs/video.md
    tells where to get the detector.

    Several --model are an ensemble: the weighted mean of their calibrated logits and of their probabilities of each
    category, and of their limits. ddk evaluate measures one of runs, fits limits of its own, and keeps it in
    artifacts/ensembles.

    An export that was changed since it was written is refused, and no code that lies in a model is run. LiteRT needs
    the extra "ddkeras[litert]", ONNX "ddkeras[onnx]", .parquet "ddkeras[parquet]".

    \b
    Examples:
      ddk predict photo.jpg
      ddk predict inbox/ more/*.png --output scores.parquet
      ddk predict inbox/ more/*.png --output scores.parquet --resume
      ddk predict clip.mp4 --fps 5
      ddk predict clip.mp4 --faces face_detection_yunet_2023mar.onnx
      ddk predict inbox/ --stability
      ddk predict inbox/ --tta 7
      ddk predict inbox/ --model artifacts/export/xception-20260131-120000-onnx
      ddk predict inbox/ --model artifacts/runs/a --model artifacts/runs/b --weights 2,1
      ddk predict test/ --format artifact --output submission.csv
    """
    from pipelines.datasets.layouts import find_image_names
    from pipelines.media import provenance
    from pipelines.media.video import is_video

    check_detector(run_folder, models, weights, fewest=2)
    _check(form, is_with_stability, tta)
    videos = [path for path in paths if is_video(path)]
    finder = _finder(faces, videos) if faces else None
    is_single = len(paths) == 1 and not paths[0].is_dir() and not videos
    is_written = output or resume or overwrite or form != "scores" or not is_single
    output = output or Path(_OUTPUT)
    curves = output.with_name(f"{output.stem}-videos")
    if is_written:
        table.check(output, resume=resume, overwrite=overwrite)
    if videos:
        _check_curves(curves, resume=resume, overwrite=overwrite)
    files = [] if resume else find_image_names(paths)
    provenance.prepare()
    console.load_tensorflow()
    from ddkeras.inference import prediction

    scorer, views = _scorer(run_folder, models, weights), _views(is_with_stability, tta)
    told = {"run": scorer.name, **({"model": ", ".join(map(str, models))} if models else {})}
    if not is_written:
        (one,) = prediction.predict(scorer, files, views=views)
        return told | {"images": 1, "errors": int(bool(one.error)), "prediction": dataclasses.asdict(one)}
    score, of_videos = _scoring(scorer, views, videos, fps, finder, curves, is_anew=not resume)
    begun_with = {
        "paths": ", ".join(map(str, paths)),
        **({} if all(path.is_absolute() for path in paths) else {"working folder": os.getcwd()}),
        "format": form,
        **of_videos,
        "each image": f"in {tta} views" if tta else "re-encoded, too" if is_with_stability else "as it is",
        "model": f"{scorer.name} ({scorer.digest[:12]})",
        "batches of": prediction.batch_size(scorer, views),
    }
    summary = table.write(
        output,
        score,
        files,
        columns=table.columns(form, scorer.categories),
        begun_with=begun_with,
        resume=resume,
        overwrite=overwrite,
        progress=lambda: lone_progress_bar("scoring", "images"),
    )
    if videos and curves.is_dir():  # else each has an error
        told["videos"] = str(curves)
    return {"output": str(output), "format": form, **told, **summary}


def _check(form: str, is_with_stability: bool, tta: int | None) -> None:
    if is_with_stability and form != "scores":
        raise ConfigError(f"--format {form} has no place for --stability; leave out one")
    if is_with_stability and tta:
        raise ConfigError("--stability and --tta are both given; leave out one")


def _check_curves(folder: Path, *, resume: bool, overwrite: bool) -> None:
    if folder.exists() and not (folder.is_dir() and (resume or overwrite)):
        remedy = "replace it with --overwrite, or name another output" if folder.is_dir() else "name another output"
        raise ConfigError(f"{folder}, where the frames of videos would be, exists; {remedy} with --output")


def _scorer(
    run_folder: Path | None, models: tuple[Path, ...], weights: list[float] | None
) -> "scorers.Scorer | scorers.Combined":
    from ddkeras.inference import scorers
    from ddkeras.runs.run import open_run

    with silence_stderr():
        if models:
            members = [scorers.open_scorer(model) for model in models]
        else:
            members = [scorers.of_run(open_run(run_folder or console.LATEST_RUN))]
    if len(members) > 1:
        return scorers.combined(members, weights)
    (alone,) = members
    if not alone.point.fitted:
        click.echo(
            f"{alone.name} has no operating point: probabilities are not calibrated, 0.5 is the limit", err=True
        )
    return alone


def _finder(faces: Path, videos: list[Path]) -> "FaceFinder":
    from pipelines.media.faces import FaceFinder

    if not videos:
        raise ConfigError("--faces is for videos, and none is named; leave it out")
    return FaceFinder(faces)


def _scoring(
    scorer: "scorers.Scorer | scorers.Combined",
    views: "views.Views",
    videos: list[Path],
    fps: float,
    finder: "FaceFinder | None",
    folder: Path,
    *,
    is_anew: bool,
) -> tuple[Callable, dict[str, str]]:
    """What scores files, and what to know of that to go on with it."""
    from ddkeras.inference import prediction

    if not videos:
        return functools.partial(prediction.predict_batches, scorer, views=views), {}
    from ddkeras.inference import video

    sampling, curves = video.Sampling(fps, finder), video.curves(videos, folder)

    def score(files: Iterable[str]) -> Iterator[list["Prediction"]]:
        if is_anew:  # and not before the table is begun
            video.clear(folder)
        return video.predict_batches(scorer, files, sampling=sampling, curves=curves, views=views)

    return score, {"videos": str(sampling)}


def _views(is_with_stability: bool, tta: int | None) -> "views.Views":
    from ddkeras.inference import stability, views
    from ddkeras.inference.tta import in_views

    return in_views(tta) if tta else stability.RE_ENCODED if is_with_stability else views.AS_IS
