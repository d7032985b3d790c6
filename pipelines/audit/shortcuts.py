"""Shortcuts: how well fake is told from real, or one category from another, without looking at the pixels.

If the fakes were saved as PNG and the real images as JPEG, a detector may learn the file format and nothing else: on
GenImage, removing such differences changed the accuracy on unseen generators by 24 to 41 points (Grommelt et al.,
"Fake or JPEG? Revealing Common Biases in Generated Image Detection Datasets", 2024). So a classifier that sees only
properties of the files is cross-validated against the label. Whatever AUC it reaches, a detector could reach for the
same reason.
"""

import bisect
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, JpegImagePlugin

from pipelines.datasets.examples import LABELS
from pipelines.intervals import MIN_IMAGES, logit_interval
from pipelines.media import jpeg_tables
from pipelines.media.headers import UnreadableError, read_header
from pipelines.media.pillow import PILLOW_ERRORS, open_image

WARN, FAIL = 0.6, 0.75  # AUC
FEATURES = {
    "codec": (
        "format",
        "mode",
        "bits",
        "frames",
        "jpeg_quality",
        "luma_table",
        "chroma_table",
        "subsampling",
        "progressive",
        "metadata",
        "software",
        "maker",
    ),
    "size": ("height", "width", "aspect", "megapixels", "bytes_per_pixel"),
    "name": ("name_pattern", "name_length", "name_digits", "suffix"),
}
# What a classifier sees. A detector sees traces of the file in the pixels, but never its name.
GROUPS = {
    "all": FEATURES["codec"] + FEATURES["size"] + FEATURES["name"],
    "file": FEATURES["codec"] + FEATURES["size"],
    **FEATURES,
}
_CATEGORICAL = frozenset(
    ["format", "mode", "subsampling", "progressive", "metadata", "software", "maker", "name_pattern", "suffix"]
)
_FOLDS, _RESAMPLES, _BINS = 5, 400, 32
_MIN_COUNT, _MAX_VALUES = 5, 100  # rarer values of a categorical feature, and more of them, are merged into "others"
_MIN_ALONE, _MIN_LOSS, _MAX_NAMED = 0.55, 0.02, 5  # which features are reported, and how many


# --- the features of a file ------------------------------------------------------------------------------------


def file_features(encoded: bytes, path: str) -> dict[str, str | float | None]:
    """Describe an image file without decoding it.

    Args:
        encoded: the bytes of the file.
        path: its path; only the file name is used, because the folders contain the label.

    Returns:
        A value for every name in FEATURES: text, a number, or None if the format has no such property.

    Raises:
        UnreadableError: the header cannot be read.
    """
    header = read_header(encoded)
    try:
        with open_image(encoded) as image:
            codec = _codec_features(image, encoded)
    except PILLOW_ERRORS as error:  # in parts that read_header skips, such as EXIF
        raise UnreadableError(f"damaged {header.format.upper()} header") from error
    name = os.fsencode(path.rpartition("/")[2]).decode(errors="replace")  # tables hold valid text only
    stem, dot, suffix = name.rpartition(".")
    return {
        **dict.fromkeys(GROUPS["all"]),
        **codec,
        "format": header.format,
        "bits": header.bits,
        "frames": header.frames,
        "height": header.height,
        "width": header.width,
        "aspect": header.width / header.height,
        "megapixels": header.width * header.height / 1e6,
        "bytes_per_pixel": len(encoded) / (header.width * header.height),
        "name_pattern": _name_pattern(stem if dot else name),
        "name_length": len(name),
        "name_digits": sum(letter.isdigit() for letter in name),
        "suffix": suffix if dot else "",
    }


def _codec_features(image: Image.Image, encoded: bytes) -> dict[str, str | float | None]:
    exif = _exif(image)
    is_progressive = image.info.get("progressive") or image.info.get("interlace")
    return {
        "mode": image.mode,
        "progressive": "yes" if is_progressive else "no",
        "metadata": _metadata_blocks(image, encoded),
        "maker": _short_text(exif.get(0x010F)),
        "software": _short_text(exif.get(0x0131) or image.info.get("Software")),
        **_jpeg_features(image),
    }


