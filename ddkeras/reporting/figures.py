"""Numbers as figures: the only room with matplotlib in it."""

import io
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import precision_recall_curve, roc_curve

from ddkeras.metrics.classification import probability
from ddkeras.reporting.document import Drawing, printable
from ddkeras.reporting.palette import LIGHT

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"  # DejaVu, which comes with matplotlib
_REAL, _FAKE, _OTHER, _INK, _DIM, _LINE = (LIGHT[name] for name in ("real", "fake", "other", "ink", "dim", "line"))
_POINTS = 500  # of a curve; more cannot be seen
_BINS = 15  # of probabilities, as in the calibration error
_Z2 = 3.841458820694124  # the square of the 97.5% quantile of the normal distribution
_PROBABILITIES = (1e-6, 1e-4, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1 - 1e-4, 1 - 1e-6)  # marks of an axis
_LOOK = {
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
    "svg.hashsalt": "ddkeras",  # one figure is one file
    "text.color": _INK,
    "xtick.color": _DIM,
    "ytick.color": _DIM,
}
_LOSS_LABELS = {"cross_entropy": "cross-entropy (nats)", "focal": "focal loss", "squared_error": "squared error"}
Estimate = dict[str, float | None]

# --- ranking ---------------------------------------------------------------------------------------------------


def roc(
    labels: np.ndarray, logits: np.ndarray, called: tuple[float, float], counted: str, *, is_log: bool
) -> Drawing:
    """The ROC curve, and the operating point on it.

    Args:
        labels: (n,), 0 real or 1 fake; both occur.
        logits: (n,), of fake.
        called: the shares of reals and of fakes that are called fake.
        counted: how many images of what split these are; it is part of the title.
        is_log: whether few false alarms have most of the room.
    """
    false_alarms, detected, _ = roc_curve(labels, logits)
    least = 0.5 / (labels == 0).sum()  # half an image: where none is, on a logarithmic axis

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        if is_log:
            axes.set(xscale="log", xlim=(least, 1.1))
        else:
            axes.set(xlim=(-0.01, 1.01))
        x = np.maximum(false_alarms, least) if is_log else false_alarms
        chance = np.linspace(0, 1, 200)
        axes.plot(np.maximum(chance, least), chance, color=_DIM, linestyle=":", label="chance")
        axes.plot(*_thinned(np.log(x) if is_log else x, x, detected), color=_INK, label="this run")
        _mark(axes, *called, at=max(called[0], least) if is_log else called[0])
        axes.set(xlabel="share of real images called fake", ylabel="share of fakes found", ylim=(-0.01, 1.01))
        axes.legend(loc="upper left" if is_log else "lower right")

    title = "ROC, few false alarms in close-up" if is_log else "ROC: fakes found for false alarms"
    return _drawing("roc_log" if is_log else "roc", f"{title}\n{counted}", draw)


def precision_recall(labels: np.ndarray, logits: np.ndarray, called: tuple[float, float], counted: str) -> Drawing:
    """The precision over the recall of the fakes, and the operating point.

    Args:
        labels, logits, counted: as in `roc`.
        called: recall and precision; the latter None where nothing is called fake.
    """
    precision, recall, _ = precision_recall_curve(labels, logits)
    share = float(np.mean(labels))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axhline(share, color=_DIM, linestyle=":", label=f"chance, {share:.0%} of the images are fake")
        # As steps: between two thresholds there is no line to walk along.
        axes.plot(*_thinned(recall, recall, precision), color=_INK, drawstyle="steps-post", label="this run")
        if called[1] is not None:
            _mark(axes, *called)
        axes.set(xlabel="recall: share of fakes found", ylabel="precision: share of alarms that are right")
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        axes.legend(loc="lower left")

    return _drawing("precision_recall", f"Precision and recall of fakes\n{counted}", draw)


