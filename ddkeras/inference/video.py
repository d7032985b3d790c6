"""Scoring videos: frames on the same path as images, one answer for all of them, and the curve it follows from."""

import csv
import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

import numpy as np
from scipy.special import log_expit, logsumexp

from ddkeras.inference import prediction
from ddkeras.inference.prediction import Prediction, shortest
from ddkeras.inference.scorers import ImageScorer
from ddkeras.inference.views import AS_IS, Views
from ddkeras.metrics.calibration import VERDICTS
from ddkeras.reporting import figures
from pipelines import atomic
from pipelines.decoding import resize
from pipelines.media.faces import FaceFinder
from pipelines.media.headers import UnreadableError
from pipelines.media.provenance import format_provenance
from pipelines.media.video import require_library, sample_frames


@dataclass(frozen=True)
class Curve:
    """What is said of n frames of a video, or of n faces in them.

    Args:
        seconds: (n,), since the first frame.
        scores: as `Scorer.score` gives them, of n images.
        frames: how many were looked at.
        squares: (n, 3), of faces: left, top and side in pixels of their frame; None where frames are scored whole.
    """

    seconds: np.ndarray
    scores: dict[str, np.ndarray]
    frames: int
    squares: np.ndarray | None = None

    @property
    def verdicts(self) -> list[str]:
        """Of each frame or face: real, fake or unsure."""
        return [VERDICTS[int(verdict)] for verdict in self.scores["verdict"]]


@dataclass(frozen=True)
class Sampling:
    """What of a video is scored.

    Args:
        fps: at most so many frames a second.
        finder: of the faces that are cut out of them; None for frames as they are.
    """

    fps: float
    finder: FaceFinder | None = None

    def __str__(self) -> str:
        looked_at = f"the faces in them ({self.finder.digest[:12]})" if self.finder else "whole"
        return f"at {self.fps:g} frames a second, {looked_at}"


def aggregate_logits(logits: np.ndarray) -> float:
    """The logit of the mean probability of the third that is most confident of a fake, and of three at least.

    So what is fake in a third of the frames counts in full, where the mean of all would drown it; and single frames
    that are out of line, such as blurred ones, cannot outweigh the others, as each probability is at most 1. A
    maximum would be one of them.

    Args:
        logits: (n,), of fake, calibrated; n is at least 1.
    """
    most = np.sort(logits.astype(np.float64))[-max(3, -(-len(logits) // 3)) :]
    # The logit of mean(p) is log(sum(p) / sum(1 - p)): by logarithms, as a p that is rounded to 1 is past any limit.
    return float(logsumexp(log_expit(most)) - logsumexp(log_expit(-most)))


def score(scorer: ImageScorer, path: Path, sampling: Sampling) -> Curve:
    """Score the frames of a video, or the faces in them, in constant memory.

    Raises:
        UnreadableError: as `pipelines.media.video.sample_frames`, or there is no face in it.
    """
    frames, seconds, squares, scores = 0, [], [], []

    def looks() -> Iterator[tuple[float, tuple[int, ...], list[np.ndarray]]]:
        nonlocal frames
        for frame in sample_frames(path, fps=sampling.fps):
            frames += 1
            faces = [((), frame.image)]
            if sampling.finder:
                faces = [(face[:3], face.image) for face in sampling.finder.faces(frame.image)]
            for square, image in faces:
                yield frame.seconds, square, [resize(image, size).numpy() for size in scorer.sizes]

    every = looks()
    while batch := list(islice(every, scorer.batch)):
        times, places, images = zip(*batch, strict=True)
        seconds += times
        squares += places
        by_size = zip(scorer.sizes, zip(*images, strict=True), strict=True)
        scores.append(scorer.score_sizes({size: np.stack(some) for size, some in by_size}))
    if not scores:
        raise UnreadableError(f"no face in any of its {frames} frames")
    whole = {name: np.concatenate([one[name] for one in scores]) for name in scores[0]}
    return Curve(np.array(seconds), whole, frames, np.array(squares) if sampling.finder else None)


def summary(path: Path, curve: Curve, scorer: ImageScorer) -> Prediction:
    """The answer for a video: what `together` makes of its frames or faces, and the mean category of all."""
    point, categories, means = scorer.point, scorer.categories, None
    logit = np.array([point.temperature * aggregate_logits(curve.scores["logit"] / point.temperature)], np.float32)
    if categories:
        means = curve.scores["category_probabilities"].mean(axis=0, keepdims=True)
    verdict = VERDICTS[int(point.verdicts(logit, means, categories)[0])]
    known = (os.fspath(path), shortest(np.asarray(point.probabilities(logit)))[0], verdict)
    if not categories:
        return Prediction(*known)
    mean = shortest(means[0])
    likeliest = int(np.argmax(mean))
    return Prediction(*known, categories[likeliest], mean[likeliest], dict(zip(categories, mean, strict=True)))


def curves(videos: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Where the curve of each video goes, as CSV and as PNG: below `folder`, each under a name of its own.

    Raises:
        DataError: the library that reads videos is not installed.
    """
    names, found = Counter(), {}
    for path in dict.fromkeys(videos):
        require_library(path)
        name = atomic.shorten(path.name)
        names[name] += 1
        found[os.fspath(path)] = folder / (name if names[name] == 1 else f"{name}-{names[name]}")
    return found


def clear(folder: Path) -> None:
    """Remove the curves of another time."""
    for path in [*folder.glob("*.csv"), *folder.glob("*.png")]:
        path.unlink()


def predict_batches(
    scorer: ImageScorer,
    files: Iterable[str],
    *,
    sampling: Sampling,
    curves: Mapping[str, Path],
    views: Views = AS_IS,
) -> Iterator[list[Prediction]]:
    """Score image files as `prediction.predict_batches` does, and videos among them, in the order given.

    Args:
        sampling: of the videos.
        curves: the videos, and where the curve of each is written; see `curves`.
        views: of images; frames of videos are scored as they are.

    Returns:
        One Prediction for each file; that of a video that cannot be read has an `error`, and there is no curve.
    """
    for is_clip, group in groupby(files, curves.__contains__):
        if is_clip:
            yield from ([_predict_video(scorer, Path(path), sampling, curves[path])] for path in group)
        else:
            yield from prediction.predict_batches(scorer, group, views=views)


def _predict_video(scorer: ImageScorer, path: Path, sampling: Sampling, curve_path: Path) -> Prediction:
    provenance = format_provenance(path)
    try:
        curve = score(scorer, path, sampling)
    except UnreadableError as error:
        return Prediction(os.fspath(path), error=str(error), provenance=provenance)
    answer = summary(path, curve, scorer)
    write_curve(curve_path, curve, answer)
    return dataclasses.replace(answer, provenance=provenance)


def write_curve(path: Path, curve: Curve, answer: Prediction) -> None:
    """Write what is said of each frame or face to `path` with `.csv` added, and draw it to that with `.png` added."""
    probabilities = curve.scores["fake_probability"]
    columns = {"seconds": [f"{seconds:.3f}" for seconds in curve.seconds]}
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
    frames = f"{curve.frames:,} frames"
    counted = frames if curve.squares is None else f"{len(probabilities):,} faces in {frames}"
    said = (answer.verdict, answer.fake_probability)
    with atomic.file(path.with_name(f"{path.name}.png")) as partial:
        figures.write_curve(partial, path.name, f"n = {counted}", curve.seconds, probabilities, curve.verdicts, said)
