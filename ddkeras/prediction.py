"""Scoring image files: one row for each, whatever is wrong with it."""

import csv
import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from ddkeras.calibration import VERDICTS
from ddkeras.scorers import Scorer
from pipelines import atomic
from pipelines.decoding import load_image
from pipelines.headers import UnreadableError
from pipelines.provenance import described


@dataclass(frozen=True)
class Prediction:
    """One image's scores, or why there are none: then `error` says it and the others are None."""

    path: str
    fake_probability: float | None = None
    verdict: str | None = None  # real, fake or unsure
    category: str | None = None
    category_probability: float | None = None
    error: str = ""
    provenance: str = ""  # what the file says of its origin; it has no part in the scores


def predict(scorer: Scorer, paths: Iterable[Path]) -> Iterator[Prediction]:
    """Score image files, in the order given and in constant memory.

    A file that cannot be read or decoded yields a Prediction with its `error`.
    """
    paths = iter(paths)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while batch := list(islice(paths, scorer.batch)):
            loaded = list(pool.map(lambda path: _load(path, scorer.image_size), batch))
            told = pool.map(described, batch)  # while the scorer works
            for prediction, provenance in zip(_predict_batch(scorer, batch, loaded), told, strict=True):
                yield dataclasses.replace(prediction, provenance=provenance)


def write_csv(
    path: Path, predictions: Iterable[Prediction], *, total: int, progress: Callable[[int, int], None] | None = None
) -> dict:
    """Write one row per prediction to `path`, which appears when all are written.

    Args:
        total: how many there will be.
        progress: called with (done, total) after each.

    Returns:
        `images`, `errors`, `verdicts` (how many of each), and for a single image its `prediction`.
    """
    verdicts, done = Counter(), 0
    columns = [field.name for field in dataclasses.fields(Prediction)]
    with (
        atomic.file(path) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(columns)
        for done, prediction in enumerate(predictions, start=1):
            writer.writerow(dataclasses.astuple(prediction))
            verdicts[prediction.verdict] += 1
            if progress:
                progress(done, total)
    errors = verdicts.pop(None, 0)
    single = {"prediction": dataclasses.asdict(prediction)} if done == 1 else {}
    return {"images": done, "errors": errors, "verdicts": dict(sorted(verdicts.items())), **single}


def _load(path: Path, image_size: int) -> np.ndarray | str:
    """The pixels of one file, or a sentence on why there are none."""
    try:
        return load_image(path, image_size)
    except UnreadableError as error:
        return str(error)


def _predict_batch(scorer: Scorer, paths: list[Path], loaded: list[np.ndarray | str]) -> Iterator[Prediction]:
    images = [image for image in loaded if not isinstance(image, str)]
    scores = {name: iter(values) for name, values in scorer.score(np.stack(images)).items()} if images else {}
    for path, image in zip(paths, loaded, strict=True):
        if isinstance(image, str):
            yield Prediction(os.fspath(path), error=image)
        else:
            yield _prediction(scorer.categories, path, {name: next(values) for name, values in scores.items()})


def _prediction(categories: list[str], path: Path, scores: dict[str, np.ndarray]) -> Prediction:
    known = (os.fspath(path), float(scores["fake_probability"]), VERDICTS[int(scores["verdict"])])
    if not categories:
        return Prediction(*known)
    best = int(scores["category_probabilities"].argmax())
    return Prediction(*known, categories[best], float(scores["category_probabilities"][best]))