def scores(labels: np.ndarray, logits: np.ndarray, limits: Sequence[tuple[str, float]], counted: str) -> Drawing:
    """How the scores of each label are spread, and the limits of the verdicts.

    Args:
        labels: (n,), 0 real or 1 fake.
        logits: (n,), of the calibrated probabilities of fake.
        limits: what each is, and the calibrated logit where it lies.
        counted: as in `roc`.
    """
    ends = [limit for _, limit in limits]
    low, high = np.quantile(logits, [0.002, 0.998])
    low, high = min(low, *ends) - 0.5, max(high, *ends) + 0.5
    edges = np.linspace(low, high, 41)
    inside = np.clip(logits, low, high)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for label, (name, colour) in enumerate((("real", _REAL), ("fake", _FAKE))):
            own = inside[labels == label]
            if len(own):
                heights = np.histogram(own, edges)[0] / len(own)
                axes.stairs(heights, edges, fill=True, color=colour, alpha=0.3)
                axes.stairs(heights, edges, color=colour, label=f"{name}, n = {len(own):,}")
        for (name, limit), style in zip(limits, ("--", "-."), strict=False):
            axes.axvline(limit, color=_INK, linestyle=style, linewidth=1, label=name)
        marks = [p for p in _PROBABILITIES if low <= math.log(p / (1 - p)) <= high]
        marks = [p for p in marks if high - low < 8 or p not in (0.25, 0.75)]
        axes.set_xticks([math.log(p / (1 - p)) for p in marks], [f"{100 * p:.6g}%" for p in marks])
        axes.set(
            xlabel="probability of fake, log-odds scale", ylabel="share of the images of a label", xlim=(low, high)
        )
        figure.legend(loc="outside lower center", ncols=2)

    return _drawing("scores", f"Scores by label\n{counted}", draw)


# --- calibration and decisions ---------------------------------------------------------------------------------


