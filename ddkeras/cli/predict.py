"""`ddk predict`."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddkeras import api
from ddkeras.cli import console
from ddkeras.cli.environment import load_tensorflow
from ddkeras.cli.options import LATEST_RUN, check_weights, detector_options
from ddkeras.cli.stderr import exclusive_progress_bar, silence_stderr
from ddkeras.exceptions import ConfigError
from ddkeras.inference import writers
from pipelines.wording import count_of

if TYPE_CHECKING:
    from ddkeras.inference.prediction import Prediction
    from ddkeras.inference.scorers import ImageScorer
    from pipelines.media.faces import FaceFinder

_OUTPUT = "artifacts/predictions.csv"


def _format_result(result: dict[str, Any]) -> str:
    lines = []
    if single := result.get("prediction"):
        lines.append(_format_single(single))
        lines += [f"Provenance: {single['provenance']}"] if single["provenance"] else []
    if "output" in result:
        verdicts = ", ".join(f"{number} {verdict}" for verdict, number in result["verdicts"].items())
        empty = ", and so without a label" if result["errors"] and result["format"] != "scores" else ""
        images = count_of(result["images"], "image")
        lines.append(f"{images} ({verdicts or 'no verdict'}), {result['errors']} with an error{empty}")
        lines.append(f"Scores in {result['output']}")
    lines += [f"Frames of videos in {result['videos']}"] if "videos" in result else []
    return "\n".join(lines)


def _format_single(row: dict[str, Any]) -> str:
    if row["error"]:
        return f"{row['path']}: not scored, {row['error']}"
    category = f", {row['category']} ({row['category_probability']:.1%})" if row["category"] else ""
    shift = "" if row["score_shift"] is None else f", which re-encoding changes by {row['score_shift']:.1%}"
    spread = "" if row["spread"] is None else f", with a spread of {row['spread']:.1%} over its views"
    score = f"{row['path']}: {row['verdict']}, fake with probability {row['fake_probability']:.1%}"
    reason = f"; unsure because {row['reason']}" if row["reason"] else ""
    return f"{score}{shift}{spread}{category}{reason}"


@console.command("predict", format_result=_format_result)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@detector_options(
    "Folder of a run, an export or an ensemble, or the model file in it: model.keras, model.onnx, model.tflite. "
    "Several score as an ensemble."
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help=f"File to write, as .csv, .jsonl or .parquet.  [default: {_OUTPUT}; none for a single image]",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(writers.FORMATS),
    default="scores",
    show_default=True,
    help="Columns: all; or image_path, label (0 real, 1 fake) and class, as in the ArtiFact data sets, without or "
    "with confidences.",
)
@click.option(
    "--fps",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0, 60, min_open=True),
    help="Frames of a video to score per second.",
)
@click.option(
    "--faces",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="ONNX file of the face detector YuNet: in videos, score each face instead of whole frames.",
)
@click.option(
    "--stability",
    is_flag=True,
    help="Score each image also as JPEG 95, JPEG 90 and WebP 90. The column score_shift is the largest change of its "
    "probability; a verdict that flips becomes unsure. Takes about four times as long. Not for videos.",
)
@click.option(
    "--test-augment",
    metavar="N",
    cls=console.Option,
    formerly="--tta",
    type=click.IntRange(2, api.MAX_VIEWS),
    help=f"Test-time augmentation: average the logit over N views of each image, 2 to {api.MAX_VIEWS}: unchanged, "
    "flipped, cropped, re-encoded. The column spread is the standard deviation of their probabilities. Takes about "
    "N times as long. Not for videos.",
)
@click.option("--resume", is_flag=True, help="Continue an unfinished output.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output, finished or not.")
def predict(
    paths: tuple[Path, ...],
    detectors: tuple[Path, ...],
    ensemble_weights: list[float] | None,
    output: Path | None,
    form: str,
    fps: float,
    faces: Path | None,
    stability: bool,
    test_augment: int | None,
    resume: bool,
    overwrite: bool,
) -> dict[str, Any]:
    """Score images with a run or an export.

    PATHs are image files or folders of images. Writes one row per image: path, fake_probability, verdict (real, fake
    or unsure), reason (of an image with too few pixels for a verdict), predicted_category, category_probability, the
    probability of each category, score_shift, spread, error, provenance. An unreadable file is a row with its error;
    where no file could be scored, the exit code is 1. In folders, files that begin as images do are images, whatever
    their suffix. A single image is answered in one line, and written to a file only with --output.

    The output appears when it is complete. Ctrl-C stops after the current batch; --resume continues from there, even
    after a kill, and the output is byte for byte the same as without the interruption. See docs/predicting.md.

    The provenance is what a file says about its own origin, in a C2PA manifest (with the extra "ddkeras[provenance]")
    or in tags. It does not influence the score. In .jsonl and .parquet, provenance_fields has it as values as well:
    manifest, integrity, signer, trust, certificate, specification, digitalSourceType, tool, ingredients, gainMap,
    motionPhoto.

    A video given by name has one row as well, and its scores over time as a figure and a CSV file beside the output;
    videos in folders are only counted. It needs the extra "ddkeras[video]", and "ddkeras[faces]" with --faces;
    docs/video.md says where to get the face detector.

    Several --run form an ensemble: the weighted mean of their calibrated logits, of their category probabilities,
    and of their thresholds. ddk evaluate measures an ensemble of runs, fits thresholds of its own, and stores it in
    artifacts/ensembles.

    An export that was modified after it was written is rejected, and no code in a model is ever run. LiteRT needs the
    extra "ddkeras[litert]", ONNX "ddkeras[onnx]", .parquet "ddkeras[parquet]".

    \b
    Examples:
      ddk predict photo.jpg
      ddk predict inbox/ more/*.png --output scores.parquet
      ddk predict inbox/ more/*.png --output scores.parquet --resume
      ddk predict clip.mp4 --fps 5
      ddk predict clip.mp4 --faces face_detection_yunet_2023mar.onnx
      ddk predict inbox/ --stability
      ddk predict inbox/ --test-augment 7
      ddk predict inbox/ --run artifacts/export/xception-20260131-120000-onnx
      ddk predict inbox/ --run artifacts/runs/a --run artifacts/runs/b --ensemble-weights 2,1
      ddk predict test/ --format artifact --output submission.csv
    """
    from pipelines.datasets.layouts import find_image_names
    from pipelines.media import manifest
    from pipelines.media.video import is_video

    check_weights(detectors, ensemble_weights)
    api.check_views(stability=stability, tta=test_augment)
    if stability and form != "scores":
        raise ConfigError(f"--format {form} has no place for --stability; leave out one")
    videos = [path for path in paths if is_video(path)]
    finder = _face_finder(faces, videos) if faces else None
    is_single = len(paths) == 1 and not paths[0].is_dir() and not videos
    is_written = output or resume or overwrite or form != "scores" or not is_single
    output = output or Path(_OUTPUT)
    curves = output.with_name(f"{output.stem}-videos")
    if is_written:
        writers.check(output, resume=resume, overwrite=overwrite)
    if videos:
        _check_curves(curves, resume=resume, overwrite=overwrite)
    files = [] if resume else find_image_names(paths)
    manifest.prepare()
    load_tensorflow()
    from ddkeras.inference import prediction

    scorer = _open_scorer(detectors, ensemble_weights)
    predictions = api.predict_files(scorer, files, stability=stability, tta=test_augment)
    result: dict[str, Any] = {"run": scorer.name, **({"model": ", ".join(map(str, detectors))} if detectors else {})}
    if not is_written:
        (row,) = predictions
        if row.error:
            console.fail_after_result(f"{row.path} could not be scored: {row.error}")
        return result | {"images": 1, "errors": int(bool(row.error)), "prediction": dataclasses.asdict(row)}
    score, sampling = _score_function(predictions, videos, fps, finder, curves, clear_curves=not resume)
    settings = {
        "paths": ", ".join(map(str, paths)),
        **({} if all(path.is_absolute() for path in paths) else {"working folder": os.getcwd()}),
        "format": form,
        **({"videos": sampling} if videos else {}),
        "each image": f"in {test_augment} views" if test_augment else "re-encoded, too" if stability else "as it is",
        "model": f"{scorer.name} ({scorer.digest[:12]})",
        "batches of": prediction.batch_size(scorer, predictions.views),
    }
    summary = writers.write(
        output,
        score,
        files,
        columns=writers.columns(form, scorer.categories),
        settings=settings,
        resume=resume,
        overwrite=overwrite,
        progress=lambda: exclusive_progress_bar("scoring", "images"),
    )
    if summary["errors"] == summary["images"]:
        console.fail_after_result(f"no image could be scored; {output} says why, for each")
    if videos and curves.is_dir():  # there is none where each video has an error
        result["videos"] = str(curves)
    return {"output": str(output), "format": form, **result, **summary}


def _check_curves(folder: Path, *, resume: bool, overwrite: bool) -> None:
    if folder.exists() and not (folder.is_dir() and (resume or overwrite)):
        remedy = "replace it with --overwrite, or name another output" if folder.is_dir() else "name another output"
        raise ConfigError(f"{folder}, where the frames of videos would be, exists; {remedy} with --output")


def _open_scorer(detectors: tuple[Path, ...], weights: list[float] | None) -> "ImageScorer":
    from ddkeras.inference import scorers
    from ddkeras.runs.run import open_run

    if not detectors:
        run = open_run(LATEST_RUN)
        console.note(f"loading {run.name}")
        with silence_stderr():
            return scorers.scorer_for_run(run)
    console.note(f"loading {', '.join(map(str, detectors))}")
    with silence_stderr():
        members = [scorers.open_scorer(detector) for detector in detectors]
    return members[0] if len(members) == 1 else scorers.combine_scorers(members, weights)


def _face_finder(faces: Path, videos: list[Path]) -> "FaceFinder":
    from pipelines.media.faces import FaceFinder

    if not videos:
        raise ConfigError("--faces is for videos, and none is named; leave it out")
    return FaceFinder(faces)


def _score_function(
    predictions: api.Predictions,
    videos: list[Path],
    fps: float,
    finder: "FaceFinder | None",
    folder: Path,
    *,
    clear_curves: bool,
) -> tuple[Callable[[Iterable[str]], Iterable[list["Prediction"]]], str]:
    """What scores batches of files, and how it samples videos, which must not change when an output is resumed."""
    from ddkeras.inference import prediction

    scorer, views = predictions.scorer, predictions.views
    if not videos:
        return functools.partial(prediction.predict_batches, scorer, views=views), ""
    from ddkeras.inference import video

    sampling, curves = video.Sampling(fps, finder), video.curve_paths(videos, folder)

    def score(files: Iterable[str]) -> Iterator[list["Prediction"]]:
        if clear_curves:  # only once the table has been started
            video.remove_curves(folder)
        return video.predict_batches(scorer, files, sampling=sampling, curves=curves, views=views)

    return score, str(sampling)
