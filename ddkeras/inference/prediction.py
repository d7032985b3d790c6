"""Scoring image files: one `Prediction` per file, also for files that cannot be read."""

import dataclasses
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
from keras import tree

from ddkeras.inference.scorers import ImageScorer, Outputs
from ddkeras.inference.views import ORIGINAL, Views, score_views
from ddkeras.inference.writers import columns
from ddkeras.metrics.calibration import TOO_SMALL, VERDICTS
from pipelines.media.headers import UnreadableError, read_file, read_header
from pipelines.media.provenance import Provenance, provenance_of, read_provenance
from pipelines.media.video import is_video
from pipelines.transforms.views import load_views
from pipelines.views import Pixels, View

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_MIN_BATCH_PIXELS = 2**18  # batches as small as in training do not keep a network busy when images are small
_MIN_FILES_PER_CALL = 8  # loaded by a thread at once, to amortize the overhead of a call
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Judged = TypeVar("_Judged", bound="DataclassInstance")


@dataclass(frozen=True, slots=True)
class Prediction:
    """The scores of one file. If it could not be scored, `error` says why and the scores are None."""

    path: str
    fake_probability: float | None = None
    verdict: str | None = None  # real, fake or unsure
    category: str | None = None
    category_probability: float | None = None
    category_probabilities: dict[str, float] = field(default_factory=dict)
    score_shift: float | None = None  # see `stability.Stability.change`; None if not measured
    spread: float | None = None  # standard deviation of fake_probability over the views of `tta`; None without
    error: str = ""
    provenance: str = ""  # what the file states about its origin; not used for the scores
    provenance_fields: dict[str, Any] = field(default_factory=dict)  # the same, by the names in `provenance.FIELDS`
    reason: str = ""  # why the verdict is unsure, if that does not follow from the score


def predict(
    scorer: ImageScorer, paths: Iterable[str | os.PathLike], *, views: Views = ORIGINAL
) -> Iterator[Prediction]:
    """Score image files in the order given, in constant memory.

    Files are decoded in threads, so this can be called from a notebook or a script without a `__main__` guard.

    Args:
        views: which views of each image are scored; by default the unmodified image.

    Yields:
        One Prediction per path. A file that cannot be read or decoded has an `error`.
    """
    for batch in predict_batches(scorer, paths, views=views):
        yield from batch


def predict_batches(
    scorer: ImageScorer, paths: Iterable[str | os.PathLike], *, views: Views = ORIGINAL
) -> Iterator[list[Prediction]]:
    """As `predict`, in batches of `batch_size(scorer, views)`; the next batch is decoded while one is scored.

    The last digits of an image's score can depend on the size of its batch.
    """
    size, threads = batch_size(scorer, views), os.cpu_count() or 1
    chunk_size = min(size, max(_MIN_FILES_PER_CALL, math.ceil(size / threads)))
    loading, scoring = ThreadPoolExecutor(threads), ThreadPoolExecutor(1)
    try:
        chunks = (chunk for batch in _grouped(paths, size) for chunk in _grouped(batch, chunk_size))
        loaded = _prefetched(loading, lambda chunk: _load(chunk, scorer.views, views), chunks, 2 * threads)
        batches = _grouped(loaded, math.ceil(size / chunk_size))
        yield from _prefetched(scoring, lambda batch: _predict_batch(scorer, batch, views), batches, 1)
    finally:
        for pool in (loading, scoring):  # no waiting: the generator may be closed by one of their own threads
            pool.shutdown(wait=False, cancel_futures=True)