def reliability(labels: np.ndarray, logits: np.ndarray, calibrated: np.ndarray, counted: str) -> Drawing:
    """The share of fakes among images of about one probability, before and after calibration, and how many they are.

    Args:
        labels, counted: as in `roc`.
        logits, calibrated: (n,), of fake, before and after.
    """

    def draw(figure: Figure) -> None:
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        axes.plot([0, 1], [0, 1], color=_DIM, linestyle=":", label="as it should be")
        for name, of, colour, marker in (("before", logits, _DIM, "s"), ("after", calibrated, _INK, "o")):
            middle, share, low, high, number = _binned(labels, probability(of))
            has = number > 0
            if name == "after":  # one set of intervals can be read, two cannot
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
        axes.set(ylabel="share that is fake", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        axes.legend(loc="upper left")
        below.set(xlabel="probability of fake", ylabel="images", yscale="log", ylim=(0.8, None))

    return _drawing("reliability", f"Calibration, with 95% intervals\n{counted}", draw, height=4.6)


def risk_coverage(wrong: np.ndarray, sureness: np.ndarray, counted: str) -> Drawing:
    """The share of wrong verdicts over the share of images that have one, the surest first.

    Args:
        wrong: bool (n,), whether the verdict would be wrong if each image had one.
        sureness: (n,); images where it is 0 or more have a verdict at the operating point.
        counted: as in `roc`.
    """
    order = np.argsort(-sureness, kind="stable")
    number = np.arange(1, len(order) + 1)
    coverage, risk = number / len(order), np.cumsum(wrong[order]) / number
    ends = np.append(np.flatnonzero(np.diff(sureness[order])), len(order) - 1)  # ties are decided together
    chosen = int((sureness >= 0).sum())

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(*_thinned(coverage[ends], coverage[ends], risk[ends]), color=_INK, label="this run")
        if chosen:
            _mark(axes, coverage[chosen - 1], risk[chosen - 1])
        top = max(1.15 * risk[len(order) // 20 :].max(), 0.02)  # the first few images swing wildly
        axes.set(
            xlabel="coverage: share of images with a verdict", ylabel="risk: share of these verdicts that are wrong"
        )
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.02 * top, top))
        axes.legend(loc="upper left")

    return _drawing("risk_coverage", f"Errors by how many images are left unsure\n{counted}", draw)


def confusion(
    name: str, title: str, counts: np.ndarray, rows: Sequence[str], columns: Sequence[str], counted: str
) -> Drawing:
    """Counts of true against predicted.

    Args:
        name, title, counted: of the figure.
        counts: (rows, columns), whole numbers.
        rows, columns: what is true, what was said.
    """
    size = max(5.0, 0.75 * len(columns) + 1.5), max(3.4, 0.6 * len(rows) + 1.6)
    return _drawing(
        f"confusion_{name}",
        f"{title}\n{counted}",
        lambda figure: draw_confusion(figure.subplots(), counts, rows, columns),
        *size,
    )


def draw_confusion(axes: Axes, counts: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Draw a confusion matrix: rows true, columns predicted; shade is the share of the row, text the count."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for (row, column), count in np.ndenumerate(counts):
        # A rectangle rather than a picture, as its colour follows that of the page.
        place = (column - 0.5, row - 0.5)
        axes.add_patch(
            matplotlib.patches.Rectangle(place, 1, 1, color=_OTHER, alpha=0.5 * shares[row, column], linewidth=0)
        )
        axes.text(column, row, f"{count:,}\n{shares[row, column]:.0%}", ha="center", va="center")
    axes.set_xticks(range(len(columns)), map(_name, columns), rotation=30 if len(columns) > 3 else 0)
    axes.set_yticks(range(len(rows)), map(_name, rows))
    axes.set(xlabel="predicted", ylabel="true", xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.grid(False)


# --- under other conditions ------------------------------------------------------------------------------------


def robustness(variants: Sequence[dict], counted: str) -> Drawing:
    """How ranking and verdicts hold when images are worked over.

    Args:
        variants: a `name` and estimates of `auc`, `called_fake_of_real` and `called_fake_of_fake`, as in the metrics.
        counted: as in `roc`.
    """
    rows = np.arange(len(variants))
    series = (
        ("auc", "AUC", _INK, "o", -0.2),
        ("called_fake_of_fake", "fakes called fake", _FAKE, "s", 0),
        ("called_fake_of_real", "reals called fake", _REAL, "D", 0.2),
    )

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for column, name, colour, marker, shift in series:
            value, low, high = (
                np.array([variant[column][part] for variant in variants], float) for part in ("value", "low", "high")
            )
            axes.errorbar(
                value,
                rows + shift,
                xerr=[value - low, high - value],
                fmt=marker,
                color=colour,
                markersize=4,
                label=name,
            )
        axes.set_yticks(rows, [_name(variant["name"]) for variant in variants])
        axes.set(xlabel="AUC, or share of the images of a label", xlim=(-0.02, 1.02), ylim=(len(rows) - 0.5, -0.5))
        axes.grid(False, axis="y")
        figure.legend(loc="outside lower center", ncols=3)

    title = f"Worked-over copies, with 95% intervals\n{counted}"
    return _drawing("robustness", title, draw, height=1.6 + 0.42 * len(variants))


def write_matrix(path: Path, table: pd.DataFrame, examples: Mapping[str, int]) -> None:
    """Draw the AUC of each training, a row, on each source, a column, into the PNG `path`.

    Args:
        table: of AUC, its index what was held out of the training.
        examples: of each source, those that were tested on.
    """
    with matplotlib.rc_context(_LOOK):
        figure = Figure(
            figsize=(2.6 + 0.95 * len(table.columns), 2 + 0.45 * len(table)), dpi=144, layout="constrained"
        )
        axes = figure.subplots()
        axes.imshow(table, cmap="cividis", vmin=0.5, vmax=1, aspect="auto")
        for row, held_out in enumerate(table.index):
            for column, source in enumerate(table.columns):
                value = table.loc[held_out, source]
                ink = {"color": "white" if value <= 0.75 else "black"}  # black where there is no value
                box = {"bbox": {"fill": False, "edgecolor": ink["color"]}} if held_out == source else {}
                axes.text(
                    column, row, "none" if np.isnan(value) else f"{value:.2f}", ha="center", va="center", **ink, **box
                )
        names = [f"{_name(source)}\nn = {examples[source]:,}" for source in table.columns]
        axes.set_xticks(range(len(names)), names, rotation=40 if len(names) > 4 else 0)
        axes.set_yticks(range(len(table)), map(_name, table.index))
        axes.set(xlabel="tested on fakes of, against reals of the same categories", ylabel="held out of the training")
        axes.set_title("AUC by source; in boxes: of a source that was not in training")
        axes.grid(False)
        figure.savefig(path)


# --- a video ---------------------------------------------------------------------------------------------------


def write_curve(
    path: Path,
    name: str,
    counted: str,
    seconds: np.ndarray,
    probabilities: np.ndarray,
    verdicts: Sequence[str],
    answer: tuple[str, float],
) -> None:
    """Draw what is said of the frames of a video, or of the faces in them, over time into the PNG `path`.

    Args:
        name, counted: of the video, and how many frames or faces these are; the title.
        seconds: (n,), of each, since the first frame; rising.
        probabilities: (n,), of being fake.
        verdicts: of each: real, fake or unsure.
        answer: the verdict on the video, and its probability.
    """
    called = np.array(verdicts)
    moments, first = np.unique(seconds, return_index=True)
    end = max(seconds[-1], 1)
    size = 4 if len(seconds) <= 200 else 2  # points
    with matplotlib.rc_context(_LOOK):
        figure = Figure(figsize=(8, 3.6), dpi=144, layout="constrained")
        axes = figure.subplots()
        axes.plot(moments, np.maximum.reduceat(probabilities, first), color=_DIM, linewidth=0.8)
        for verdict, colour, marker in (("real", _REAL, "o"), ("unsure", _OTHER, "D"), ("fake", _FAKE, "s")):
            own = called == verdict
            look = {"color": colour, "markersize": size, "label": f"{verdict}, n = {own.sum():,}"}
            axes.plot(seconds[own], probabilities[own], marker, **look)
        label = f"the video: {answer[0]}, {answer[1]:.1%}"
        axes.axhline(answer[1], color=_INK, linestyle="--", linewidth=1, label=label)
        axes.set(xlabel="time (s)", ylabel="probability of fake", xlim=(-0.01 * end, 1.01 * end), ylim=(-0.03, 1.03))
        axes.set_title(f"{_name(name)}\n{counted}")
        figure.legend(loc="outside lower center", ncols=4)
        figure.savefig(path)


# --- a training ------------------------------------------------------------------------------------------------


def history(rows: pd.DataFrame, best_epoch: int, loss: str) -> list[Drawing]:
    """Loss and accuracy by epoch.

    Args:
        rows: as `Run.history` gives them.
        best_epoch: the one whose weights were kept, from 1.
        loss: of the authenticity head, see `Recipe.loss`; that of the category head is cross-entropy.
    """
    heads = [head for head in ("authenticity", "category") if f"{head}_accuracy" in rows]
    several = [("", _DIM), *zip((f"{head}_" for head in heads), (_INK, _OTHER), strict=False)]
    losses = several if len(heads) > 1 else several[:1]
    accuracies = several[1:]
    return [
        _by_epoch("loss", "Loss", _LOSS_LABELS[loss], rows, losses, best_epoch),
        _by_epoch("accuracy", "Accuracy", "share of images right", rows, accuracies, best_epoch),
    ]


def _by_epoch(
    column: str, title: str, unit: str, rows: pd.DataFrame, curves: Sequence[tuple[str, str]], best_epoch: int
) -> Drawing:
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for split, prefix, style, marker in (("train", "", "--", "s"), ("validation", "val_", "-", "o")):
            for head, colour in curves:
                name = f"{head.removesuffix('_') or 'total'}, {split}"
                look = {"linestyle": style, "color": colour, "marker": marker, "markersize": 3, "label": name}
                axes.plot(rows["epoch"] + 1, rows[f"{prefix}{head}{column}"], **look)
        axes.axvline(best_epoch, color=_DIM, linewidth=1, linestyle=":", label=f"kept: epoch {best_epoch}")
        axes.set(xlabel="epoch", ylabel=unit)
        axes.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(loc="outside lower center", ncols=2)

    return _drawing(column, f"{title} by epoch, {len(rows)} in all", draw, height=4.6)


# --- a study ---------------------------------------------------------------------------------------------------


def write_trials(path: Path, trials: pd.DataFrame, column: str, *, more_is_better: bool) -> None:
    """Draw what each trial of a study came to, and the best until then, into the PNG `path`.

    Args:
        trials: a row for each: `number`, `value` and whether it was `pruned`.
        column: what `value` is.
    """
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    done = trials[~trials["pruned"]].sort_values("number")
    best = done["value"].cummax() if more_is_better else done["value"].cummin()
    axes.step(done["number"], best, where="post", color="tab:red", label="the best so far")
    _draw_trials(axes, trials, trials["number"])
    axes.set(title=f"{len(done)} trials, {len(trials) - len(done)} more pruned", xlabel="trial", ylabel=column)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(fontsize=8)
    figure.savefig(path)


def write_parameters(
    path: Path, trials: pd.DataFrame, column: str, best: int, names: list[str], logarithmic: Collection[str]
) -> None:
    """Draw what the trials of a study came to over each field that was searched into the PNG `path`.

    Args:
        trials: as in `write_trials`, with a column for each of `names`.
        best: the number of the best.
        logarithmic: those of `names` that were searched in their logarithm.
    """
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(1 + 3.6 * columns, 0.8 + 3.2 * rows), dpi=120, layout="constrained")
    for place, name in enumerate(names, start=1):
        axes = figure.add_subplot(rows, columns, place)
        values = trials[name] if _is_number(trials[name]) else trials[name].map(lambda value: f"{value}"[:16])
        _draw_trials(axes, trials, values)
        chosen = trials["number"] == best
        axes.scatter(values[chosen], trials["value"][chosen], s=110, color="none", edgecolor="tab:red", label="best")
        axes.set_xlabel(name)
        if name in logarithmic:
            axes.set_xscale("log")
    figure.suptitle("Trials by what was searched")
    figure.supylabel(column)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path)


def _draw_trials(axes: Axes, trials: pd.DataFrame, places: pd.Series) -> None:
    """Draw the value of each trial at its place."""
    for pruned, marker, colour, label in (
        (True, "x", "grey", "pruned"),
        (False, "o", "tab:blue", "trained to the end"),
    ):
        shown = trials["pruned"] == pruned
        axes.scatter(places[shown], trials["value"][shown], marker=marker, color=colour, s=22, label=label)
    if trials["value"].max() > 10 * trials["value"].min() > 0:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)