def _jpeg_features(image: Image.Image) -> dict[str, str | float | None]:
    if not (tables := getattr(image, "quantization", None)):
        return {"subsampling": ""}
    luma_table = sum(tables[min(tables)])
    return {
        "luma_table": luma_table,
        "chroma_table": sum(tables[max(tables)]) if len(tables) > 1 else None,
        "jpeg_quality": jpeg_quality(luma_table),
        "subsampling": {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}.get(JpegImagePlugin.get_sampling(image), "other"),
    }


def _exif(image: Image.Image) -> dict[int, object]:
    if "exif" not in image.info and image.format != "TIFF":
        return {}
    try:
        return dict(image.getexif())
    except PILLOW_ERRORS:  # damaged metadata, which does not affect the image
        return {}


def _metadata_blocks(image: Image.Image, encoded: bytes) -> str:
    """The names of the blocks that a file has besides its image, such as `APP0 APP1 COM`, sorted."""
    if segments := getattr(image, "applist", None):
        names = {marker for marker, _ in segments}
    elif image.format == "WEBP":
        names = {encoded[12:16].decode("latin-1").strip(), *map(str, image.info)}  # VP8 lossy, VP8L lossless, VP8X
    else:
        private = (chunk[0].decode("latin-1") for chunk in getattr(image, "private_chunks", []))
        names = {*map(str, image.info), *private}
    return " ".join(sorted(names))


def _short_text(value: object) -> str:
    return " ".join(str(value or "").split())[:40]


def _name_pattern(stem: str) -> str:
    """The form of a file name: that of `IMG_0042` is `aaa_9999`."""
    return re.sub("[A-Za-z]", "a", re.sub(r"\d", "9", stem))


# Of the luminance table at quality 100, 99, ... 1, in ascending order.
_TABLE_SUMS = [int(table.sum()) for table in jpeg_tables.at_every_quality(jpeg_tables.LUMINANCE)[::-1]]


def jpeg_quality(luma_table: int) -> int:
    """Estimate the quality setting, 1 to 100, from the sum of a luminance table, by the nearest libjpeg table."""
    after = min(bisect.bisect_left(_TABLE_SUMS, luma_table), 99)
    before = max(after - 1, 0)
    nearest = min(before, after, key=lambda at: abs(_TABLE_SUMS[at] - luma_table))
    return 100 - nearest


# --- what can be learned from them -----------------------------------------------------------------------------


def shortcuts(
    table: pd.DataFrame,
    *,
    warn: float = WARN,
    fail: float = FAIL,
    seed: int = 0,
    groups: Iterable[str] = GROUPS,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict]:
    """Cross-validate classifiers of the label, and of the category, on the features of files.

    A gradient-boosted classifier is trained on four fifths of the images and scores the fifth, in turn. The
    importance of each feature is reported in two ways, since each has a blind spot. `alone` is the AUC of the
    feature by itself (the share of each class in its bin, among the other images): it covers features that carry
    the same information, such as height and width, but not one that matters only in combination. `loss` is the drop
    in AUC when the feature is permuted among the scored images: it covers just those.

    Args:
        table: one row per labelled image: `label` (0 or 1), `category` (text, empty for none), and the features of
            `file_features`.
        warn, fail: AUC above which the verdict is `warn` or `fail`.
        seed: of the folds, the classifier and the interval.
        groups: which of GROUPS to examine.
        progress: called with (classifiers done, classifiers in all).

    Returns:
        A dict for each classifier, JSON-ready: `target` (label or category), `within` (the category its images belong
        to, or empty), `group`, `images`, `auc` (for the category the mean over one-versus-rest), `low` and `high`
        (95% interval), `features` (the most important ones, best first), `verdict`. If a class has fewer
        than 20 images, `auc` is None and the verdict `ok`; it is also `ok` if the interval includes 0.5. File names
        get `warn` at most, since no detector sees them, and `ok` if they tell the category, since people name files
        so. `all` has no verdict, since its parts are judged.
    """
    # Loading scikit-learn takes a second, which conversions need not wait for. It brings OpenMP.
    from sklearn import ensemble  # noqa: F401, PLC0415
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    results: list[dict] = []
    questions = list(product(_questions(table), groups))
    with threadpool_limits(1, "openmp"):  # its threads spin while waiting: beside a training, 40 times slower
        for (target, within, rows), group in questions:
            result = {"target": target, "within": within, "group": group}
            result |= _examine(rows, target, GROUPS[group], seed)
            results.append(result | {"verdict": _verdict(result, warn, fail)})
            if progress:
                progress(len(results), len(questions))
    return results


