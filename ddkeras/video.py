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

from ddkeras import figures, prediction
from ddkeras.calibration import VERDICTS
from ddkeras.prediction import Prediction, shortest
from ddkeras.scorers import Combined, Scorer
from ddkeras.views import AS_IS, Views
from pipelines import atomic
from pipelines.decoding import resize
from pipelines.headers import UnreadableError
from pipelines.provenance import described
from pipelines.video import require_library, sample


@dataclass(frozen=True)
class Curve:
    """What is said of n frames of a video.

    Args:
        seconds: (n,), since the first.
        scores: as `Scorer.score` gives them, of n images.
    """

    seconds: np.ndarray
    scores: dict[str, np.ndarray]

    @property
    def verdicts(self) -> list[str]:
        """Of each frame: real, fake or unsure."""
        return [VERDICTS[int(verdict)] for verdict in self.scores["verdict"]]


def deciding(logits: np.ndarray) -> int:
    """The frame that speaks for all: in the order of their logits the one five sixths of the way up, rounded down.

    It is the median of the third that looks most fake. So what is fake in little more than a sixth of the frames is
    found, while fewer that are out of line, such as blurred ones, decide nothing however far out they are: a mean
    they would move, and a maximum is one of them. As it is one of the frames, its probability and its verdict are
    those that the network gives at its operating point, in every format of export.

    Args:
        logits: (n,), of fake; n is at least 1.

    Returns:
        Its index.
    """
    return int(np.argsort(logits, kind="stable")[5 * (len(logits) - 1) // 6])


def score(scorer: Scorer | Combined, path: Path, *, fps: float) -> Curve:
    """Score the frames of a video, in constant memory.

    Args:
        fps: at most so many frames a second.

    Raises:
        UnreadableError: as `pipelines.video.sample`.
    """
    seconds, scores = [], []
    frames = (
        (frame.seconds, [resize(frame.image, size).numpy() for size in scorer.sizes])
        for frame in sample(path, fps=fps)
    )
    while batch := list(islice(frames, scorer.batch)):
        times, images = zip(*batch, strict=True)
        seconds += times
        by_size = zip(scorer.sizes, zip(*images, strict=True), strict=True)
        scores.append(scorer.score_sizes({size: np.stack(some) for size, some in by_size}))
    return Curve(np.array(seconds), {name: np.concatenate([one[name] for one in scores]) for name in scores[0]})


def summary(path: Path, curve: Curve, categories: list[str]) -> Prediction:
    """The answer for a video: of the authenticity that of its deciding frame, of the category the mean of all."""
    at = deciding(curve.scores["logit"])
    known = (os.fspath(path), shortest(curve.scores["fake_probability"][at : at + 1])[0], curve.verdicts[at])
    if not categories:
        return Prediction(*known)
    mean = shortest(curve.scores["category_probabilities"].mean(axis=0))
    likeliest = int(np.argmax(mean))
    return Prediction(*known, categories[likeliest], mean[likeliest], dict(zip(categories, mean, strict=True)))


def curves(videos: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Where the curve of each video goes, as CSV and as PNG: below `folder`, each under a name of its own.

    Raises:
        DataError: the library that reads videos is not installed.
    """
    names, found = Counter(), {}
    for path in videos:
        require_library(path)
        name = atomic.short(path.name)
        names[name] += 1
        found[os.fspath(path)] = folder / (name if names[name] == 1 else f"{name}-{names[name]}")
    return found


def predict_batches(
    scorer: Scorer | Combined, files: Iterable[str], *, fps: float, curves: Mapping[str, Path], views: Views = AS_IS
) -> Iterator[list[Prediction]]:
    """Score image files as `prediction.predict_batches` does, and videos among them, in the order given.

    Args:
        fps: at most so many frames of a video a second.
        curves: the videos, and where the curve of each is written; see `curves`.
        views: of images; frames of videos are scored as they are.

    Returns:
        One Prediction for each file; that of a video that cannot be read has an `error`, and there is no curve.
    """
    for is_clip, group in groupby(files, curves.__contains__):
        if is_clip:
            yield from ([_predict_video(scorer, Path(path), fps, curves[path])] for path in group)
        else:
            yield from prediction.predict_batches(scorer, group, views=views)


def _predict_video(scorer: Scorer | Combined, path: Path, fps: float, curve_path: Path) -> Prediction:
    provenance = described(path)
    try:
        curve = score(scorer, path, fps=fps)
    except UnreadableError as error:
        return Prediction(os.fspath(path), error=str(error), provenance=provenance)
    write_curve(curve_path, curve, fps=fps)
    return dataclasses.replace(summary(path, curve, scorer.categories), provenance=provenance)


def write_curve(path: Path, curve: Curve, *, fps: float) -> None:
    """Write what is said of each frame to `path` with `.csv` added, and draw it to `path` with `.png` added."""
    logits, probabilities = curve.scores["logit"], curve.scores["fake_probability"]
    with (
        atomic.file(path.with_name(f"{path.name}.csv")) as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["seconds", "logit", "fake_probability", "verdict"])
        for seconds, *rest in zip(curve.seconds, logits, probabilities, curve.verdicts, strict=True):
            writer.writerow([f"{seconds:.3f}", *rest])
    counted = f"n = {len(logits):,} frames, at most {fps:g} a second"
    with atomic.file(path.with_name(f"{path.name}.png")) as partial:
        figures.write_curve(
            partial, path.name, counted, curve.seconds, probabilities, curve.verdicts, deciding(logits)
        )
