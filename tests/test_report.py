"""Figures and files."""

import json

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from ddkeras import report
from ddkeras.evaluation import authenticity_metrics, category_metrics

LABELS = np.array([1, 0, 1, 1, 0, 0])
PROBABILITIES = np.array([0.9, 0.8, 0.6, 0.3, 0.2, 0.1])


def write(folder, labels=LABELS, **more):
    metrics = {"split": "validation", "examples": 6, "authenticity": authenticity_metrics(labels, PROBABILITIES, 0.5)}
    predictions = pd.DataFrame({"path": list("abcdef"), "label": labels, "fake_probability": PROBABILITIES})
    report.write_report(folder, metrics | more, predictions)
    return sorted(path.name for path in folder.iterdir())


def test_a_report_is_numbers_rows_and_pictures(tmp_path):
    category = category_metrics(np.array([0, 1, 1]), np.array([0, 1, 0]), ["cats", "dogs"])
    assert write(tmp_path, category=category) == [
        "confusion_authenticity.png",
        "confusion_category.png",
        "metrics.json",
        "predictions.csv",
        "roc.png",
    ]
    assert json.loads((tmp_path / "metrics.json").read_text())["category"]["confusion"] == [[1, 0], [1, 1]]
    assert len(pd.read_csv(tmp_path / "predictions.csv")) == 6
    for picture in tmp_path.glob("*.png"):
        pixels = np.asarray(Image.open(picture).convert("L"))
        assert min(pixels.shape) > 400
        assert pixels.std() > 10, "an empty picture"


def test_with_one_label_there_is_no_roc_and_without_classes_no_category(tmp_path):
    assert write(tmp_path, labels=np.ones(6, int)) == [
        "confusion_authenticity.png",
        "metrics.json",
        "predictions.csv",
    ]


def test_the_roc_marks_the_operating_point_on_the_curve():
    axes = Figure().subplots()
    report.draw_roc(axes, LABELS, PROBABILITIES, 0.85)  # which calls one of three fakes, and no real image, fake
    curve, _, point = axes.lines
    assert (float(point.get_xdata()[0]), float(point.get_ydata()[0])) == (0, 1 / 3)
    assert (0, 1 / 3) in set(zip(curve.get_xdata(), curve.get_ydata(), strict=True))


def test_a_confusion_matrix_shows_counts_and_shares_of_the_row():
    axes = Figure().subplots()
    report.draw_confusion(axes, np.array([[3, 1], [0, 0]]), ["real", "fake"])
    assert [text.get_text() for text in axes.texts] == ["3\n75%", "1\n25%", "0\n0%", "0\n0%"]


def test_the_history_is_drawn_with_and_without_a_category_head(tmp_path):
    history = pd.DataFrame({"epoch": [0, 1], "loss": [2.0, 1.0], "val_loss": [2.5, 1.5]})
    history["authenticity_accuracy"] = history["val_authenticity_accuracy"] = [0.5, 0.75]
    report.write_history(tmp_path / "one.png", history)
    for name in ("category_accuracy", "category_loss", "authenticity_loss"):
        history[name] = history[f"val_{name}"] = [0.5, 0.75]
    report.write_history(tmp_path / "two.png", history)
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "two.png").read_bytes()
