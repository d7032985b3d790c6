"""An audit as an HTML page.

The figures are inline SVG rather than drawn by matplotlib, so that they follow the page between light and dark.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import NamedTuple

from markupsafe import Markup, escape

from ddkeras.reporting.html import template_environment

_QUESTIONS = {"label": "fake or real", "category": "which category"}
_GROUPS = {
    "all": "all features",
    "file": "the file: codec and size",
    "codec": "codec",
    "size": "size",
    "name": "file name",
}
_CARRIER_GROUPS = ("file", "name")  # the others would repeat theirs
_PAIRS = {
    "exact_across_labels": "The same bytes, labelled both real and fake",
    "exact_across_splits": "The same bytes in two splits",
    "near_across_splits": "Nearly the same picture in two splits",
    "near_across_labels": "A fake beside the photo it was made from, in one split (not a leak)",
}
_HISTOGRAMS = {
    "height": "height, pixels",
    "width": "width, pixels",
    "jpeg_quality": "JPEG quality",
    "bytes_per_pixel": "file size, bytes per pixel",
}
_SPLITS, _LABELS = ("train", "validation", "test"), ("real", "fake", "unlabelled")
_MAX_SOURCES = 40  # rows of the table of sources
_MAX_CARRIERS, _MAX_VALUES = 3, 4
# At the end of a sentence the last option may have a value, such as `--view windows`.
_COMMAND = re.compile(r"ddk [a-z]+(-[a-z]+)*( [A-Z]+)?( --[a-z]+(-[a-z]+)*)*( [a-z]+(?=\.$))?")
_AUC_AXIS = 180  # length of the axis of an AUC, in SVG units
_HISTOGRAM_WIDTH, _HISTOGRAM_HEIGHT = 300, 60  # of the bars of one label, in SVG units
_SHRINKING_WIDTH = 440  # of the bars of shrink factors


def page(result: dict, thumbnails: Mapping[str, bytes]) -> str:
    """Render an audit as a page.

    Args:
        result: what `pipelines.audit.report.judge` returns.
        thumbnails: JPEGs of at most 160 pixels a side, by the paths of the pairs in `result`.
    """
    environment = template_environment()
    environment.filters["commands"] = _mark_commands
    balance = result["balance"]
    return environment.get_template("audit.html.j2").render(
        title=f"Audit of {result['data']}",
        result=result,
        questions=list(_questions(result["shortcuts"])),
        groups=_GROUPS,
        auc_axis=_AUC_AXIS,
        auc_position=_auc_position,
        shrinking=_shrinking(result["views"]),
        pair_titles=_PAIRS,
        thumbnails=thumbnails,
        cells=_cell_table(balance),
        formats=_format_table(balance["formats"]),
        histograms=[_histogram(_HISTOGRAMS[name], bins) for name, bins in balance["histograms"].items() if bins],
        sources=_source_table(balance["counts"]),
        max_sources=_MAX_SOURCES,
    )


def _mark_commands(text: str) -> Markup:
    """Set `ddk` commands as code, so that lines do not break at their hyphens."""
    return Markup(_COMMAND.sub(r"<code>\g<0></code>", str(escape(text))))


# --- shortcuts -------------------------------------------------------------------------------------------------


class _Carrier(NamedTuple):
    """A feature that tells the classes apart, and its value in each class."""

    name: str
    values: str


class _Shortcut(NamedTuple):
    """A classifier of one group of features; `row` is as in `audit.json`."""

    row: dict
    carriers: list[_Carrier]


class _Question(NamedTuple):
    """What the classifiers were asked; without shortcuts there were too few images for an answer."""

    text: str
    images: int
    shortcuts: list[_Shortcut]


def _questions(rows: list[dict]) -> Iterator[_Question]:
    for (target, within), grouped in groupby(rows, lambda row: (row["target"], row["within"])):
        answers = list(grouped)
        text = _QUESTIONS[target] + (f", in {within}" if within else "")
        shortcuts = [_Shortcut(row, list(_carriers(row))) for row in answers if row["auc"] is not None]
        yield _Question(text, answers[0]["images"], shortcuts)


def _auc_position(auc: float) -> float:
    """Where an AUC lies on an axis from 0.5 to 1; below 0.5 is at its start."""
    return round((max(auc, 0.5) - 0.5) * 2 * _AUC_AXIS, 1)


def _carriers(row: dict) -> Iterator[_Carrier]:
    if row["group"] not in _CARRIER_GROUPS:
        return
    for feature in row["features"][:_MAX_CARRIERS]:
        name, kind = feature["name"].replace("_", " "), feature["kind"]
        values = list(feature["values"].items())[:_MAX_VALUES]
        yield _Carrier(
            f"median {name}" if kind == "median" else f"{name} {kind}",
            ", ".join(f"{label} {value}" for label, value in values),
        )


# --- balance ---------------------------------------------------------------------------------------------------


class _Count(NamedTuple):
    """A number of images; a scarce one is marked as a warning, even if it is 0."""

    images: int
    is_scarce: bool = False


class _CountTable(NamedTuple):
    """Rows with the values of some keys, such as split and label, and a number of images for each column."""

    keys: list[str]
    columns: list[str]
    rows: list[tuple[list[str], list[_Count]]]


def _cell_table(balance: dict) -> _CountTable:
    """Images by split, label and category."""
    images: Counter[tuple[str, str, str]] = Counter()
    for row in balance["counts"]:
        images[row["split"], row["label"], row["category"]] += row["images"]
    scarce = {(row["split"], row["label"], row["category"]) for row in balance["empty"] + balance["tiny"]}
    categories = sorted({category for _, _, category in images})
    rows = []
    for split, label in sorted({(split, label) for split, label, _ in [*images, *scarce]}, key=_order):
        cells = [(split, label, category) for category in categories]
        counts = [_Count(images[cell], cell in scarce) for cell in cells]
        rows.append(([split, label], [*counts, _Count(sum(images[cell] for cell in cells))]))
    return _CountTable(["split", "label"], [*(category or "no class" for category in categories), "total"], rows)


def _order(split_and_label: tuple[str, str]) -> tuple[int, int]:
    split, label = split_and_label
    return _SPLITS.index(split), _LABELS.index(label)


def _format_table(formats: dict[str, dict[str, int]]) -> _CountTable:
    """Images by label and file format."""
    columns = sorted({name for numbers in formats.values() for name in numbers})
    rows = [([label], [_Count(numbers.get(name, 0)) for name in columns]) for label, numbers in formats.items()]
    return _CountTable(["label"], columns, rows)


def _source_table(counts: list[dict]) -> _CountTable:
    """Images by source, the largest first; without rows where no source is known."""
    images: Counter[tuple[str, str]] = Counter()
    for row in counts:
        images[row["source"], row["label"]] += row["images"]
    rows = [([source or "unknown", label], [_Count(number)]) for (source, label), number in images.most_common()]
    return _CountTable(["source", "label"], ["images"], rows if any(source for source, _ in images) else [])


# --- histograms ------------------------------------------------------------------------------------------------


class _Bar(NamedTuple):
    label: str
    x: float
    y: float
    width: float
    height: float


class _Tick(NamedTuple):
    x: float
    anchor: str
    text: str


class _Histogram(NamedTuple):
    """Shares of the reals as bars upwards and of the fakes as bars downwards from one line, in SVG units."""

    title: str
    bars: list[_Bar]
    ticks: list[_Tick]
    width: int = _HISTOGRAM_WIDTH
    baseline: int = _HISTOGRAM_HEIGHT


def _histogram(title: str, bins: dict) -> _Histogram:
    low, high = bins["low"], bins["high"]
    if low < high:
        ticks = [_Tick(0, "start", f"{low:.4g}"), _Tick(_HISTOGRAM_WIDTH, "end", f"{high:.4g}")]
    else:
        ticks = [_Tick(_HISTOGRAM_WIDTH / 2, "middle", f"{low:.4g}")]
    return _Histogram(title, _bars(bins, _HISTOGRAM_WIDTH), ticks)


def _bars(bins: dict, width: int) -> list[_Bar]:
    """The share of each label's images in each bin, the highest of them as high as the chart."""
    step = width / (len(bins["edges"]) - 1)
    shares = {label: [number / (sum(bins[label]) or 1) for number in bins[label]] for label in ("real", "fake")}
    highest = max(*shares["real"], *shares["fake"])
    bars = []
    for label, label_shares in shares.items():
        for index, share in enumerate(label_shares):
            height = round(_HISTOGRAM_HEIGHT * share / highest, 1)
            if height:
                y = _HISTOGRAM_HEIGHT - height if label == "real" else _HISTOGRAM_HEIGHT
                bars.append(_Bar(label, index * step + 0.5, y, step - 1, height))
    return bars