def batch_size(scorer: ImageScorer, views: Views = ORIGINAL) -> int:
    """The number of images per batch: the scorer's batch size, or more if images are small, divided by the views."""
    pixels = max(view.parts * view.size**2 for view in scorer.views)
    parts = max(view.parts for view in scorer.views)
    return max(1, max(scorer.batch // parts, _MIN_BATCH_PIXELS // pixels) // views.count)


def to_frame(predictions: Iterable[Prediction], categories: list[str] | None = None) -> pd.DataFrame:
    """Predictions as a table, one row each, with the columns that `ddk predict` writes to Parquet.

    Missing numbers are NaN, missing strings None.

    Args:
        categories: class names that get a column; by default those of the first image that was scored.
    """
    rows = list(predictions)
    if categories is None:
        categories = next((list(row.category_probabilities) for row in rows if row.category_probabilities), [])
    kinds = {str: "object", dict: "object", float: "float64", int: "Int64"}
    return pd.DataFrame(
        {
            column.name: pd.Series([column.value(row) for row in rows], dtype=kinds[column.kind])
            for column in columns("scores", categories)
        }
    )


def predictions_from(outputs: Outputs, paths: Sequence[str | os.PathLike], categories: list[str]) -> list[Prediction]:
    """Convert a scorer's outputs to one Prediction per path."""
    probabilities = shortest_decimals(outputs["fake_probability"])
    by_category = shortest_decimals(outputs["category_probabilities"]) if categories else [[]] * len(paths)
    score_shift, spread = (
        shortest_decimals(outputs[name]) if name in outputs else [None] * len(paths)
        for name in ("score_shift", "spread")
    )
    predictions = []
    for index, path in enumerate(paths):
        category_probabilities = dict(zip(categories, by_category[index], strict=True))
        category = max(category_probabilities, key=category_probabilities.__getitem__, default=None)
        prediction = Prediction(
            path=os.fspath(path),
            fake_probability=probabilities[index],
            verdict=VERDICTS[int(outputs["verdict"][index])],
            category=category,
            category_probability=None if category is None else category_probabilities[category],
            category_probabilities=category_probabilities,
            score_shift=score_shift[index],
            spread=spread[index],
        )
        predictions.append(prediction)
    return predictions


def unsure_if_small(judged: _Judged, side: int, min_side: int) -> _Judged:
    """What was made of an image of that shorter side, in pixels, with the verdict unsure if below `min_side`.

    Args:
        judged: a dataclass with the fields `verdict` and `reason`.
    """
    if side >= min_side:
        return judged
    return dataclasses.replace(judged, verdict="unsure", reason=TOO_SMALL.format(side=side, min_side=min_side))


def shorter_side(path: str | os.PathLike) -> int:
    """The shorter side of an image file, in pixels; 0 if it cannot be read."""
    try:
        return _shorter_side(read_file(path))
    except (UnreadableError, OSError):
        return 0


def _shorter_side(content: bytes) -> int:
    try:
        header = read_header(content)
    except UnreadableError:
        return 0
    return min(header.height, header.width)


def shortest_decimals(values: np.ndarray) -> list:
    """Convert float32 to floats with the fewest digits that identify them: 0.3, not 0.30000001192092896."""
    return values.astype("U").astype(np.float64).tolist()


# --- batches ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _LoadedFiles:
    """Decoded files.

    Args:
        paths: as given.
        images: by view, pixels whose arrays are (n, views, ...); black where there is an error.
        errors: why a file has no image, by its index.
        sides: the shorter side of each, before it was resized, in pixels.
        provenance: what each file states about its origin.
    """

    paths: list[str | os.PathLike]
    images: dict[View, Pixels]
    errors: dict[int, str]
    sides: list[int]
    provenance: list[Provenance]


def _load(paths: list[str | os.PathLike], seen: list[View], views: Views) -> _LoadedFiles:
    images: dict[View, Pixels] = {}
    errors: dict[int, str] = {}
    for view in seen:
        images[view], errors_of_view = load_views(paths, view, views.transforms)
        errors |= errors_of_view
    sides, provenance = map(list, zip(*map(_inspect, map(Path, paths)), strict=True))
    return _LoadedFiles(paths, images, errors, sides, provenance)


def _inspect(path: Path) -> tuple[int, Provenance]:
    """The shorter side of an image file, as `shorter_side`, and what it states about its origin; it is read once."""
    if is_video(path):  # which is not scored as an image
        return shorter_side(path), provenance_of(path)
    try:
        content = read_file(path)
    except (UnreadableError, OSError):
        return 0, Provenance()
    return _shorter_side(content), read_provenance(content)


def _predict_batch(scorer: ImageScorer, chunks: list[_LoadedFiles], views: Views) -> list[Prediction]:
    images = {view: _concatenated([files.images[view] for files in chunks]) for view in scorer.views}
    outputs = views.aggregate(scorer, score_views(scorer, images))
    paths = [path for files in chunks for path in files.paths]
    scored = iter(predictions_from(outputs, paths, scorer.categories))
    predictions = []
    for files in chunks:
        for index, provenance in enumerate(files.provenance):
            prediction = unsure_if_small(next(scored), files.sides[index], scorer.min_side)
            if index in files.errors:
                prediction = Prediction(prediction.path, error=files.errors[index])
            predictions.append(with_provenance(prediction, provenance))
    return predictions


def _concatenated(pixels: list[Pixels]) -> Pixels:
    return tree.map_structure(lambda *arrays: np.concatenate(arrays), *pixels)


def with_provenance(prediction: Prediction, provenance: Provenance) -> Prediction:
    """The prediction with what its file states about its origin."""
    return dataclasses.replace(prediction, provenance=str(provenance), provenance_fields=provenance.fields())


def _grouped(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    items = iter(items)
    while group := list(islice(items, size)):
        yield group


def _prefetched(
    pool: Executor, function: Callable[[_Item], _Result], items: Iterable[_Item], depth: int
) -> Iterator[_Result]:
    """Map `function` over `items` in the pool, in order, at most `depth` results ahead."""
    pending: deque[Future[_Result]] = deque()
    for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) > depth:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
