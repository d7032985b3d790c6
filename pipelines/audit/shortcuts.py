"""Shortcuts: how well fake is told from real, or one category from another, without a look at the pixels.

Where fakes were saved as PNG and real images as JPEG, a detector may learn the file format and nothing else: on
GenImage, removing such differences changed the accuracy on unseen generators by 24 to 41 points (Grommelt et al.,
"Fake or JPEG? Revealing Common Biases in Generated Image Detection Datasets", 2024). So a classifier that is
shown the files' headers alone is cross-validated against the label. What it scores, a detector could score for the
same reason.
"""

import bisect
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product

import numpy as np
import pandas as pd
from PIL import Image, JpegImagePlugin

from pipelines.datasets.examples import LABELS
from pipelines.media.headers import DAMAGED, UnreadableError, read_header

WARN, FAIL = 0.6, 0.75  # areas under the ROC curve
FEATURES = {
    "codec": (
        *(
            "format",
            "mode",
            "bits",
            "frames",
            "jpeg_quality",
            "luma_table",
            "chroma_table",
            "subsampling",
            "progressive",
        ),
        *("metadata", "software", "maker"),
    ),
    "size": ("height", "width", "aspect", "megapixels", "bytes_per_pixel"),
    "name": ("name_pattern", "name_length", "name_digits", "suffix"),
}
# What a classifier is shown. A model sees traces of the file in its pixels, but never the name.
GROUPS = {
    "all": FEATURES["codec"] + FEATURES["size"] + FEATURES["name"],
    "file": FEATURES["codec"] + FEATURES["size"],
    **FEATURES,
}
_KINDS = frozenset(
    ["format", "mode", "subsampling", "progressive", "metadata", "software", "maker", "name_pattern", "suffix"]
)
_FEWEST = 20  # images of each class; with fewer no interval is narrow enough to say anything
_FOLDS, _DRAWS, _BINS = 5, 400, 32
_RARE, _MOST_KINDS = 5, 100  # a kind in fewer files, or beyond so many kinds, is one of "others"
_ALONE, _LOSS, _NAMED = 0.55, 0.02, 5  # a feature is worth a word from these on, and so many are


# --- what a file says before its pixels ------------------------------------------------------------------------


def file_features(encoded: bytes, path: str) -> dict:
    """What is known of an image file without decoding it.

    Args:
        encoded: the bytes of the file.
        path: its name; the folders in it are not looked at, for they hold the label.

    Returns:
        A value for every name in FEATURES: text, or a number, or None where the format has no such thing.

    Raises:
        UnreadableError: the header cannot be read.
    """
    header = read_header(encoded)
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            codec = _codec(image, encoded)
    except DAMAGED as error:  # in what read_header does not look at, such as EXIF
        raise UnreadableError(f"damaged {header.format.upper()} header") from error
    name = os.fsencode(path.rpartition("/")[2]).decode(errors="replace")  # as text that tables take
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
        "name_pattern": _pattern(stem if dot else name),
        "name_length": len(name),
        "name_digits": sum(letter.isdigit() for letter in name),
        "suffix": suffix if dot else "",
    }


def _codec(image: Image.Image, encoded: bytes) -> dict:
    found = {"mode": image.mode, "progressive": "no", "subsampling": "", "metadata": _metadata(image, encoded)}
    if image.info.get("progressive") or image.info.get("interlace"):
        found["progressive"] = "yes"
    if tables := getattr(image, "quantization", None):
        found["luma_table"] = sum(tables[min(tables)])
        found["chroma_table"] = sum(tables[max(tables)]) if len(tables) > 1 else None
        found["jpeg_quality"] = jpeg_quality(found["luma_table"])
        found["subsampling"] = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}.get(JpegImagePlugin.get_sampling(image), "other")
    exif = _exif(image)
    found["maker"] = _tag(exif.get(0x010F))
    found["software"] = _tag(exif.get(0x0131) or image.info.get("Software"))
    return found


def _exif(image: Image.Image) -> dict[int, object]:
    if "exif" not in image.info and image.format != "TIFF":
        return {}
    try:
        return dict(image.getexif())
    except DAMAGED:  # the metadata, which says nothing about the image
        return {}