def _is_number(values: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


# --- drawing ---------------------------------------------------------------------------------------------------


def _drawing(
    name: str, title: str, draw: Callable[[Figure], None], width: float = 5.0, height: float = 4.0
) -> Drawing:
    with matplotlib.rc_context(_LOOK):
        figure = Figure(figsize=(width, height), dpi=144, layout="constrained")
        draw(figure)
        figure.suptitle(title, size=matplotlib.rcParams["axes.titlesize"])  # which long labels do not push aside
        # Each canvas by itself: `savefig` would draw twice for one file, to find out a size that is known.
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        png, svg = io.BytesIO(), io.StringIO()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]  # nothing shines through
        Image.fromarray(pixels).save(png, "PNG", compress_level=3, dpi=(figure.dpi, figure.dpi))
        figure.set_layout_engine("none")  # which has done its work
        for part in (figure, *figure.axes):
            part.patch.set_visible(False)  # the page has a colour
        FigureCanvasSVG(figure).print_svg(svg)
    return Drawing(name, title.replace("\n", ", "), png.getvalue(), _within_page(svg.getvalue(), title))


def _within_page(svg: str, title: str) -> str:
    """What matplotlib writes as a file, as a part of a page: in its colours, and without names that others have."""
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
    """A name as it is: matplotlib would take what stands between dollar signs for mathematics."""
    return printable(text)[:40].replace("$", r"\$")


