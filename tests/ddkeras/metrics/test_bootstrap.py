"""Estimates and their intervals: coverage, edge cases, and resampling by group."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from ddkeras.metrics import classification
from ddkeras.metrics.bootstrap import Bootstrap, Estimate


def share(values):
    """A measure: the weighted mean of the values."""
    return lambda weights: {"share": weights @ values / weights.sum(axis=1)}


def test_the_value_lies_within_an_interval_of_the_expected_width():
    values = np.repeat([0.0, 1.0], [30, 70])
    estimate = Bootstrap(np.arange(100)).estimate(share(values))["share"]
    assert estimate.value == 0.7
    # 0.7 -+ 1.96 * sqrt(0.7 * 0.3 / 100)
    assert estimate.low == pytest.approx(0.61, abs=0.015)
    assert estimate.high == pytest.approx(0.79, abs=0.015)


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(0).random(50)
    assert Bootstrap(np.arange(50)).estimate(share(values)) == Bootstrap(np.arange(50)).estimate(share(values))
    assert Bootstrap(np.arange(50)).estimate(share(values)) != Bootstrap(np.arange(50), seed=1).estimate(
        share(values)
    )


def test_identical_images_of_one_group_count_as_one():
    values = np.repeat(np.random.default_rng(0).random(40), 25)
    together = Bootstrap(np.repeat(np.arange(40), 25)).estimate(share(values), others=["share"])["share"]
    alone = Bootstrap(np.arange(1000)).estimate(share(values), others=["share"])["share"]
    ratio = (together.high - together.low) / (alone.high - alone.low)
    assert ratio == pytest.approx(5, rel=0.2)  # the square root of 25


def test_a_proportion_of_0_or_1_has_the_wilson_interval():
    estimate = Bootstrap(np.arange(48)).estimate(share(np.ones(48)))["share"]
    assert (estimate.value, estimate.high) == (1, 1)
    assert estimate.low == pytest.approx(48 / (48 + 1.96**2), abs=1e-4)
    estimate = Bootstrap(np.arange(48)).estimate(share(np.zeros(48)))["share"]
    assert (estimate.value, estimate.low) == (0, 0)
    assert estimate.high == pytest.approx(0.0741, abs=1e-4)


def test_a_value_that_is_not_finite_is_missing():
    estimate = Bootstrap(np.arange(3)).estimate(lambda weights: {"share": np.full(len(weights), np.nan)})["share"]
    assert estimate.is_missing
    assert estimate.to_dict() == {"value": None, "low": None, "high": None}


def test_an_estimate_is_a_number_with_an_interval():
    estimate = Estimate(0.894, 0.871, 0.9152)
    assert (float(estimate), f"{estimate:.2f}") == (0.894, "0.89")
    assert f"{estimate}" == str(estimate) == "0.8940 (0.8710 to 0.9152)"
    assert estimate.to_dict() == {"value": 0.894, "low": 0.871, "high": 0.9152}
    assert estimate.complement() == Estimate(1 - 0.894, 1 - 0.9152, 1 - 0.871)


def test_a_missing_estimate_says_why():
    missing = Estimate.missing("fewer than 20")
    assert math.isnan(float(missing))
    assert str(missing) == "undefined: fewer than 20"
    assert missing.to_dict() == {"value": None, "low": None, "high": None, "reason": "fewer than 20"}


def test_resamplings_without_both_labels_are_left_out():
    labels = np.repeat([0, 1], [2000, 20])
    groups = np.repeat(np.arange(202), 10)  # the fakes are in two groups, which a resampling may lack

    def measure(weights):
        return classification.ranking_metrics(labels, np.arange(2020.0), weights)

    assert Bootstrap(groups).estimate(measure)["auc"].low > 0.95


@pytest.mark.parametrize(
    ("labels", "groups", "reason"),
    [
        (np.repeat([0, 1], [30, 2]), np.arange(32), "fewer than 20 fakes"),
        (np.repeat([0, 1], [19, 500]), np.arange(519), "fewer than 20 reals"),
        (np.repeat([0, 1], [40, 40]), np.arange(80) // 4, "fewer than 20 groups of reals"),
    ],
)
def test_without_20_independent_images_of_each_label_the_auc_has_no_interval(labels, groups, reason):
    logits = np.tile([0.0, 1.0, 2.0], 200)[: len(labels)]
    is_fake = logits > 1
    auc = Bootstrap(groups).estimate(
        lambda weights: classification.ranking_metrics(labels, logits, weights),
        classification.kinds_by_metric(labels, is_fake),
    )["auc"]
    assert 0 < auc.value < 1
    assert not auc.has_interval
    assert str(auc) == f"{auc.value:.4f} (no interval: {reason})"
    assert auc.to_dict() == {"value": auc.value, "low": None, "high": None, "reason": reason}


@pytest.mark.parametrize("n", [100, 400])
def test_intervals_cover(n):
    """On 300 simulated splits, in groups of two, with an AUC of 0.856: fakes are shifted by 1.5 deviations."""
    covered = {"auc": 0, "recall": 0, "log_loss": 0}
    random = np.random.default_rng(n)
    # A real logit is N(-1.125, 1.5^2) and a fake one N(1.125, 1.5^2), so that the logits are calibrated.
    fakes = random.normal(1.125, 1.5, 1_000_000)
    truth = {"auc": 0.8556, "recall": (fakes > 0.75).mean(), "log_loss": np.logaddexp(0, -fakes).mean()}
    for _ in range(300):
        labels = np.tile([0, 1], n // 2)
        logits = random.normal(np.where(labels, 1.125, -1.125), 1.5)

        def measure(weights, labels=labels, logits=logits):
            return {
                **classification.ranking_metrics(labels, logits, weights),
                **classification.threshold_metrics(labels, logits > 0.75, weights),
                **classification.probability_metrics(labels, logits, weights),
            }

        estimates = Bootstrap(np.arange(n) // 2, resamplings=400).estimate(measure)
        for name in covered:
            covered[name] += estimates[name].low <= truth[name] <= estimates[name].high
    # 95% of 300 are 285, with a standard deviation of 3.8.
    assert all(271 <= times <= 298 for times in covered.values()), covered


@pytest.mark.parametrize(
    ("auc", "reals", "fakes"),
    [
        (0.95, 20, 20),
        (0.99, 50, 50),
        (0.99, 100, 100),
        (0.99, 200, 200),
        (0.95, 20, 500),
        (0.99, 500, 20),
        (0.5, 20, 20),
    ],
)
def test_intervals_of_few_images_and_of_an_auc_near_1_cover(auc, reals, fakes):
    """On 300 simulated splits; real scores are N(0, 1), and fakes shifted by `shift` deviations."""
    random, labels = np.random.default_rng(0), np.repeat([0, 1], [reals, fakes])
    shift, covered = 2**0.5 * NormalDist().inv_cdf(auc), 0
    for _ in range(300):
        scores = random.normal(shift * labels, 1)
        estimate = Bootstrap(np.arange(len(labels)), resamplings=200).estimate(
            lambda weights, scores=scores: classification.ranking_metrics(labels, scores, weights),
            classification.kinds_by_metric(labels, scores > shift / 2),
        )["auc"]
        covered += estimate.low <= auc <= estimate.high
    # For comparison, percentiles of the resamplings cover 86%, 85%, 88%, 92%, 86%, 75% and 92%.
    assert covered >= 0.93 * 300
