"""Figures, drawn with matplotlib, which only this module imports, and `fonts`."""

import io
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType
from PIL import Image
from sklearn.metrics import precision_recall_curve, roc_curve

from ddkeras.metrics.classification import probability
from ddkeras.metrics.split_metrics import PerturbedMetrics
from ddkeras.reporting.document import Drawing, printable
from ddkeras.reporting.palette import LIGHT
from pipelines.intervals import wilson_interval
from pipelines.wording import count_of

_REAL, _FAKE, _OTHER, _INK, _DIM, _LINE = (LIGHT[name] for name in ("real", "fake", "other", "ink", "dim", "line"))
_POINTS = 500  # of a curve; more are not visible
_BINS = 15  # of probabilities, as in the calibration error
_PROBABILITIES = (1e-6, 1e-4, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1 - 1e-4, 1 - 1e-6)  # axis ticks
_STYLE: dict[RcKeyType, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": _DIM,
    "axes.grid": True,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": _LINE,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "svg.hashsalt": "ddkeras",  # the same figure gives the same file
    "text.color": _INK,
    "xtick.color": _DIM,
    "ytick.color": _DIM,
}
_LOSS_LABELS = {"cross_entropy": "cross-entropy (nats)", "focal": "focal loss", "squared_error": "squared error"}

# --- ranking ---------------------------------------------------------------------------------------------------


def roc(
    labels: np.ndarray, logits: np.ndarray, operating_point: tuple[float, float], sample: str, *, is_log: bool
) -> Drawing:
    """The ROC curve and the operating point.

    Args:
        labels: (n,), 0 real or 1 fake; both occur.
        logits: (n,), of fake.
        operating_point: false positive rate and recall.
        sample: the split and its number of images, for the title.
        is_log: whether the false positive rate has a logarithmic axis.
    """
    false_positive_rate, recall, _ = roc_curve(labels, logits)
    least = 0.5 / (labels == 0).sum()  # half an image, in place of 0 on a logarithmic axis

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        if is_log:
            axes.set(xscale="log", xlim=(least, 1.1))
        else:
            axes.set(xlim=(-0.01, 1.01))
        x = np.maximum(false_positive_rate, least) if is_log else false_positive_rate
        chance = np.linspace(0, 1, 200)
        axes.plot(np.maximum(chance, least), chance, color=_DIM, linestyle=":", label="chance")
        axes.plot(*_thinned(np.log(x) if is_log else x, x, recall), color=_INK, label="this run")
        x_point = max(operating_point[0], least) if is_log else operating_point[0]
        _mark(axes, *operating_point, at=x_point)
        axes.set(
            xlabel="false positive rate: reals called fake", ylabel="recall: fakes called fake", ylim=(-0.01, 1.01)
        )
        axes.legend(loc="upper left" if is_log else "lower right")

    title = "ROC curve, logarithmic" if is_log else "ROC curve"
    return _drawing("roc_log" if is_log else "roc", f"{title}\n{sample}", draw)


def precision_recall(
    labels: np.ndarray, logits: np.ndarray, operating_point: tuple[float, float], sample: str
) -> Drawing:
    """The precision-recall curve of the fakes and the operating point.

    Args:
        labels, logits, sample: as in `roc`.
        operating_point: recall and precision; the precision is NaN if nothing is called fake.
    """
    precision, recall, _ = precision_recall_curve(labels, logits)
    prevalence = float(np.mean(labels))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        chance = f"chance: {prevalence:.0%} of the images are fake"
        axes.axhline(prevalence, color=_DIM, linestyle=":", label=chance)
        # In steps: precision is not linear between two thresholds.
        axes.plot(*_thinned(recall, recall, precision), color=_INK, drawstyle="steps-post", label="this run")
        if not np.isnan(operating_point[1]):
            _mark(axes, *operating_point)
        axes.set(xlabel="recall: fakes called fake", ylabel="precision: images called fake that are fake")
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        axes.legend(loc="lower left")

    return _drawing("precision_recall", f"Precision and recall of fakes\n{sample}", draw)