def _mark(axes: Axes, x: float, y: float, at: float | None = None) -> None:
    name = f"operating point ({x:.1%}, {y:.1%})"
    axes.plot(x if at is None else at, y, "o", color=_OTHER, markersize=7, label=name, zorder=5)


def _thinned(across: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As many points of a curve as can be seen, evenly along it; `across` is x as it is drawn."""
    if len(x) <= _POINTS:
        return x, y
    width = np.ptp(across) or 1.0
    walked = np.concatenate([[0], np.cumsum(np.abs(np.diff(across)) / width + np.abs(np.diff(y)))])
    kept = np.unique(np.searchsorted(walked, np.linspace(0, walked[-1], _POINTS)))
    return x[kept], y[kept]


def _binned(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of bins of equal width the mean probability, the share of fakes with its Wilson interval (1927), the count."""
    bins = np.minimum((probabilities * _BINS).astype(int), _BINS - 1)
    number = np.bincount(bins, minlength=_BINS)
    least_one = np.maximum(number, 1)
    share = np.bincount(bins, labels, _BINS) / least_one
    middle = (share + _Z2 / (2 * least_one)) / (1 + _Z2 / least_one)
    half = np.sqrt(share * (1 - share) * _Z2 / least_one + (_Z2 / (2 * least_one)) ** 2) / (1 + _Z2 / least_one)
    low, high = np.minimum(middle - half, share), np.maximum(middle + half, share)
    return np.bincount(bins, probabilities, _BINS) / least_one, share, low, high, number
