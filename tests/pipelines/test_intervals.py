"""Intervals of proportions, by hand."""

import numpy as np
import pytest

from pipelines.intervals import logit_interval, wilson_interval


def test_the_wilson_interval_by_hand():
    low, high = wilson_interval(np.array([0.0, 0.5, 1.0]), np.array([10, 100, 10]))
    # Of 0 of 10, 50 of 100 and 10 of 10.
    np.testing.assert_allclose(low, [0, 0.403832, 0.722467], atol=1e-6)
    np.testing.assert_allclose(high, [0.277533, 0.596168, 1], atol=1e-6)


def test_the_logit_interval_by_hand():
    # 0.8 of 10,000 independent images: the logit of 0.8 is log(4), its deviation 1 / sqrt(10000 * 0.8 * 0.2) = 0.025.
    low, high = logit_interval(0.8, 0.8 * 0.2 / 10_000, [10_000])
    assert low == pytest.approx(4 / (4 + np.exp(1.96 * 0.025)), abs=1e-5)
    assert high == pytest.approx(4 / (4 + np.exp(-1.96 * 0.025)), abs=1e-5)


def test_few_images_without_a_rare_one_do_not_make_an_interval_narrow():
    # The variance is that of 40 images of one kind, as 20 of each of two kinds are, weighted by a half.
    low, _ = logit_interval(0.99, 0.0, [20, 20])
    odds = 99 / np.exp(1.96 * (0.5 / (40 * 0.99 * 0.01)) ** 0.5)
    assert low == pytest.approx(odds / (1 + odds), abs=1e-5)


def test_an_auc_of_1_has_the_wilson_interval_of_the_rarer_label():
    assert logit_interval(1.0, 0.0, [48, 500]) == (pytest.approx(48 / (48 + 1.96**2), abs=1e-4), 1.0)
    assert logit_interval(0.0, 0.0, [500, 48]) == (0.0, pytest.approx(1.96**2 / (48 + 1.96**2), abs=1e-4))


@pytest.mark.parametrize("value", [1e-300, 1e-9, 1e-4, 0.02])
def test_a_value_nearer_to_0_than_one_image_in_all_keeps_within_the_wilson_interval(value):
    low, high = logit_interval(value, 0.0, [30])
    wilson_low, wilson_high = wilson_interval(np.array(value), np.array(30))
    assert wilson_low <= low <= value <= high <= wilson_high
    assert high <= 0.16
    mirrored = logit_interval(1 - value, 0.0, [30])
    assert mirrored == (pytest.approx(1 - high, abs=1e-12), pytest.approx(1 - low, abs=1e-12))