def scores(labels: np.ndarray, logits: np.ndarray, thresholds: Sequence[tuple[str, float]], sample: str) -> Drawing:
    """Histograms of the scores by label, and the thresholds of the verdicts.

    Args:
        labels: (n,), 0 real or 1 fake.
        logits: (n,), calibrated, of fake.
        thresholds: name and calibrated logit of each.
        sample: as in `roc`.
    """
    ends = [threshold for _, threshold in thresholds]
    low, high = np.quantile(logits, [0.002, 0.998])
    low, high = min(low, *ends) - 0.5, max(high, *ends) + 0.5
    edges = np.linspace(low, high, 41)
    inside = np.clip(logits, low, high)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for label, (name, colour) in enumerate((("real", _REAL), ("fake", _FAKE))):
            selected = inside[labels == label]
            if len(selected):
                heights = np.histogram(selected, edges)[0] / len(selected)
                axes.stairs(heights, edges, fill=True, color=colour, alpha=0.3)
                axes.stairs(heights, edges, color=colour, label=f"{name}, n = {len(selected):,}")
        for (name, threshold), style in zip(thresholds, ("--", "-."), strict=True):
            axes.axvline(threshold, color=_INK, linestyle=style, linewidth=1, label=name)
        ticks = [p for p in _PROBABILITIES if low <= math.log(p / (1 - p)) <= high]
        ticks = [p for p in ticks if high - low < 8 or p not in (0.25, 0.75)]
        axes.set_xticks([math.log(p / (1 - p)) for p in ticks], [f"{100 * p:.6g}%" for p in ticks])
        axes.set(
            xlabel="probability of fake, log-odds scale", ylabel="share of each label's images", xlim=(low, high)
        )
        figure.legend(loc="outside lower center", ncols=2)

    return _drawing("scores", f"Scores by label\n{sample}", draw)


# --- calibration and decisions ---------------------------------------------------------------------------------


