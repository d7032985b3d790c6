"""Numbers as figures and files: the only room with matplotlib in it."""

import json
import math
from collections.abc import Collection
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

matplotlib.use("agg")  # files, never a window


def write_report(folder: Path, metrics: dict, predictions: pd.DataFrame) -> None:
    """Write metrics.json, predictions.csv and the figures of one split into `folder`, which exists.

    Args:
        metrics, predictions: as in `evaluation.Report`.
    """
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    predictions.to_csv(folder / "predictions.csv", index=False, errors="surrogateescape")
    of_split = f"{metrics['split']}, n = {metrics['examples']}"
    if metrics["authenticity"]["auc"] is not None:
        figure, axes = _figure()
        draw_roc(axes, predictions["label"], predictions["fake_probability"], metrics["authenticity"]["threshold"])
        axes.set_title(f"Real or fake: ROC, AUC {metrics['authenticity']['auc']:.3f} ({of_split})")
        figure.savefig(folder / "roc.png")
    matrices = [("authenticity", "Real or fake", "labels")]
    if metrics.get("category", {}).get("examples"):
        matrices.append(("category", "Category", "categories"))
    for head, title, names in matrices:
        figure, axes = _figure()
        draw_confusion(axes, np.array(metrics[head]["confusion"]), metrics[head][names])
        axes.set_title(f"{title}: true against predicted ({of_split})")
        figure.savefig(folder / f"confusion_{head}.png")


def write_history(path: Path, history: pd.DataFrame) -> None:
    """Draw the loss and accuracy curves of a run's `history.csv` into the PNG `path`."""
    heads = [head for head in ("authenticity", "category") if f"{head}_accuracy" in history]
    figure = Figure(figsize=(11, 4.5), dpi=120, layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    epochs = history["epoch"] + 1
    for split, prefix, style in (("train", "", "--"), ("validation", "val_", "-")):
        losses.plot(epochs, history[f"{prefix}loss"], style, color="black", label=f"total, {split}")
        for head, colour in zip(heads, ("tab:red", "tab:blue"), strict=False):
            if len(heads) > 1:
                losses.plot(epochs, history[f"{prefix}{head}_loss"], style, color=colour, label=f"{head}, {split}")
            accuracy = history[f"{prefix}{head}_accuracy"]
            accuracies.plot(epochs, accuracy, style, color=colour, label=f"{head}, {split}")
    best = epochs[history["val_loss"].idxmin()]
    for axes, title, unit in (
        (losses, "Loss by epoch", "cross-entropy (nats)"),
        (accuracies, "Accuracy by epoch", "share of images right"),
    ):
        axes.axvline(best, color="grey", linewidth=1, linestyle=":", label=f"kept: epoch {best}")
        axes.set(title=title, xlabel="epoch", ylabel=unit)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path)


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


def draw_roc(axes: Axes, labels, probabilities, threshold: float) -> None:
    """Draw the ROC curve and the point of `threshold` on it."""
    false_alarms, detected, _ = roc_curve(labels, probabilities)
    axes.plot(false_alarms, detected, color="tab:red", label="this run")
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="chance")
    called = np.asarray(probabilities) >= threshold
    fake = np.asarray(labels) == 1
    axes.plot(called[~fake].mean(), called[fake].mean(), "o", color="black", label=f"threshold {threshold:g}")
    axes.set(xlabel="share of real images called fake", ylabel="share of fake images called fake")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")


def draw_confusion(axes: Axes, counts: np.ndarray, names: list[str]) -> None:
    """Draw a confusion matrix: rows true, columns predicted; shade is the share of the row, text the count."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=30 if len(names) > 3 else 0, ha="center")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true")
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{count}\n{shares[row, column]:.0%}", ha="center", va="center", color=colour)


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


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 5.6), dpi=120, layout="constrained")
    return figure, figure.subplots()