def feature_auc(values: pd.Series, labels: pd.Series, seed: int = 0) -> dict[str, float | None]:
    """How well one number tells fake from real by itself, whichever way the labels differ in it.

    The score of an image is the share of fakes in its bin among the other images, as for `alone` in `shortcuts`.

    Args:
        values: of each image.
        labels: of each image, 0 or 1.
        seed: of the folds and the interval.

    Returns:
        `auc`, and `low` and `high`, its 95% interval; all are None if a label has fewer than 20 images.
    """
    truth = labels.to_numpy()
    if np.bincount(truth, minlength=len(LABELS)).min() < MIN_IMAGES:
        return dict.fromkeys(("auc", "low", "high"))
    scores = _class_shares(values.astype(float), truth, _folds(truth, seed))
    low, high = _interval(scores, truth, seed)
    return {"auc": macro_auc(scores, truth), "low": low, "high": high}


def tells_apart(result: Mapping[str, Any], threshold: float) -> bool:
    """Whether the `auc` of a result is above a threshold, and above chance by its interval."""
    return result["auc"] is not None and result["low"] > 0.5 and result["auc"] > threshold


def format_auc(result: Mapping[str, Any]) -> str:
    """The AUC of a result with its interval, such as `AUC 0.900 (95% interval 0.850 to 0.930)`."""
    return f"AUC {result['auc']:.3f} (95% interval {result['low']:.3f} to {result['high']:.3f})"


def format_shortcut(result: dict) -> str:
    """A result of `shortcuts` as a sentence."""
    means = (
        "file names alone tell" if result["group"] == "name" else "file properties alone, without the pixels, tell"
    )
    what = "the category" if result["target"] == "category" else "fake from real"
    where = f" in {result['within']}" if result["within"] else ""
    features = ", ".join(map(format_feature, result["features"][:3]))
    return f"{means} {what}{where}: {format_auc(result)}" + (f"; mostly by {features}" if features else "")


def format_feature(feature: dict) -> str:
    """A feature and how the classes differ in it, such as `format png (real 0%, fake 100%)`."""
    values = [f"{name} {value}" for name, value in feature["values"].items()]
    more = ", ..." if len(values) > 4 else ""
    name, kind = feature["name"].replace("_", " "), feature["kind"]
    return f"{f'median {name}' if kind == 'median' else f'{name} {kind}'} ({', '.join(values[:4])}{more})"


