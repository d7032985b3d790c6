"""Scoring videos: frames are scored like images, and aggregated into one prediction and a curve over time."""

import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import tensorflow as tf
from keras import tree
from scipy.special import log_expit, logsumexp

from ddkeras.inference import prediction
from ddkeras.inference.prediction import Prediction, predictions_from, unsure_if_small, with_provenance
from ddkeras.inference.scorers import ImageScorer, Outputs, apply_operating_point
from ddkeras.inference.views import ORIGINAL, Views
from ddkeras.metrics.calibration import VERDICTS
from ddkeras.reporting import figures
from pipelines import atomic
from pipelines.media.faces import FaceFinder
from pipelines.media.headers import UnreadableError
from pipelines.media.provenance import provenance_of
from pipelines.media.video import require_library, sample_frames
from pipelines.views import Pixels, stack
from pipelines.wording import count_of


@dataclass(frozen=True)
class Sampling:
    """Which parts of a video are scored.

    Args:
        fps: the maximum number of frames per second.
        finder: detects the faces to crop and score; None scores whole frames.
    """

    fps: float
    finder: FaceFinder | None = None

    def __str__(self) -> str:
        target = f"the faces in them ({self.finder.digest[:12]})" if self.finder else "whole"
        return f"at {self.fps:g} frames a second, {target}"


@dataclass(frozen=True)
class Curve:
    """The scores of n frames of a video, or of n faces in them, over time.

    Args:
        seconds: (n,), time since the first frame.
        scores: see `ImageScorer.score_images`.
        frames: the number of sampled frames, also those without a face.
        squares: (n, 3), the position of each face: left, top and side in pixels; None for whole frames.
        sides: (n,), the shorter side of each frame, or the side of each face, in pixels.
    """

    seconds: np.ndarray
    scores: Outputs
    frames: int
    squares: np.ndarray | None = None
    sides: np.ndarray | None = None

    @property
    def verdicts(self) -> list[str]:
        """The verdict of each frame or face: real, fake or unsure."""
        return [VERDICTS[int(verdict)] for verdict in self.scores["verdict"]]


