"""Temperature, thresholds and verdicts: how they are fitted and applied."""

import json

import keras
import numpy as np
import pytest

from ddkeras.metrics import calibration
from ddkeras.metrics.calibration import Limits, OperatingPoint


def simulated(n: int, *, overconfidence: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated logits times `overconfidence`, and their labels."""
    random = np.random.default_rng(seed)
    labels = np.tile([0, 1], n // 2)
    return (overconfidence * random.normal(np.where(labels, 1.125, -1.125), 1.5)).astype(np.float32), labels


@pytest.mark.parametrize("overconfidence", [0.5, 1, 4])
def test_the_temperature_undoes_overconfidence(overconfidence):
    assert calibration.fit_temperature(*simulated(20_000, overconfidence=overconfidence)) == pytest.approx(
        overconfidence, rel=0.05
    )


def test_the_temperature_of_perfect_logits_is_not_zero():
    logits, labels = np.array([-2, -1, 1, 2], np.float32), np.array([0, 0, 1, 1])
    temperature = calibration.fit_temperature(logits, labels)
    # Of two fakes the target is 3/4: the sigmoid of 1.0986.
    assert OperatingPoint(temperature).probabilities(np.array([1.5])).numpy()[0] == pytest.approx(0.75, abs=0.03)


def test_the_temperature_of_inverted_logits_is_high():
    logits, labels = simulated(2000)
    assert calibration.fit_temperature(-logits, labels) > 50


def test_thresholds_by_hand():
    #                  reals: 0 to 9; fakes: 5.5 to 14.5
    logits = np.concatenate([np.arange(10), np.arange(10) + 5.5]).astype(np.float32)
    labels = np.repeat([0, 1], 10)
    assert calibration.fit_limits(logits, labels, false_alarms=0, misses=0) == Limits(5.25, 9.25)
    # One of ten reals may be called fake, the 9; then fake begins between 8 and 8.5. And two fakes, 5.5 and 6.5,
    # may be called real: then real ends between 7 and 7.5.
    assert calibration.fit_limits(logits, labels, false_alarms=0.1, misses=0.2) == Limits(7.25, 8.25)
    assert calibration.fit_limits(logits, labels, false_alarms=0.19, misses=0.2) == Limits(7.25, 8.25)


def test_thresholds_meet_where_no_image_needs_to_be_unsure():
    logits, labels = np.array([-3, -1, 2, 4], np.float32), np.array([0, 0, 1, 1])
    assert calibration.fit_limits(logits, labels, false_alarms=0, misses=0) == Limits(0.5, 0.5)


def test_inverted_logits_leave_most_images_unsure():
    logits, labels = np.array([4, 2, -1, -3], np.float32), np.array([0, 0, 1, 1])
    assert calibration.fit_limits(logits, labels, false_alarms=0.5, misses=0.5) == Limits(-2, 3)


def test_images_with_the_same_score_get_the_same_verdict():
    logits, labels = np.array([1, 1, 1, 0], np.float32), np.array([0, 0, 1, 1])
    limits = calibration.fit_limits(logits, labels, false_alarms=0.5, misses=0.5)
    assert limits.fake_from == 2, "one real may be called fake, but not both"


@pytest.mark.parametrize("false_alarms", [0.01, 0.05, 0.2])
def test_error_rates_are_kept_exactly_on_the_fitted_images_and_nearly_on_others(false_alarms):
    limits = calibration.fit_limits(*simulated(4000), false_alarms=false_alarms, misses=0.05)
    for seed, slack in ((0, 0), (1, 0.01)):
        logits, labels = simulated(4000, seed=seed)
        assert (logits[labels == 0] >= limits.fake_from).mean() <= false_alarms + slack
        assert (logits[labels == 1] < limits.real_below).mean() <= 0.05 + slack


def test_a_category_has_its_own_thresholds_if_two_errors_of_each_kind_are_allowed():
    logits, labels = simulated(1000)
    predicted = np.repeat([0, 1], [600, 400])  # 300 and 200 reals, and as many fakes
    logits[predicted == 1] += 3
    point = calibration.fit(logits, labels, predicted, ["cats", "dogs"], false_alarms=0.008, misses=0.05)
    assert set(point.by_category) == {"cats"}  # 0.008 of 200 is less than two
    assert point.fitted == {"false_alarms": 0.008, "misses": 0.05, "reals": 500, "fakes": 500}
    both = calibration.fit(logits, labels, predicted, ["cats", "dogs"])
    assert both.by_category["dogs"].fake_from > both.by_category["cats"].fake_from + 2


def test_verdicts():
    point = OperatingPoint(limits=Limits(-1.0, 2.0))
    verdicts = [calibration.VERDICTS[v] for v in np.asarray(point.verdicts(np.array([-1.5, -1.0, 1.5, 2.0, 3.0])))]
    assert verdicts == ["real", "unsure", "unsure", "fake", "fake"]


def test_verdicts_depend_on_the_predicted_category():
    point = OperatingPoint(limits=Limits(-1.0, 2.0), by_category={"dogs": Limits(5.0, 5.0)})
    classes = np.array([[0.9, 0.1], [0.1, 0.9], [0.1, 0.9]], np.float32)
    verdicts = point.verdicts(np.array([3.0, 3.0, 5.0], np.float32), classes, ["cats", "dogs"])
    np.testing.assert_array_equal(verdicts, [1, 0, 1])


def test_an_unfitted_operating_point_has_its_threshold_at_one_half():
    point = OperatingPoint()
    np.testing.assert_array_equal(point.verdicts(np.array([-0.1, 0.0, 0.1])), [0, 1, 1])
    np.testing.assert_allclose(point.probabilities(np.array([-200.0, 0.0, 200.0])), [0, 0.5, 1])


def test_it_is_the_same_in_a_graph_and_after_storing():
    logits, labels = simulated(1000)
    predicted = np.tile([0, 0, 1, 1], 250)
    point = calibration.fit(logits, labels, predicted, ["cats", "dogs"])
    assert OperatingPoint.from_dict(json.loads(json.dumps(point.to_dict()))) == point
    classes = np.eye(2, dtype=np.float32)[predicted]
    inputs = {"logit": keras.Input((), name="logit"), "classes": keras.Input((2,), name="classes")}
    verdicts = point.verdicts(inputs["logit"], inputs["classes"], ["cats", "dogs"])
    model = keras.Model(inputs, {"verdict": verdicts, "probability": point.probabilities(inputs["logit"])})
    outputs = model.predict({"logit": logits, "classes": classes}, verbose=0)
    np.testing.assert_array_equal(outputs["verdict"], point.verdicts(logits, classes, ["cats", "dogs"]))
    np.testing.assert_allclose(outputs["probability"], point.probabilities(logits), rtol=1e-6)


def test_thresholds_of_enormous_logits_separate_them():
    logits = np.array([-1e30, -1e29, 1e29, 1e30], np.float32)
    point = calibration.fit(logits, np.array([0, 0, 1, 1]))
    assert point.verdicts(logits).numpy().tolist() == [0, 0, 1, 1]
    assert np.isfinite([point.temperature, point.limits.real_below, point.limits.fake_from]).all()
    alike = calibration.fit_limits(logits, np.array([1, 0, 1, 0]), false_alarms=0, misses=0)
    assert alike.fake_from > 1e30
    assert alike.real_below < -1e30