def _questions(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Target, the category within which it is predicted, and the rows."""
    yield "label", "", table
    categories = sorted(set(table["category"]) - {""})
    if len(categories) > 1:
        for category in categories:
            yield "label", category, table[table["category"] == category]
        yield "category", "", table[table["category"] != ""]


def _verdict(result: dict, warn: float, fail: float) -> str | None:
    if result["group"] == "all":
        return None
    if not tells_apart(result, warn):
        return "ok"
    if result["group"] == "name":
        return "ok" if result["target"] == "category" else "warn"
    return "fail" if result["auc"] > fail else "warn"


def _examine(table: pd.DataFrame, target: str, columns: tuple[str, ...], seed: int) -> dict:
    counts = table[target].value_counts()
    classes = sorted(counts.index if target == "label" else counts[counts >= MIN_IMAGES].index)
    table = table[table[target].isin(classes)]
    if len(classes) < 2 or counts[classes].min() < MIN_IMAGES:
        return {"images": len(table), "auc": None, "low": None, "high": None, "features": []}
    features = pd.DataFrame({name: _prepare(table[name], name in _CATEGORICAL) for name in columns})
    truth = np.searchsorted(classes, table[target])
    folds = _folds(truth, seed)
    scores, losses = _cross_validate(features, truth, folds, seed)
    low, high = _interval(scores, truth, seed)
    alone = {name: macro_auc(_class_shares(features[name], truth, folds), truth) for name in columns}
    names = LABELS if target == "label" else classes
    return {
        "images": len(table),
        "auc": macro_auc(scores, truth),
        "low": low,
        "high": high,
        "features": [
            {
                "name": name,
                "alone": alone[name],
                "loss": losses.get(name, 0.0),
                **_difference(features[name], truth, names),
            }
            for name in _most_important(alone, losses)
        ],
    }


def _most_important(alone: dict[str, float], losses: dict[str, float]) -> list[str]:
    def importance(name: str) -> float:
        return round(max(alone[name] - 0.5, losses.get(name, 0)), 2)  # ties in the order of FEATURES, plainest first

    names = [name for name in alone if alone[name] >= _MIN_ALONE or losses.get(name, 0) >= _MIN_LOSS]
    return sorted(names, key=importance, reverse=True)[:_MAX_NAMED]


def _prepare(column: pd.Series, is_categorical: bool) -> pd.Series:
    if not is_categorical:
        return pd.to_numeric(column).astype(float)
    counts = column.value_counts()
    frequent = counts[counts >= _MIN_COUNT].index[:_MAX_VALUES]
    return column.where(column.isin(frequent), "others").astype("category")


def _folds(truth: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import StratifiedKFold  # noqa: PLC0415

    return list(StratifiedKFold(_FOLDS, shuffle=True, random_state=seed).split(truth, truth))


def _cross_validate(
    features: pd.DataFrame, truth: np.ndarray, folds: list[tuple[np.ndarray, np.ndarray]], seed: int
) -> tuple[np.ndarray, dict[str, float]]:
    """Score each image by a classifier that was not trained on it.

    Returns:
        Probabilities, (images, classes), and the permutation loss of each feature that varies.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415

    random = np.random.default_rng(seed)
    scores = np.tile(np.bincount(truth) / len(truth), (len(truth), 1))
    names = [name for name in features if features[name].nunique(dropna=False) > 1]
    if not names:
        return scores, {}
    matrix = np.column_stack([_as_numbers(features[name]) for name in names])
    permuted_scores = np.tile(scores, (len(names), 1, 1))
    for train, held_out in folds:
        classifier = HistGradientBoostingClassifier(
            max_iter=40,
            learning_rate=0.2,
            max_leaf_nodes=15,
            min_samples_leaf=max(2, min(20, len(train) // 20)),  # so that even forty images can be told apart
            early_stopping=False,
            random_state=seed,
        ).fit(matrix[train], truth[train])
        rows = np.tile(matrix[held_out], (1 + len(names), 1, 1))  # unchanged, then with each feature permuted
        for index in range(len(names)):
            rows[1 + index, :, index] = random.permutation(rows[0, :, index])
        probabilities = classifier.predict_proba(rows.reshape(-1, len(names))).reshape(*rows.shape[:2], -1)
        scores[held_out], permuted_scores[:, held_out] = probabilities[0], probabilities[1:]
    auc = macro_auc(scores, truth)
    losses = {
        str(name): auc - macro_auc(permuted, truth) for name, permuted in zip(names, permuted_scores, strict=True)
    }
    return scores, losses


def _as_numbers(column: pd.Series) -> np.ndarray:
    """Numbers unchanged, categorical values as alphabetical codes, which trees can separate again."""
    return column.cat.codes.to_numpy(float) if isinstance(column.dtype, pd.CategoricalDtype) else column.to_numpy()


def _class_shares(column: pd.Series, truth: np.ndarray, folds: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Probabilities, (images, classes), by one feature: the class shares in the image's bin, in the other folds."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        bins = column.cat.codes.to_numpy(int)
    else:
        values = column.to_numpy()
        present = values[~np.isnan(values)]
        edges = np.unique(np.quantile(present, np.linspace(0, 1, _BINS + 1)[1:-1])) if len(present) else present
        bins = np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values, side="right"))
    one_hot = np.eye(truth.max() + 1)[truth]
    scores = np.empty(one_hot.shape)
    for train, held_out in folds:
        sums = np.zeros((bins.max() + 1, one_hot.shape[1]))
        np.add.at(sums, bins[train], one_hot[train])
        sums += one_hot[train].mean(axis=0)  # smoothing: the prior, with the weight of one image
        scores[held_out] = (sums / sums.sum(axis=1, keepdims=True))[bins[held_out]]
    return scores


def _difference(column: pd.Series, truth: np.ndarray, names: Sequence[str]) -> dict:
    """Where the classes differ most: the value (`kind`) and its share in each class, or `median` and the medians."""
    by_class = column.groupby(truth)
    if isinstance(column.dtype, pd.CategoricalDtype):
        shares = by_class.value_counts(normalize=True).unstack(fill_value=0)
        kind = (shares.max() - shares.min()).idxmax()
        values = [f"{share:.0%}" for share in shares[kind]]
        return {"kind": kind or "none", "values": dict(zip(names, values, strict=True))}
    # A median is of no use if most images lack the property.
    medians = [f"{values.median():.4g}" if values.notna().mean() > 0.5 else "none" for _, values in by_class]
    return {"kind": "median", "values": dict(zip(names, medians, strict=True))}


# --- areas under ROC curves ------------------------------------------------------------------------------------


def macro_auc(scores: np.ndarray, truth: np.ndarray) -> float:
    """The area under the ROC curve; with more than two classes, the mean over one-versus-rest.

    Args:
        scores: (images, classes), higher for likelier.
        truth: (images,), the class of each image, from 0; every class occurs.
    """
    return _mean_auc(*_ranks(scores, truth), np.ones(len(truth)))


def _interval(scores: np.ndarray, truth: np.ndarray, seed: int) -> tuple[float, float]:
    """The 95% interval of `macro_auc`, from its variance when images are resampled within each class."""
    random = np.random.default_rng(seed)
    ranks, positive = _ranks(scores, truth)
    members = [np.flatnonzero(truth == index) for index in range(truth.max() + 1)]
    areas = []
    for _ in range(_RESAMPLES):
        drawn = np.concatenate([random.choice(images, len(images)) for images in members])
        areas.append(_mean_auc(ranks, positive, np.bincount(drawn, minlength=len(truth))))
    return logit_interval(macro_auc(scores, truth), float(np.var(areas)), list(map(len, members)))


def _ranks(scores: np.ndarray, truth: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """For each one-versus-rest problem, the ranks of the scores (ties share one), and which images are positive."""
    columns = [1] if scores.shape[1] == 2 else range(scores.shape[1])
    ranks = [np.unique(scores[:, column], return_inverse=True)[1] for column in columns]
    return ranks, [truth == column for column in columns]


def _mean_auc(ranks: list[np.ndarray], positive: list[np.ndarray], weights: np.ndarray) -> float:
    areas = []
    for rank, is_positive in zip(ranks, positive, strict=True):
        above = np.bincount(rank, weights * is_positive)
        below = np.bincount(rank, weights * ~is_positive)
        areas.append(above @ (below.cumsum() - below / 2) / (above.sum() * below.sum()))
    return float(np.mean(areas))
