"""Metrics by hand, in edge cases, and against scikit-learn with weights."""

import numpy as np
import pytest
from sklearn import metrics as sk

from ddkeras.metrics import classification

# Ranked from fake to real: 0.9 fake, 0.8 real, 0.6 fake, 0.3 fake, 0.2 real, 0.1 real.
LABELS = np.array([1, 0, 1, 1, 0, 0])
SCORES = np.array([0.9, 0.8, 0.6, 0.3, 0.2, 0.1])


def once(metric, *arguments) -> dict[str, float]:
    """The metric with each image counted once."""
    return {name: float(value[0]) for name, value in metric(*arguments, np.ones((1, len(arguments[0])))).items()}


def test_ranking_by_hand():
    values = once(classification.ranking_metrics, LABELS, SCORES)
    assert values["auc"] == pytest.approx(7 / 9)  # 7 of the 9 fake-real pairs are in order
    assert values["average_precision"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert values["equal_error_rate"] == pytest.approx(
        1 / 3
    )  # threshold 0.6: 1 of 3 reals and 1 of 3 fakes are wrong
    assert values["recall_at_0.01"] == values["recall_at_0.001"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("scores", "auc", "equal_error_rate"),
    [([4, 3, 2, 1], 1, 0), ([1, 2, 3, 4], 0, 1), ([0, 0, 0, 0], 0.5, 0.5), ([2, 1, 2, 1], 0.5, 0.5)],
)
def test_ranking_in_edge_cases(scores, auc, equal_error_rate):
    values = once(classification.ranking_metrics, np.array([1, 1, 0, 0]), np.array(scores, float))
    assert (values["auc"], values["equal_error_rate"]) == pytest.approx((auc, equal_error_rate))


def test_ranking_needs_both_labels():
    assert np.isnan(list(once(classification.ranking_metrics, np.array([1, 1]), np.array([0.2, 0.1])).values())).all()


def test_ranking_agrees_with_scikit_learn_with_ties_and_weights():
    random = np.random.default_rng(0)
    labels, scores = random.integers(0, 2, 200), random.integers(0, 20, 200) / 20
    weights = random.integers(0, 4, (5, 200))
    values = classification.ranking_metrics(labels, scores, weights)
    for row, each in enumerate(weights):
        assert values["auc"][row] == pytest.approx(sk.roc_auc_score(labels, scores, sample_weight=each))
        assert values["average_precision"][row] == pytest.approx(
            sk.average_precision_score(labels, scores, sample_weight=each)
        )


def test_decisions_by_hand():
    values = once(classification.threshold_metrics, LABELS, SCORES >= 0.5)
    assert values == pytest.approx(
        {
            "accuracy": 4 / 6,
            "balanced_accuracy": 4 / 6,
            "precision": 2 / 3,
            "recall": 2 / 3,
            "f1": 2 / 3,
            "false_positive_rate": 1 / 3,
        }
    )


def test_a_proportion_of_no_images_is_nan():
    values = once(classification.threshold_metrics, np.array([0, 0]), np.array([False, False]))
    assert (values["accuracy"], values["false_positive_rate"]) == (1, 0)
    assert np.isnan([values[name] for name in ("precision", "recall", "f1", "balanced_accuracy")]).all()


def test_decisions_agree_with_scikit_learn_with_weights():
    random = np.random.default_rng(1)
    labels, is_positive = random.integers(0, 2, 100), random.random(100) < 0.4
    weights = random.integers(0, 4, (3, 100))
    values = classification.threshold_metrics(labels, is_positive, weights)
    for row, each in enumerate(weights):
        for name, reference in (
            ("accuracy", sk.accuracy_score),
            ("balanced_accuracy", sk.balanced_accuracy_score),
            ("precision", sk.precision_score),
            ("recall", sk.recall_score),
            ("f1", sk.f1_score),
        ):
            assert values[name][row] == pytest.approx(reference(labels, is_positive, sample_weight=each)), name


def test_probabilities_by_hand():
    logits = np.log([4.0, 1 / 4, 4.0, 1 / 4])  # probabilities of 0.8 and 0.2
    values = once(classification.probability_metrics, np.array([1, 0, 0, 0]), logits)
    assert values["log_loss"] == pytest.approx(-(np.log(0.8) * 3 + np.log(0.2)) / 4)
    assert values["brier"] == pytest.approx((3 * 0.04 + 0.64) / 4)
    assert values["calibration_error"] == pytest.approx((2 * abs(0.8 - 0.5) + 2 * abs(0.2 - 0)) / 4)


def test_a_logit_whose_probability_rounds_to_one_has_a_finite_loss():
    values = once(classification.probability_metrics, np.array([0, 1]), np.array([200.0, 200.0]))
    assert values["log_loss"] == pytest.approx(100)
    assert values["brier"] == pytest.approx(0.5)


def test_classes_by_hand():
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    values = classification.multiclass_metrics(labels, predicted, 3, np.ones((1, 4)))
    assert values["accuracy"][0] == 3 / 4
    assert values["macro_f1"][0] == pytest.approx((2 / 3 + 4 / 5) / 2)  # the third class does not occur
    np.testing.assert_allclose(values["precision"][0], [1, 2 / 3, np.nan])
    np.testing.assert_allclose(values["recall"][0], [1 / 2, 1, np.nan])


def test_classes_agree_with_scikit_learn_with_weights():
    random = np.random.default_rng(2)
    labels, predicted = random.integers(0, 4, 200), random.integers(0, 4, 200)
    weights = random.integers(0, 3, (3, 200))
    values = classification.multiclass_metrics(labels, predicted, 4, weights)
    for row, each in enumerate(weights):
        assert values["macro_f1"][row] == pytest.approx(
            sk.f1_score(labels, predicted, average="macro", sample_weight=each)
        )
        np.testing.assert_allclose(
            values["recall"][row], sk.recall_score(labels, predicted, average=None, sample_weight=each)
        )