def reliability(labels: np.ndarray, logits: np.ndarray, calibrated: np.ndarray, sample: str) -> Drawing:
    """The reliability diagram, before and after calibration: fakes among the images of each bin of probability.

    Args:
        labels, sample: as in `roc`.
        logits, calibrated: (n,), of fake, before and after calibration.
    """

    def draw(figure: Figure) -> None:
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        axes.plot([0, 1], [0, 1], color=_DIM, linestyle=":", label="perfect")
        for name, values, colour, marker in (("before", logits, _DIM, "s"), ("after", calibrated, _INK, "o")):
            middle, share, low, high, number = _binned(labels, probability(values))
            has = number > 0
            if name == "after":  # two sets of intervals would be unreadable
                axes.errorbar(
                    middle[has], share[has], [(share - low)[has], (high - share)[has]], fmt="none", color=colour
                )
            face = "none" if name == "before" else colour
            axes.plot(
                middle[has],
                share[has],
                color=colour,
                marker=marker,
                markerfacecolor=face,
                label=f"{name} calibration",
            )
            below.stairs(number, np.linspace(0, 1, _BINS + 1), color=colour, label=name)
        axes.set(ylabel="share of fakes", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        axes.legend(loc="upper left")
        below.set(xlabel="probability of fake", ylabel="images", yscale="log", ylim=(0.8, None))

    return _drawing("reliability", f"Reliability, with 95% intervals\n{sample}", draw, height=4.6)


def risk_coverage(is_wrong: np.ndarray, certainty: np.ndarray, sample: str) -> Drawing:
    """The risk-coverage curve: how many verdicts are wrong if only the most certain images get one.

    Args:
        is_wrong: bool (n,), whether the verdict would be wrong if every image had one.
        certainty: (n,); images where it is 0 or more have a verdict at the operating point.
        sample: as in `roc`.
    """
    order = np.argsort(-certainty, kind="stable")
    number = np.arange(1, len(order) + 1)
    coverage, risk = number / len(order), np.cumsum(is_wrong[order]) / number
    ends = np.append(np.flatnonzero(np.diff(certainty[order])), len(order) - 1)  # ties are decided together
    decided = int((certainty >= 0).sum())

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(*_thinned(coverage[ends], coverage[ends], risk[ends]), color=_INK, label="this run")
        if decided:
            _mark(axes, coverage[decided - 1], risk[decided - 1])
        top = max(1.15 * risk[len(order) // 20 :].max(), 0.02)  # the first few images are too noisy
        axes.set(xlabel="coverage: images with a verdict", ylabel="risk: wrong verdicts among these")
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.02 * top, top))
        axes.legend(loc="upper left")

    return _drawing("risk_coverage", f"Risk and coverage\n{sample}", draw)


def confusion(
    name: str, title: str, counts: np.ndarray, rows: Sequence[str], columns: Sequence[str], sample: str
) -> Drawing:
    """A confusion matrix.

    Args:
        name, title: of the figure.
        counts: int (rows, columns), number of images.
        rows, columns: names of the true and of the predicted classes.
        sample: as in `roc`.
    """
    size = max(5.0, 0.75 * len(columns) + 1.5), max(3.4, 0.6 * len(rows) + 1.6)
    return _drawing(
        f"confusion_{name}",
        f"{title}\n{sample}",
        lambda figure: draw_confusion(figure.subplots(), counts, rows, columns),
        *size,
    )


def draw_confusion(axes: Axes, counts: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Draw a confusion matrix: true classes as rows, predicted as columns, shaded by the share of the row."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for (row, column), count in np.ndenumerate(counts):
        # A rectangle rather than a picture, so that its colour follows the page.
        corner = (column - 0.5, row - 0.5)
        axes.add_patch(
            matplotlib.patches.Rectangle(corner, 1, 1, color=_OTHER, alpha=0.5 * shares[row, column], linewidth=0)
        )
        axes.text(column, row, f"{count:,}\n{shares[row, column]:.0%}", ha="center", va="center")
    axes.set_xticks(range(len(columns)), map(_name, columns), rotation=30 if len(columns) > 3 else 0)
    axes.set_yticks(range(len(rows)), map(_name, rows))
    axes.set(xlabel="predicted", ylabel="true", xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.grid(False)


# --- under other conditions ------------------------------------------------------------------------------------


def robustness(variants: Sequence[PerturbedMetrics], sample: str) -> Drawing:
    """AUC, recall and false positive rate under perturbations.

    Args:
        variants: a row each.
        sample: as in `roc`.
    """
    rows = np.arange(len(variants))
    series = (
        ([variant.auc for variant in variants], "AUC", _INK, "o", -0.2),
        ([variant.recall for variant in variants], "fakes called fake", _FAKE, "s", 0),
        ([variant.false_positive_rate for variant in variants], "reals called fake", _REAL, "D", 0.2),
    )

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for estimates, name, colour, marker, shift in series:
            value, low, high = np.array([(each.value, each.low, each.high) for each in estimates]).T
            axes.errorbar(
                value,
                rows + shift,
                xerr=[value - low, high - value],
                fmt=marker,
                color=colour,
                markersize=4,
                label=name,
            )
        axes.set_yticks(rows, [_name(variant.name) for variant in variants])
        axes.set(xlabel="AUC, or share of a label's images", xlim=(-0.02, 1.02), ylim=(len(rows) - 0.5, -0.5))
        axes.grid(False, axis="y")
        figure.legend(loc="outside lower center", ncols=3)

    title = f"Robustness, with 95% intervals\n{sample}"
    return _drawing("robustness", title, draw, height=1.6 + 0.42 * len(variants))


def write_matrix(path: Path, table: pd.DataFrame, examples: Mapping[str, int]) -> None:
    """Draw the cross-source matrix into the PNG `path`: AUC by held-out source (rows) and tested source (columns).

    Args:
        path: to write.
        table: of AUC; its index names the source held out of each training.
        examples: number of fakes tested, by source.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(
            figsize=(2.6 + 0.95 * len(table.columns), 2 + 0.45 * len(table)), dpi=144, layout="constrained"
        )
        axes = figure.subplots()
        axes.imshow(table, cmap="cividis", vmin=0.5, vmax=1, aspect="auto")
        for row, held_out in enumerate(table.index):
            for column, source in enumerate(table.columns):
                value = table.loc[held_out, source]
                colour = "white" if value <= 0.75 else "black"  # also if there is no value
                text = axes.text(column, row, "none" if np.isnan(value) else f"{value:.2f}", color=colour)
                text.set(horizontalalignment="center", verticalalignment="center")
                if held_out == source:
                    text.set_bbox({"fill": False, "edgecolor": colour})
        names = [f"{_name(source)}\nn = {examples[source]:,}" for source in table.columns]
        axes.set_xticks(range(len(names)), names, rotation=40 if len(names) > 4 else 0)
        axes.set_yticks(range(len(table)), map(_name, table.index))
        axes.set(xlabel="source of the fakes tested, against reals of the same categories", ylabel="source held out")
        axes.set_title("AUC by source; boxes: the source was not in training")
        axes.grid(False)
        figure.savefig(path)


# --- a video ---------------------------------------------------------------------------------------------------


def write_curve(
    path: Path,
    name: str,
    sample: str,
    seconds: np.ndarray,
    probabilities: np.ndarray,
    verdicts: Sequence[str],
    answer: tuple[str, float],
) -> None:
    """Draw the scores of a video's frames, or of the faces in them, over time into the PNG `path`.

    Args:
        path: to write.
        name: of the video.
        sample: number of frames or faces, for the title.
        seconds: (n,), time since the first frame, rising.
        probabilities: (n,), of fake.
        verdicts: n of real, fake or unsure.
        answer: verdict and probability of the video.
    """
    times, first = np.unique(seconds, return_index=True)
    end = max(seconds[-1], 1)
    size = 4 if len(seconds) <= 200 else 2  # points
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8, 3.6), dpi=144, layout="constrained")
        axes = figure.subplots()
        axes.plot(times, np.maximum.reduceat(probabilities, first), color=_DIM, linewidth=0.8)
        for verdict, colour, marker in (("real", _REAL, "o"), ("unsure", _OTHER, "D"), ("fake", _FAKE, "s")):
            selected = np.array(verdicts) == verdict
            label = f"{verdict}, n = {selected.sum():,}"
            axes.plot(seconds[selected], probabilities[selected], marker, color=colour, markersize=size, label=label)
        label = f"the video: {answer[0]}, {answer[1]:.1%}"
        axes.axhline(answer[1], color=_INK, linestyle="--", linewidth=1, label=label)
        axes.set(xlabel="time (s)", ylabel="probability of fake", xlim=(-0.01 * end, 1.01 * end), ylim=(-0.03, 1.03))
        axes.set_title(f"{_name(name)}\n{sample}")
        figure.legend(loc="outside lower center", ncols=4)
        figure.savefig(path)


# --- a training ------------------------------------------------------------------------------------------------


def history(rows: pd.DataFrame, best_epoch: int, loss: str) -> list[Drawing]:
    """Loss and accuracy by epoch.

    Args:
        rows: one per epoch, as in history.csv.
        best_epoch: the epoch whose weights were kept, from 1.
        loss: of the authenticity head, as the recipe names it.
    """
    heads = [head for head in ("authenticity", "category") if f"{head}_accuracy" in rows]
    total = ("", _DIM)
    by_head = [(f"{head}_", colour) for head, colour in zip(heads, (_INK, _OTHER), strict=False)]
    losses = [total, *by_head] if len(heads) > 1 else [total]
    return [
        _by_epoch("loss", "Loss", _LOSS_LABELS[loss], rows, losses, best_epoch),
        _by_epoch("accuracy", "Accuracy", "accuracy", rows, by_head, best_epoch),
    ]


def _by_epoch(
    column: str, title: str, unit: str, rows: pd.DataFrame, curves: Sequence[tuple[str, str]], best_epoch: int
) -> Drawing:
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for split, prefix, style, marker in (("train", "", "--", "s"), ("validation", "val_", "-", "o")):
            for head, colour in curves:
                name = f"{head.removesuffix('_') or 'total'}, {split}"
                axes.plot(
                    rows["epoch"],
                    rows[f"{prefix}{head}{column}"],
                    linestyle=style,
                    color=colour,
                    marker=marker,
                    markersize=3,
                    label=name,
                )
        axes.axvline(best_epoch, color=_DIM, linewidth=1, linestyle=":", label=f"kept: epoch {best_epoch}")
        axes.set(xlabel="epoch", ylabel=unit)
        axes.locator_params(axis="x", integer=True)
        figure.legend(loc="outside lower center", ncols=2)

    return _drawing(column, f"{title} by epoch, {len(rows)} in all", draw, height=4.6)


# --- tuning ----------------------------------------------------------------------------------------------------


def write_trials(path: Path, trials: pd.DataFrame, column: str, *, more_is_better: bool) -> None:
    """Draw the value of each trial of a study, and the best so far, into the PNG `path`.

    Args:
        path: to write.
        trials: one row each: `number`, `value` and whether it was `pruned`.
        column: the name of the value.
        more_is_better: whether a higher value is better.
    """
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    done = trials[~trials["pruned"]].sort_values("number")
    best = done["value"].cummax() if more_is_better else done["value"].cummin()
    axes.step(done["number"], best, where="post", color="tab:red", label="best so far")
    _draw_trials(axes, trials, trials["number"])
    axes.set(
        title=f"{count_of(len(done), 'trial')}, and {len(trials) - len(done)} pruned", xlabel="trial", ylabel=column
    )
    axes.locator_params(axis="x", integer=True)
    axes.legend(fontsize=8)
    figure.savefig(path)


def write_parameters(
    path: Path, trials: pd.DataFrame, column: str, best: int, names: list[str], logarithmic: Collection[str]
) -> None:
    """Draw the values of a study's trials over each field that was searched into the PNG `path`.

    Args:
        path: to write.
        trials: as in `write_trials`, with a column for each of `names`.
        column: the name of the value.
        best: the number of the best trial.
        names: of the fields.
        logarithmic: those of `names` with a logarithmic axis.
    """
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(1 + 3.6 * columns, 0.8 + 3.2 * rows), dpi=120, layout="constrained")
    for position, name in enumerate(names, start=1):
        axes = figure.add_subplot(rows, columns, position)
        values = trials[name] if _is_number(trials[name]) else trials[name].map(lambda value: f"{value}"[:16])
        _draw_trials(axes, trials, values)
        is_best = trials["number"] == best
        axes.scatter(
            values[is_best], trials["value"][is_best], s=110, color="none", edgecolor="tab:red", label="best"
        )
        axes.set_xlabel(name)
        if name in logarithmic:
            axes.set_xscale("log")
    figure.suptitle("Trials by searched field")
    figure.supylabel(column)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path)


def _draw_trials(axes: Axes, trials: pd.DataFrame, x: pd.Series) -> None:
    for pruned, marker, colour, label in (
        (True, "x", "grey", "pruned"),
        (False, "o", "tab:blue", "completed"),
    ):
        selected = trials["pruned"] == pruned
        axes.scatter(x[selected], trials["value"][selected], marker=marker, color=colour, s=22, label=label)
    if trials["value"].max() > 10 * trials["value"].min() > 0:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)


def _is_number(values: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


# --- drawing ---------------------------------------------------------------------------------------------------


def _drawing(
    name: str, title: str, draw: Callable[[Figure], None], width: float = 5.0, height: float = 4.0
) -> Drawing:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), dpi=144, layout="constrained")
        draw(figure)
        figure.suptitle(title, size=matplotlib.rcParams["axes.titlesize"])  # long axis labels do not move it
        # Drawn directly on each canvas: `savefig` would draw twice to find out the size, which is known.
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        png, svg = io.BytesIO(), io.StringIO()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]  # opaque
        Image.fromarray(pixels).save(png, "PNG", compress_level=3, dpi=(figure.dpi, figure.dpi))
        figure.set_layout_engine("none")  # already laid out
        for patch in (figure.patch, *(axes.patch for axes in figure.axes)):
            patch.set_visible(False)  # the page has its own background
        FigureCanvasSVG(figure).print_svg(svg)
    return Drawing(name, title.replace("\n", ", "), png.getvalue(), _within_page(svg.getvalue(), title))


def _within_page(svg: str, title: str) -> str:
    """An SVG file of matplotlib as part of an HTML page: in the colours of the page, without ids that could clash."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)
    svg = re.sub(r' (xmlns(:\w+)?|version|width|height)="[^"]*"', "", svg[: svg.index(">")]) + svg[svg.index(">") :]
    for name, colour in LIGHT.items():
        if name not in ("page", "card"):
            svg = svg.replace(colour, f"var(--{name})")
    label = title.replace("\n", ", ")
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)


def _name(text: str) -> str:
    """A name to draw; matplotlib would read text between dollar signs as mathematics."""
    return printable(text)[:40].replace("$", r"\$")


def _mark(axes: Axes, x: float, y: float, at: float | None = None) -> None:
    name = f"operating point ({x:.1%}, {y:.1%})"
    axes.plot(x if at is None else at, y, "o", color=_OTHER, markersize=7, label=name, zorder=5)


def _thinned(across: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The visible points of a curve, evenly spaced along it; `across` is x on the scale of its axis."""
    if len(x) <= _POINTS:
        return x, y
    width = np.ptp(across) or 1.0
    distance = np.concatenate([[0], np.cumsum(np.abs(np.diff(across)) / width + np.abs(np.diff(y)))])
    kept = np.unique(np.searchsorted(distance, np.linspace(0, distance[-1], _POINTS)))
    return x[kept], y[kept]


def _binned(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, ...]:
    """For each bin of equal width: mean probability, share of fakes, its Wilson interval, and number of images."""
    bins = np.minimum((probabilities * _BINS).astype(int), _BINS - 1)
    number = np.bincount(bins, minlength=_BINS)
    divisor = np.maximum(number, 1)
    share = np.bincount(bins, labels, _BINS) / divisor
    low, high = wilson_interval(share, divisor)
    return (
        np.bincount(bins, probabilities, _BINS) / divisor,
        share,
        np.minimum(low, share),
        np.maximum(high, share),
        number,
    )
