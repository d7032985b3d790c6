"""Numbers as figures and files: the only room with matplotlib in it."""

import json
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


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 5.6), dpi=120, layout="constrained")
    return figure, figure.subplots()
