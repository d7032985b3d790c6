"""Scoring image files: one row for each, whatever is wrong with it."""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ddkeras.inference.scorers import ImageScorer
from ddkeras.inference.views import AS_IS, Views, scored
from ddkeras.metrics.calibration import VERDICTS
from pipelines.media.provenance import format_provenance
from pipelines.transforms.views import load_views

_PIXELS = 2**18  # in a batch, at least: as many small images as a recipe has are too few to keep a network busy
_OF_VIEWS = ("stability", "spread")  # what only several views of an image tell
_LOADED = 8  # files by a thread in one call, at least: each call has a cost of its own
_Item, _Answer = TypeVar("_Item"), TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Prediction:
    """One image's scores, or why there are none: then `error` says it and the others are None."""

    path: str
    fake_probability: float | None = None
    verdict: str | None = None  # real, fake or unsure
    category: str | None = None
    category_probability: float | None = None
    category_probabilities: dict[str, float] = field(default_factory=dict)
    stability: float | None = None  # see `stability.Stability.change`; None where it was not asked for
    spread: float | None = None  # standard deviation of fake_probability over the views of `tta`, None without
    error: str = ""
    provenance: str = ""  # what the file says of its origin; it has no part in the scores


def predict(scorer: ImageScorer, paths: Iterable[str | os.PathLike], *, views: Views = AS_IS) -> Iterator[Prediction]:
    """Score image files, in the order given and in constant memory; by several `views` of each, or as they are.

    A file that cannot be read or decoded yields a Prediction with its `error`.
    """
    for batch in predict_batches(scorer, paths, views=views):
        yield from batch


def predict_batches(
    scorer: ImageScorer, paths: Iterable[str | os.PathLike], *, views: Views = AS_IS
) -> Iterator[list[Prediction]]:
    """The same, `batch_size(scorer, views)` at a time. While one is scored, the next ones are read and decoded.

    The score of an image can differ in its last digits with the batch that it is in.
    """
    batch, threads = batch_size(scorer, views), os.cpu_count() or 1
    part = min(batch, max(_LOADED, math.ceil(batch / threads)))
    loading, scoring = ThreadPoolExecutor(threads), ThreadPoolExecutor(1)
    try:
        parts = (some for paths in _grouped(paths, batch) for some in _grouped(paths, part))
        loaded = _ahead(loading, lambda some: _load(some, scorer.sizes, views), parts, 2 * threads)
        batches = _grouped(loaded, math.ceil(batch / part))
        yield from _ahead(scoring, lambda parts: _predict_batch(scorer, parts, views), batches, 1)
    finally:
        for pool in (loading, scoring):  # not waited for: whoever lets go of this may be one of their threads
            pool.shutdown(wait=False, cancel_futures=True)


def batch_size(scorer: ImageScorer, views: Views = AS_IS) -> int:
    """How many images are scored at once: as many views of them as images in training, or, of small ones, more."""
    return max(1, max(scorer.batch, _PIXELS // max(scorer.sizes) ** 2) // views.number)


def _grouped(items: Iterable[_Item], number: int) -> Iterator[list[_Item]]:
    items = iter(items)
    while some := list(islice(items, number)):
        yield some


def _ahead(
    pool: Executor, work: Callable[[_Item], _Answer], items: Iterable[_Item], number: int
) -> Iterator[_Answer]:
    """What `work` makes of each, in order; that of the next `number` is begun before it is asked for."""
    begun = deque()
    for item in items:
        begun.append(pool.submit(work, item))
        if len(begun) > number:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


class _Loaded(NamedTuple):
    """Files with all views by their size, black where there is an error; the errors by place; what each says of its
    origin."""

    paths: list[str | os.PathLike]
    images: dict[int, np.ndarray]
    errors: dict[int, str]
    provenance: list[str]


def _load(paths: list[str | os.PathLike], sizes: list[int], views: Views) -> _Loaded:
    images, errors = {}, {}
    for size in sizes:
        images[size], own = load_views(paths, size, views.ways)
        errors |= own
    return _Loaded(paths, images, errors, [format_provenance(Path(path)) for path in paths])


def _predict_batch(scorer: ImageScorer, parts: list[_Loaded], views: Views) -> list[Prediction]:
    found = []
    images = {size: np.concatenate([part.images[size] for part in parts]) for size in scorer.sizes}
    scores = _columns(scorer, images, views)
    for part in parts:
        for index, (path, provenance) in enumerate(zip(part.paths, part.provenance, strict=True)):
            own, error = next(scores), part.errors.get(index, "")
            said = {} if error else own
            found.append(Prediction(os.fspath(path), **said, error=error, provenance=provenance))
    return found


def _columns(scorer: ImageScorer, images: dict[int, np.ndarray], views: Views) -> Iterator[dict[str, Any]]:
    """Of each image what a Prediction has between path and error."""
    scores = views.judge(scorer, scored(scorer, images))
    columns = {
        "fake_probability": shortest(scores["fake_probability"]),
        "verdict": [VERDICTS[index] for index in scores["verdict"].tolist()],
    }
    if scorer.categories:
        probabilities = scores["category_probabilities"]
        columns |= {
            "category": [scorer.categories[index] for index in probabilities.argmax(axis=1).tolist()],
            "category_probability": shortest(probabilities.max(axis=1)),
            "category_probabilities": [
                dict(zip(scorer.categories, row, strict=True)) for row in shortest(probabilities)
            ],
        }
    columns |= {name: shortest(scores[name]) for name in _OF_VIEWS if name in scores}
    return (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


def shortest(values: np.ndarray) -> list:
    """Of each float32 the shortest decimal that tells it from all others: 0.3, not 0.30000001192092896."""
    return values.astype("U").astype(np.float64).tolist()
