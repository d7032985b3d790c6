"""The measures of a split, by hand, at their edges, and against scikit-learn under any weights."""

import numpy as np
import pytest
from sklearn import metrics as sk

from ddkeras.metrics import classification

# Ranked from fake to real: 0.9 fake, 0.8 real, 0.6 fake, 0.3 fake, 0.2 real, 0.1 real.
LABELS = np.array([1, 0, 1, 1, 0, 0])
SCORES = np.array([0.9, 0.8, 0.6, 0.3, 0.2, 0.1])


def once(measure, *arguments) -> dict[str, float]:
    """With each image counted once."""
    return {name: float(values[0]) for name, values in measure(*arguments, np.ones((1, len(arguments[0])))).items()}


def test_ranking_by_hand():
    found = once(classification.ranking, LABELS, SCORES)
    assert found["auc"] == pytest.approx(7 / 9)  # 7 of the 9 fake-real pairs are in order
    assert found["average_precision"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert found["equal_error_rate"] == pytest.approx(1 / 3)  # from 0.6 on: one of 3 reals, and not one of 3 fakes
    assert found["recall_at_0.01"] == found["recall_at_0.001"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("scores", "auc", "equal_error_rate"),
    [([4, 3, 2, 1], 1, 0), ([1, 2, 3, 4], 0, 1), ([0, 0, 0, 0], 0.5, 0.5), ([2, 1, 2, 1], 0.5, 0.5)],
)
def test_ranking_at_its_edges(scores, auc, equal_error_rate):
    found = once(classification.ranking, np.array([1, 1, 0, 0]), np.array(scores, float))
    assert (found["auc"], found["equal_error_rate"]) == pytest.approx((auc, equal_error_rate))


def test_without_one_label_nothing_is_ranked():
    assert np.isnan(list(once(classification.ranking, np.array([1, 1]), np.array([0.2, 0.1])).values())).all()


def test_ranking_is_that_of_scikit_learn_with_ties_and_images_that_count_several_times():
    random = np.random.default_rng(0)
    labels, scores = random.integers(0, 2, 200), random.integers(0, 20, 200) / 20
    weights = random.integers(0, 4, (5, 200))
    found = classification.ranking(labels, scores, weights)
    for row, each in enumerate(weights):
        assert found["auc"][row] == pytest.approx(sk.roc_auc_score(labels, scores, sample_weight=each))
        assert found["average_precision"][row] == pytest.approx(
            sk.average_precision_score(labels, scores, sample_weight=each)
        )


def test_what_is_called_fake_by_hand():
    found = once(classification.threshold_metrics, LABELS, SCORES >= 0.5)
    assert found == pytest.approx(
        {
            "accuracy": 4 / 6,
            "balanced_accuracy": 4 / 6,
            "precision": 2 / 3,
            "recall": 2 / 3,
            "f1": 2 / 3,
            "false_positive_rate": 1 / 3,
        }
    )


def test_a_share_of_nothing_is_not_a_number():
    found = once(classification.threshold_metrics, np.array([0, 0]), np.array([False, False]))
    assert (found["accuracy"], found["false_positive_rate"]) == (1, 0)
    assert np.isnan([found[name] for name in ("precision", "recall", "f1", "balanced_accuracy")]).all()


def test_what_is_called_is_that_of_scikit_learn_for_images_that_count_several_times():
    random = np.random.default_rng(1)
    labels, called = random.integers(0, 2, 100), random.random(100) < 0.4
    weights = random.integers(0, 4, (3, 100))
    found = classification.threshold_metrics(labels, called, weights)
    for row, each in enumerate(weights):
        for name, theirs in (
            ("accuracy", sk.accuracy_score),
            ("balanced_accuracy", sk.balanced_accuracy_score),
            ("precision", sk.precision_score),
            ("recall", sk.recall_score),
            ("f1", sk.f1_score),
        ):
            assert found[name][row] == pytest.approx(theirs(labels, called, sample_weight=each)), name


def test_probabilities_by_hand():
    logits = np.log([4.0, 1 / 4, 4.0, 1 / 4])  # probabilities of 0.8 and 0.2
    found = once(classification.probabilistic, np.array([1, 0, 0, 0]), logits)
    assert found["log_loss"] == pytest.approx(-(np.log(0.8) * 3 + np.log(0.2)) / 4)
    assert found["brier"] == pytest.approx((3 * 0.04 + 0.64) / 4)
    assert found["calibration_error"] == pytest.approx((2 * abs(0.8 - 0.5) + 2 * abs(0.2 - 0)) / 4)


def test_a_logit_beyond_what_a_probability_can_say_still_has_a_loss():
    found = once(classification.probabilistic, np.array([0, 1]), np.array([200.0, 200.0]))
    assert found["log_loss"] == pytest.approx(100)
    assert found["brier"] == pytest.approx(0.5)


def test_classes_by_hand():
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    found = classification.multiclass_metrics(labels, predicted, 3, np.ones((1, 4)))
    assert found["accuracy"][0] == 3 / 4
    assert found["macro_f1"][0] == pytest.approx((2 / 3 + 4 / 5) / 2)  # the third does not occur
    np.testing.assert_allclose(found["precision"][0], [1, 2 / 3, np.nan])
    np.testing.assert_allclose(found["recall"][0], [1 / 2, 1, np.nan])


def test_classes_are_those_of_scikit_learn_for_images_that_count_several_times():
    random = np.random.default_rng(2)
    labels, predicted = random.integers(0, 4, 200), random.integers(0, 4, 200)
    weights = random.integers(0, 3, (3, 200))
    found = classification.multiclass_metrics(labels, predicted, 4, weights)
    for row, each in enumerate(weights):
        assert found["macro_f1"][row] == pytest.approx(
            sk.f1_score(labels, predicted, average="macro", sample_weight=each)
        )
        np.testing.assert_allclose(
            found["recall"][row], sk.recall_score(labels, predicted, average=None, sample_weight=each)
        )
