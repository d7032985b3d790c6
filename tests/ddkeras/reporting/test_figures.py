"""Figures: what they show, and that they are reproducible."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from ddkeras.reporting import figures

HISTORY = pd.DataFrame({"epoch": [1, 2, 3], "loss": [2.0, 1.0, 0.9], "val_loss": [2.5, 1.5, 1.6]})
HISTORY["authenticity_accuracy"] = HISTORY["val_authenticity_accuracy"] = [0.5, 0.75, 0.8]


def test_a_curve_of_many_points_is_thinned_and_keeps_its_ends_and_shape():
    x = np.linspace(0, 1, 100_000)
    thin_x, thin_y = figures._thinned(x, x, x**2)
    assert len(thin_x) <= 500
    assert (thin_x[0], thin_x[-1]) == (0, 1)
    np.testing.assert_allclose(np.interp(x, thin_x, thin_y), x**2, atol=1e-4)


def test_reliability_is_binned():
    middle, share, low, high, number = figures._binned(np.array([0, 1, 1, 1]), np.array([0.01, 0.03, 0.99, 1.0]))
    assert (number[0], number[-1], number.sum()) == (2, 2, 4)
    assert (share[0], share[-1]) == (0.5, 1)
    assert middle[0] == pytest.approx(0.02)
    assert high[-1] == 1
    assert low[-1] == pytest.approx(2 / (2 + 3.841458820694124))  # the Wilson interval of 2 of 2


def test_a_confusion_matrix_shows_counts_and_shares_of_the_row():
    axes = Figure().subplots()
    figures.draw_confusion(axes, np.array([[3, 1], [0, 0]]), ["real", "fake"], ["real", "fake"])
    assert [text.get_text() for text in axes.texts] == ["3\n75%", "1\n25%", "0\n0%", "0\n0%"]


def test_the_history_is_drawn_with_and_without_a_category_head():
    one = figures.history(HISTORY, 2, "cross_entropy")
    two = HISTORY.copy()
    for name in ("category_accuracy", "category_loss", "authenticity_loss"):
        two[name] = two[f"val_{name}"] = [0.5, 0.75, 0.8]
    both = figures.history(two, 2, "cross_entropy")
    assert [drawing.name for drawing in one] == [drawing.name for drawing in both] == ["loss", "accuracy"]
    assert one[0].png != both[0].png
    assert figures.history(HISTORY, 3, "cross_entropy")[0].png != one[0].png, "the kept epoch is marked"


def test_figures_are_reproducible():
    first, second = (figures.history(HISTORY, 2, "cross_entropy")[0] for _ in range(2))
    assert (first.png, first.svg) == (second.png, second.svg)