def _metadata(image: Image.Image, encoded: bytes) -> str:
    """The names of the blocks a file carries beside its image, such as `APP0 APP1 COM`, in alphabetical order."""
    if segments := getattr(image, "applist", None):
        names = {marker for marker, _ in segments}
    elif image.format == "WEBP":
        names = {encoded[12:16].decode("latin-1").strip(), *image.info}  # VP8 lossy, VP8L lossless, VP8X either
    else:
        private = (chunk[0].decode("latin-1") for chunk in getattr(image, "private_chunks", []))
        names = {*map(str, image.info), *private}
    return " ".join(sorted(names))


def _tag(value) -> str:
    return " ".join(str(value or "").split())[:40]


def _pattern(stem: str) -> str:
    """The form of a name: `IMG_0042` is `aaa_9999`."""
    return re.sub("[A-Za-z]", "a", re.sub(r"\d", "9", stem))


# The luminance table of the JPEG standard (ITU-T T.81, Annex K), which encoders scale by their quality setting.
_STANDARD = np.array(
    [
        *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
        *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
        *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
        *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
    ]
)
_SUMS = [  # of the table at quality 100, 99, ... 1, as libjpeg scales it: larger and larger
    int(np.clip((_STANDARD * (200 - 2 * q if q >= 50 else 5000 // q) + 50) // 100, 1, 255).sum())
    for q in range(100, 0, -1)
]


def jpeg_quality(luma_table: int) -> int:
    """The quality, 1 to 100, at which libjpeg's luminance table comes nearest to a sum of `luma_table`."""
    after = min(bisect.bisect_left(_SUMS, luma_table), 99)
    before = max(after - 1, 0)
    nearest = min(before, after, key=lambda at: abs(_SUMS[at] - luma_table))
    return 100 - nearest


# --- what can be learnt from that ------------------------------------------------------------------------------


def shortcuts(
    table: pd.DataFrame,
    *,
    warn: float = WARN,
    fail: float = FAIL,
    seed: int = 0,
    groups: Iterable[str] = GROUPS,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict]:
    """Cross-validate classifiers of the label, and of the category, on what `file_features` gives.

    A gradient-boosted classifier is trained on four fifths of the images and scores the fifth, in turn. Which
    features carry it is told in two ways, for each is blind to something. `alone` is what a feature scores by
    itself (by the share of each class in its bins, among the other images): it sees all of several features that
    say the same, such as height and width, but none that tells only beside another. `loss` is by how much the AUC
    falls when the feature is shuffled among the images that are scored: it sees just those.

    Args:
        table: one row per labelled image: `label` (0 or 1), `category` (text, empty for none), and the features.
        warn, fail: areas under the ROC curve above which a verdict is `warn` or `fail`.
        seed: of the folds, the classifier and the interval.
        groups: which of GROUPS to try.
        progress: called with (classifiers done, classifiers in all).

    Returns:
        A dict for each classifier, JSON-ready: `target` (label or category), `within` (the category its images are
        of, or empty), `group`, `images`, `auc` (for the category the mean over one-versus-rest), `low` and `high`
        (95% bootstrap interval), `features` (those worth a word, best first), `verdict`. Where a class has fewer than
        20 images, `auc` is None and the verdict `ok`. The verdict is `ok` as well where the interval includes 0.5.
        File names get `warn` at worst, since no model is shown them, and `ok` where they tell the category, since
        people name files so; `all` has no verdict, for its parts are judged.
    """
    from sklearn import ensemble  # noqa: F401, PLC0415  a second, which conversions need not wait; it brings OpenMP
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    found, questions = [], list(product(_questions(table), groups))
    with threadpool_limits(1, "openmp"):  # threads that wait for each other spin: beside a training, 40 times slower
        for (target, within, rows), group in questions:
            row = _examine(rows, target, GROUPS[group], seed)
            row = {"target": target, "within": within, "group": group} | row
            found.append(row | {"verdict": _verdict(row, warn, fail)})
            if progress:
                progress(len(found), len(questions))
    return found


def describe(row: dict) -> str:
    """What a row of `shortcuts` found, in a sentence."""
    means = "the file names alone tell" if row["group"] == "name" else "the files alone, no pixel seen, tell"
    what = "the category" if row["target"] == "category" else "fake from real"
    where = f" in {row['within']}" if row["within"] else ""
    interval = f"95% interval {row['low']:.3f} to {row['high']:.3f}"
    carried = ", ".join(map(describe_feature, row["features"][:3]))
    return f"{means} {what}{where}: AUC {row['auc']:.3f} ({interval})" + (f"; most by {carried}" if carried else "")


def describe_feature(feature: dict) -> str:
    """A feature and where the classes differ in it, such as `format png (real 0%, fake 100%)`."""
    values = [f"{name} {value}" for name, value in feature["values"].items()]
    more = ", ..." if len(values) > 4 else ""
    name, kind = feature["name"].replace("_", " "), feature["kind"]
    return f"{f'median {name}' if kind == 'median' else f'{name} {kind}'} ({', '.join(values[:4])}{more})"


def _questions(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Target, category within which it is asked, and the rows it is asked of."""
    yield "label", "", table
    categories = sorted(set(table["category"]) - {""})
    if len(categories) > 1:
        for category in categories:
            yield "label", category, table[table["category"] == category]
        yield "category", "", table[table["category"] != ""]


def _verdict(row: dict, warn: float, fail: float) -> str | None:
    if row["group"] == "all":
        return None
    named = row["group"] == "name"
    if row["auc"] is None or row["low"] <= 0.5 or row["auc"] <= warn or (named and row["target"] == "category"):
        return "ok"
    return "fail" if row["auc"] > fail and not named else "warn"


def _examine(table: pd.DataFrame, target: str, columns: tuple[str, ...], seed: int) -> dict:
    numbers = table[target].value_counts()
    classes = sorted(numbers.index if target == "label" else numbers[numbers >= _FEWEST].index)
    table = table[table[target].isin(classes)]
    row = {"images": len(table), "auc": None, "low": None, "high": None, "features": []}
    if len(classes) < 2 or numbers[classes].min() < _FEWEST:
        return row
    features = pd.DataFrame({name: _prepared(table[name], name in _KINDS) for name in columns})
    truth = np.searchsorted(classes, table[target])
    folds = _folds(truth, seed)
    scores, losses = _cross_validated(features, truth, folds, seed)
    alone = {name: macro_auc(_shares(features[name], truth, folds), truth) for name in columns}
    names = LABELS if target == "label" else classes
    row["auc"] = macro_auc(scores, truth)
    row["low"], row["high"] = _interval(scores, truth, seed)
    row["features"] = [
        {
            "name": name,
            "alone": alone[name],
            "loss": losses.get(name, 0.0),
            **_difference(features[name], truth, names),
        }
        for name in _notable(alone, losses)
    ]
    return row


def _notable(alone: dict[str, float], losses: dict[str, float]) -> list[str]:
    def weight(name: str) -> float:
        return round(max(alone[name] - 0.5, losses.get(name, 0)), 2)  # of equals the plainer comes first, as listed

    chosen = [name for name in alone if alone[name] >= _ALONE or losses.get(name, 0) >= _LOSS]
    return sorted(chosen, key=weight, reverse=True)[:_NAMED]


def _prepared(column: pd.Series, is_kind: bool) -> pd.Series:
    if not is_kind:
        return pd.to_numeric(column).astype(float)
    numbers = column.value_counts()
    frequent = numbers[numbers >= _RARE].index[:_MOST_KINDS]
    return column.where(column.isin(frequent), "others").astype("category")


def _folds(truth: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import StratifiedKFold  # noqa: PLC0415

    return list(StratifiedKFold(_FOLDS, shuffle=True, random_state=seed).split(truth, truth))


def _cross_validated(
    features: pd.DataFrame, truth: np.ndarray, folds: list, seed: int
) -> tuple[np.ndarray, dict[str, float]]:
    """Probabilities, (images, classes), by classifiers that were not shown the image; and each feature's loss."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415

    random = np.random.default_rng(seed)
    scores = np.tile(np.bincount(truth) / len(truth), (len(truth), 1))
    names = [name for name in features if features[name].nunique(dropna=False) > 1]
    if not names:
        return scores, {}
    matrix = np.column_stack([_as_numbers(features[name]) for name in names])
    shuffled = np.tile(scores, (len(names), 1, 1))
    for train, held_out in folds:
        classifier = HistGradientBoostingClassifier(
            max_iter=40,
            learning_rate=0.2,
            max_leaf_nodes=15,
            min_samples_leaf=max(2, min(20, len(train) // 20)),  # so that forty images can be told apart at all
            early_stopping=False,
            random_state=seed,
        ).fit(matrix[train], truth[train])
        rows = np.tile(matrix[held_out], (1 + len(names), 1, 1))  # as they are, then with each feature shuffled
        for index in range(len(names)):
            rows[1 + index, :, index] = random.permutation(rows[0, :, index])
        answers = classifier.predict_proba(rows.reshape(-1, len(names))).reshape(*rows.shape[:2], -1)
        scores[held_out], shuffled[:, held_out] = answers[0], answers[1:]
    auc = macro_auc(scores, truth)
    return scores, {name: auc - macro_auc(without, truth) for name, without in zip(names, shuffled, strict=True)}


def _as_numbers(column: pd.Series) -> np.ndarray:
    """Numbers as they are, kinds by their place in the alphabet, which trees take apart again."""
    return column.cat.codes.to_numpy(float) if isinstance(column.dtype, pd.CategoricalDtype) else column.to_numpy()


def _shares(column: pd.Series, truth: np.ndarray, folds: list) -> np.ndarray:
    """Probabilities, (images, classes), from one feature: the shares of the classes in the image's bin elsewhere."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        bins = column.cat.codes.to_numpy(int)
    else:
        values = column.to_numpy()
        known = values[~np.isnan(values)]
        edges = np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1)[1:-1])) if len(known) else known
        bins = np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values, side="right"))
    one_hot = np.eye(truth.max() + 1)[truth]
    scores = np.empty(one_hot.shape)
    for train, held_out in folds:
        sums = np.zeros((bins.max() + 1, one_hot.shape[1]))
        np.add.at(sums, bins[train], one_hot[train])
        sums += one_hot[train].mean(axis=0)  # one image's worth of what is known without the feature
        scores[held_out] = (sums / sums.sum(axis=1, keepdims=True))[bins[held_out]]
    return scores


def _difference(column: pd.Series, truth: np.ndarray, names: Sequence[str]) -> dict:
    """Where the classes differ most: a `kind` and its share in each of them, or `median` and the medians."""
    by_class = column.groupby(truth)
    if isinstance(column.dtype, pd.CategoricalDtype):
        shares = by_class.value_counts(normalize=True).unstack(fill_value=0)
        kind = (shares.max() - shares.min()).idxmax()
        values = [f"{share:.0%}" for share in shares[kind]]
        return {"kind": kind or "none", "values": dict(zip(names, values, strict=True))}
    # What most have not got is not told by the median of the others.
    medians = [f"{values.median():.4g}" if values.notna().mean() > 0.5 else "none" for _, values in by_class]
    return {"kind": "median", "values": dict(zip(names, medians, strict=True))}


# --- areas under ROC curves ------------------------------------------------------------------------------------


def macro_auc(scores: np.ndarray, truth: np.ndarray) -> float:
    """The area under the ROC curve; of more than two classes the mean over one-versus-rest.

    Args:
        scores: (images, classes), higher for what is likelier.
        truth: (images,), the class of each, from 0; every class occurs.
    """
    return _area(*_ranked(scores, truth), np.ones(len(truth)))


def _interval(scores: np.ndarray, truth: np.ndarray, seed: int) -> tuple[float, float]:
    """95% bootstrap interval of `macro_auc`: images drawn with replacement within each class."""
    random = np.random.default_rng(seed)
    ranks, positive = _ranked(scores, truth)
    members = [np.flatnonzero(truth == index) for index in range(truth.max() + 1)]
    areas = []
    for _ in range(_DRAWS):
        drawn = np.concatenate([random.choice(images, len(images)) for images in members])
        areas.append(_area(ranks, positive, np.bincount(drawn, minlength=len(truth))))
    low, high = np.quantile(areas, [0.025, 0.975])
    return float(low), float(high)


def _ranked(scores: np.ndarray, truth: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """For each one-versus-rest the scores' ranks, equal for equal scores, and who is positive."""
    columns = [1] if scores.shape[1] == 2 else range(scores.shape[1])
    ranks = [np.unique(scores[:, column], return_inverse=True)[1] for column in columns]
    return ranks, [truth == column for column in columns]


def _area(ranks: list[np.ndarray], positive: list[np.ndarray], weights: np.ndarray) -> float:
    areas = []
    for rank, is_positive in zip(ranks, positive, strict=True):
        above = np.bincount(rank, weights * is_positive)
        below = np.bincount(rank, weights * ~is_positive)
        areas.append(above @ (below.cumsum() - below / 2) / (above.sum() * below.sum()))
    return float(np.mean(areas))