def aggregate_logits(logits: np.ndarray) -> float:
    """Logit of the mean probability of the most fake-looking third of the frames, at least three.

    A manipulation that fills a third of the frames counts in full, while the mean over all frames would dilute it.
    Single outliers, such as blurred frames, cannot dominate as they would a maximum.

    Args:
        logits: calibrated logits of the fake class, (n,), n >= 1.
    """
    count = max(3, -(-len(logits) // 3))
    top = np.sort(logits.astype(np.float64))[-count:]
    # logit(mean(p)) = log(sum(p) / sum(1 - p)), computed in log space as p may round to 1.
    return float(logsumexp(log_expit(top)) - logsumexp(log_expit(-top)))


def score_frames(scorer: ImageScorer, path: Path, sampling: Sampling) -> Curve:
    """Score the frames of a video, or the faces in them, in constant memory.

    Raises:
        UnreadableError: see `pipelines.media.video.sample_frames`; or no frame shows a face.
    """
    frames = 0

    def seen(image: np.ndarray) -> list[Pixels]:
        return [
            tree.map_structure(lambda values: values.numpy(), view.of_image(tf.constant(image)))
            for view in scorer.views
        ]

    def crops() -> Iterator[tuple[float, tuple[int, int, int] | None, int, list[Pixels]]]:
        """Time, position, shorter side and the views of each face, or of each whole frame."""
        nonlocal frames
        for frame in sample_frames(path, fps=sampling.fps):
            frames += 1
            if sampling.finder is None:
                side = min(frame.image.shape[:2])
                yield frame.seconds, None, side, seen(frame.image)
                continue
            for face in sampling.finder.faces(frame.image):
                yield frame.seconds, face[:3], face.side, seen(face.image)

    seconds: list[float] = []
    squares: list[tuple[int, int, int] | None] = []
    sides: list[int] = []
    batches: list[Outputs] = []
    remaining = crops()
    while batch := list(islice(remaining, scorer.batch)):
        batch_seconds, batch_squares, batch_sides, images = zip(*batch, strict=True)
        seconds += batch_seconds
        squares += batch_squares
        sides += batch_sides
        by_view = zip(scorer.views, zip(*images, strict=True), strict=True)
        batches.append(scorer.score_images({view: stack(pixels) for view, pixels in by_view}))
    if not batches:
        raise UnreadableError(f"no face in any of {count_of(frames, 'frame')}")
    scores = {name: np.concatenate([outputs[name] for outputs in batches]) for name in batches[0]}
    scores["verdict"] = np.where(np.array(sides) < scorer.min_side, VERDICTS.index("unsure"), scores["verdict"])
    found = np.array(squares) if sampling.finder else None
    return Curve(np.array(seconds), scores, frames, found, np.array(sides))


def summarize(path: Path, curve: Curve, scorer: ImageScorer) -> Prediction:
    """The prediction for a whole video: `aggregate_logits` over the curve, and the mean category probabilities.

    Frames or faces that are too small for a verdict count only if all are; then the video is unsure.
    """
    largest = scorer.min_side if curve.sides is None else int(curve.sides.max())
    scores = curve.scores
    if curve.sides is not None and largest >= scorer.min_side:
        scores = {name: values[curve.sides >= scorer.min_side] for name, values in scores.items()}
    temperature = scorer.point.temperature
    logit = np.array([temperature * aggregate_logits(scores["logit"] / temperature)], np.float32)
    probabilities = None
    if scorer.categories:
        probabilities = scores["category_probabilities"].mean(axis=0, keepdims=True)
    outputs = apply_operating_point(scorer, logit, probabilities)
    prediction = predictions_from(outputs, [path], scorer.categories)[0]
    return unsure_if_small(prediction, largest, scorer.min_side)


def curve_paths(videos: Sequence[Path], folder: Path) -> dict[str, Path]:
    """A distinct path in `folder` for the curve of each video, without the suffixes .csv and .png.

    Raises:
        DataError: the library that reads videos is not installed.
    """
    counts: Counter[str] = Counter()
    paths = {}
    for video in dict.fromkeys(videos):
        require_library(video)
        name = atomic.shorten(video.name)
        counts[name] += 1
        paths[os.fspath(video)] = folder / (name if counts[name] == 1 else f"{name}-{counts[name]}")
    return paths


def remove_curves(folder: Path) -> None:
    """Remove the curves that an earlier command wrote."""
    for path in [*folder.glob("*.csv"), *folder.glob("*.png")]:
        path.unlink()


def predict_batches(
    scorer: ImageScorer,
    files: Iterable[str],
    *,
    sampling: Sampling,
    curves: Mapping[str, Path],
    views: Views = ORIGINAL,
) -> Iterator[list[Prediction]]:
    """Score images, as `prediction.predict_batches` does, and videos among them, in the order given.

    Args:
        sampling: which parts of videos are scored.
        curves: where to write the curve of each video, see `curve_paths`; all other files are images.
        views: which views of images are scored; frames are scored unmodified.

    Yields:
        One Prediction per file. A video that cannot be read has an `error`, and no curve.
    """
    for is_video, group in groupby(files, curves.__contains__):
        if is_video:
            yield from ([_predict_video(scorer, Path(path), sampling, curves[path])] for path in group)
        else:
            yield from prediction.predict_batches(scorer, group, views=views)


def _predict_video(scorer: ImageScorer, path: Path, sampling: Sampling, curve_path: Path) -> Prediction:
    provenance = provenance_of(path)
    try:
        curve = score_frames(scorer, path, sampling)
    except UnreadableError as error:
        return with_provenance(Prediction(os.fspath(path), error=str(error)), provenance)
    overall = summarize(path, curve, scorer)
    write_curve(curve_path, curve, overall)
    return with_provenance(overall, provenance)


def write_curve(path: Path, curve: Curve, overall: Prediction) -> None:
    """Write the score of each frame or face to `path` + `.csv`, and plot it to `path` + `.png`."""
    probabilities = curve.scores["fake_probability"]
    columns: dict[str, Iterable] = {"seconds": [f"{seconds:.3f}" for seconds in curve.seconds]}
    if curve.squares is not None:
        columns |= dict(zip(("left", "top", "side"), curve.squares.T, strict=True))
    columns |= {"logit": curve.scores["logit"], "fake_probability": probabilities, "verdict": curve.verdicts}
    with (
        atomic.file(path.with_name(f"{path.name}.csv")) as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    frames = count_of(curve.frames, "frame")
    counted = frames if curve.squares is None else f"{count_of(len(probabilities), 'face')} in {frames}"
    assert overall.verdict is not None
    assert overall.fake_probability is not None
    answer = (overall.verdict, overall.fake_probability)
    with atomic.file(path.with_name(f"{path.name}.png")) as partial:
        figures.write_curve(
            partial, path.name, f"n = {counted}", curve.seconds, probabilities, curve.verdicts, answer
        )
