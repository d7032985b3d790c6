"""Intervals: that they cover, what they do at the edges, and that what belongs together is drawn together."""

import numpy as np
import pytest

from ddkeras.metrics import classification
from ddkeras.metrics.bootstrap import Bootstrap


def share(values):
    """A measure: the mean of the values."""
    return lambda weights: {"share": weights @ values / weights.sum(axis=1)}


def test_the_value_is_that_of_the_images_and_lies_within():
    values = np.repeat([0.0, 1.0], [30, 70])
    found = Bootstrap(np.arange(100)).estimate(share(values))["share"]
    assert found["value"] == 0.7
    # 0.7 -+ 1.96 * sqrt(0.7 * 0.3 / 100)
    assert found["low"] == pytest.approx(0.61, abs=0.015)
    assert found["high"] == pytest.approx(0.79, abs=0.015)


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(0).random(50)
    assert Bootstrap(np.arange(50)).estimate(share(values)) == Bootstrap(np.arange(50)).estimate(share(values))
    assert Bootstrap(np.arange(50)).estimate(share(values)) != Bootstrap(np.arange(50), seed=1).estimate(
        share(values)
    )


def test_images_of_one_group_are_worth_one():
    values = np.repeat(np.random.default_rng(0).random(40), 25)
    together = Bootstrap(np.repeat(np.arange(40), 25)).estimate(share(values))["share"]
    alone = Bootstrap(np.arange(1000)).estimate(share(values))["share"]
    ratio = (together["high"] - together["low"]) / (alone["high"] - alone["low"])
    assert ratio == pytest.approx(5, rel=0.2)  # the square root of 25


def test_a_share_of_all_is_not_sure_to_be_all():
    found = Bootstrap(np.arange(48)).estimate(share(np.ones(48)), {"share": 48})["share"]
    assert found == {"value": 1.0, "low": pytest.approx(48 / (48 + 1.96**2), abs=1e-4), "high": 1.0}
    found = Bootstrap(np.arange(48)).estimate(share(np.zeros(48)), {"share": 48})["share"]
    assert found == {"value": 0.0, "low": 0.0, "high": pytest.approx(0.0741, abs=1e-4)}


def test_what_is_no_number_has_no_interval():
    found = Bootstrap(np.arange(3)).estimate(lambda weights: {"share": np.full(len(weights), np.nan)})
    assert found == {"share": {"value": None, "low": None, "high": None}}


def test_resamplings_without_one_of_the_labels_are_left_out():
    labels = np.array([1, 0, 0, 0, 0, 0])
    found = Bootstrap(np.arange(6)).estimate(lambda weights: classification.ranking(labels, np.arange(6.0), weights))[
        "auc"
    ]
    assert found["value"] == found["low"] == 0


@pytest.mark.parametrize("n", [100, 400])
def test_intervals_cover(n):
    """On 300 simulated splits of an AUC of 0.856 (fakes are shifted by 1.5 deviations) and groups of two."""
    covered = {"auc": 0, "recall": 0, "log_loss": 0}
    random = np.random.default_rng(n)
    # A real logit is N(-1.125, 1.5^2) and a fake one N(1.125, 1.5^2), so that probabilities are as they say.
    fakes = random.normal(1.125, 1.5, 1_000_000)
    truth = {"auc": 0.8556, "recall": (fakes > 0.75).mean(), "log_loss": np.logaddexp(0, -fakes).mean()}
    for _ in range(300):
        labels = np.tile([0, 1], n // 2)
        logits = random.normal(np.where(labels, 1.125, -1.125), 1.5)

        def measure(weights, labels=labels, logits=logits):
            found = classification.ranking(labels, logits, weights) | classification.threshold_metrics(
                labels, logits > 0.75, weights
            )
            return {**found, **classification.probabilistic(labels, logits, weights)}

        found = Bootstrap(np.arange(n) // 2, resamplings=400).estimate(measure)
        for name in covered:
            covered[name] += found[name]["low"] <= truth[name] <= found[name]["high"]
    # 0.95 of 300 are 285, with a standard deviation of 3.8.
    assert all(271 <= times <= 298 for times in covered.values()), covered