class _Median(NamedTuple):
    """The median shrink factor of a label, at `x`, and its text."""

    label: str
    x: float
    anchor: str
    text: str


class _Shrinking(NamedTuple):
    """Shrink factors on a scale of powers of two, with bars as in `_Histogram`; at `unchanged` the factor is 1."""

    bars: list[_Bar]
    ticks: list[_Tick]
    medians: list[_Median]
    unchanged: float
    width: int = _SHRINKING_WIDTH
    baseline: int = _HISTOGRAM_HEIGHT


def _shrinking(views: dict) -> _Shrinking | None:
    bins = views["histogram"]
    if not bins:
        return None
    low, high = round(math.log2(bins["edges"][0])), round(math.log2(bins["edges"][-1]))

    def position(factor: float) -> float:
        share = (math.log2(factor) - low) / (high - low)
        return round(_SHRINKING_WIDTH * min(max(share, 0), 1), 1)  # outliers are in the first and last bins

    ticks = [_Tick(position(2.0**octave), "middle", f"{2 ** abs(octave)}") for octave in range(low, high + 1)]
    medians = {label: shrink["median"] for label, shrink in views["labels"].items() if shrink}
    marks = [_mark_median(label, position(median), median) for label, median in medians.items()]
    return _Shrinking(_bars(bins, _SHRINKING_WIDTH), ticks, marks, position(1))


def _mark_median(label: str, x: float, median: float) -> _Median:
    near_end = 70  # closer, half of the text would leave the chart
    anchor = "start" if x < near_end else "end" if x > _SHRINKING_WIDTH - near_end else "middle"
    change = f"shrunk by {median:.1f}" if median >= 1 else f"enlarged by {1 / median:.1f}"
    return _Median(label, x, anchor, f"median: {change}")
