"""Views: whether training should scale whole images to the network's input, or cut windows out of them.

`squash` scales every image, whatever its size, to one square. A photograph of 4000 pixels loses the finest traces of
its making, and is told from a generated picture of 1024 by how far it was shrunk. `windows` cuts squares of the
input's size out of the image, at its native resolution, and scales nothing.

The shrink factor of an image is its shorter side, upright, divided by the size of the input: 4 where `squash` makes
one pixel of four in a row, below 1 where it enlarges.
"""

import math
from collections import Counter
from typing import Literal

import numpy as np
import pandas as pd

from pipelines.audit.shortcuts import WARN, feature_auc, tells_apart
from pipelines.datasets.examples import LABELS

View = Literal["squash", "windows"]

_MIN_SHRINK = 2  # in the median, where squash leaves a quarter of the pixels
_MAX_BINS = 24


def suitable_view(median_side: float, image_size: int) -> View:
    """The view that suits training images: `windows` from a median shorter side of twice the input's size on.

    Args:
        median_side: of the shorter sides of all training images, in pixels.
        image_size: height and width of the network's input, in pixels.
    """
    return "windows" if median_side >= _MIN_SHRINK * image_size else "squash"


def compare_views(
    sides: Counter[tuple[int, int]], table: pd.DataFrame, image_size: int, *, warn: float = WARN, seed: int = 0
) -> dict:
    """Measure how far `squash` shrinks the training images of each label, and suggest a view.

    Args:
        sides: number of training images by label, 0 real or 1 fake, and shorter side in pixels.
        table: one row per sampled image, with `split`, `label`, `height` and `width`.
        image_size: height and width of the network's input, in pixels.
        warn: AUC of the shrink factor above which the verdict is `warn`.
        seed: of the folds and the interval of that AUC.

    Returns:
        JSON-ready: `image_size`; `images`; `median_side`, in pixels; `labels`, for each label its number of `images`,
        the `median` of their shrink factors with `lower_quartile` and `upper_quartile`, and the share `enlarged`, or
        None without images; `histogram`, its `edges`, which are shrink factors, and numbers of images by label, the
        first and last of which include outliers; `auc`, `low` and `high` of the factor alone, as in `feature_auc`;
        `verdict`, ok or warn; `suggestion`, as in `suitable_view`, and its `reason`, a sentence. Without training
        images `median_side`, `histogram` and `suggestion` are None.
    """
    by_label = [_expand(sides, label) for label in range(len(LABELS))]
    factors = [values / image_size for values in by_label]
    every = np.concatenate(by_label)
    median = float(np.median(every)) if len(every) else None
    separation = _separation(table, seed)
    return {
        "image_size": image_size,
        "images": len(every),
        "median_side": median,
        "labels": dict(zip(LABELS, map(_describe, factors), strict=True)),
        "histogram": _histogram(factors) if len(every) else None,
        **separation,
        "verdict": "warn" if tells_apart(separation, warn) else "ok",
        "suggestion": None if median is None else suitable_view(median, image_size),
        "reason": _reason(median, image_size),
    }


def format_shrinking(views: dict) -> str:
    """How `squash` changes each label's images, such as `real images 4.6 times smaller (quartiles 2.0 and 5.1)`."""
    return " and ".join(_format_factors(label, shrink) for label, shrink in views["labels"].items() if shrink)


def _format_factors(label: str, shrink: dict) -> str:
    lower, median, upper = (shrink[name] for name in ("lower_quartile", "median", "upper_quartile"))
    change = "smaller"
    if median < 1:
        lower, median, upper, change = 1 / upper, 1 / median, 1 / lower, "larger"
    return f"{label} images {median:.1f} times {change} (quartiles {lower:.1f} and {upper:.1f})"


def _expand(sides: Counter[tuple[int, int]], label: int) -> np.ndarray:
    """The shorter side of every image of a label, int32, ascending."""
    counts = sorted((side, number) for (each, side), number in sides.items() if each == label)
    values, numbers = np.array(counts, np.int64).reshape(-1, 2).T
    return np.repeat(values.astype(np.int32), numbers)


def _separation(table: pd.DataFrame, seed: int) -> dict[str, float | None]:
    rows = table.reindex(columns=["split", "label", "height", "width"])  # a table without rows has no columns
    train = rows[rows["split"] == "train"]
    return feature_auc(train[["height", "width"]].min(axis=1), train["label"].astype(int), seed)


def _describe(factors: np.ndarray) -> dict | None:
    if not len(factors):
        return None
    lower, median, upper = np.quantile(factors, [0.25, 0.5, 0.75]).tolist()
    return {
        "images": len(factors),
        "lower_quartile": lower,
        "median": median,
        "upper_quartile": upper,
        "enlarged": float(np.mean(factors < 1)),
    }


def _histogram(by_label: list[np.ndarray]) -> dict:
    """Count shrink factors in bins from one power of two to another, with at least 1/2 to 2 in between."""
    octaves = [np.log2(factors) for factors in by_label]
    least, most = np.quantile(np.concatenate(octaves), [0.005, 0.995], method="closest_observation")
    low, high = int(min(np.floor(least), -1)), int(max(np.floor(most) + 1, 1))
    per_octave = 2 ** int(np.log2(max(_MAX_BINS / (high - low), 1)))
    edges = np.linspace(low, high, (high - low) * per_octave + 1)
    counts = [np.histogram(values.clip(low, high), edges)[0].tolist() for values in octaves]
    return {"edges": np.exp2(edges).tolist(), **dict(zip(LABELS, counts, strict=True))}


def _reason(median: float | None, image_size: int) -> str:
    if median is None:
        return "there are no labelled training images"
    factor = median / image_size
    if suitable_view(median, image_size) == "windows":
        return (
            f"half of the training images have at least {math.ceil(median):,} pixels on their shorter side, "
            f"{factor:.1f} times the image size of {image_size}, and squash would leave at most {factor**-2:.1%} of "
            "their pixels"
        )
    return (
        f"half of the training images have at most {math.floor(median):,} pixels on their shorter side, less than "
        f"twice the image size of {image_size}, from where on windows are suggested"
    )
