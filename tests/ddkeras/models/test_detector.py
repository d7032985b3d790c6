"""The two heads."""

import keras
import numpy as np
import pytest

from ddkeras.metrics.calibration import Limits, OperatingPoint
from ddkeras.models.backbones import build_trunk
from ddkeras.models.detector import build_model, scoring_model


@pytest.fixture(scope="module")
def trunk():
    return build_trunk("mobilenetv2", image_size=32, weights="none")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype("float32")


def test_the_model_gives_logits_for_both_heads(trunk, images):
    logits = build_model(trunk, 3)(images)
    assert set(logits) == {"authenticity", "category"}
    assert logits["authenticity"].shape == (4, 1)
    assert logits["category"].shape == (4, 3)


def test_without_classes_there_is_no_category_head(trunk, images):
    model = build_model(trunk, 0)
    assert set(model(images)) == {"authenticity"}
    assert set(scoring_model(model, OperatingPoint(), [])(images)) == {"logit", "fake_probability", "verdict"}


def test_logits_are_float32_under_mixed_precision(images):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        logits = build_model(build_trunk("mobilenetv2", image_size=32, weights="none"), 3)(images)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {value.dtype.name for value in logits.values()} == {"float32"}


def test_scores_are_the_probabilities_of_the_logits(trunk, images):
    model = build_model(trunk, 3)
    logits = {name: np.asarray(value) for name, value in model(images).items()}
    point = OperatingPoint(2.0, by_category={name: Limits(-9, -9) for name in "abc"})
    scores = scoring_model(model, point, ["a", "b", "c"])(images)
    np.testing.assert_allclose(scores["logit"], logits["authenticity"][:, 0])
    np.testing.assert_allclose(scores["fake_probability"], 1 / (1 + np.exp(-scores["logit"] / 2)), rtol=1e-5)
    np.testing.assert_array_equal(scores["verdict"], [1, 1, 1, 1])
    exponentials = np.exp(logits["category"])
    np.testing.assert_allclose(
        scores["category_probabilities"], exponentials / exponentials.sum(axis=1, keepdims=True), rtol=1e-5
    )


def test_a_saved_model_loads_without_ddkeras(trunk, images, tmp_path):
    model = build_model(trunk, 3)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(again(images)["authenticity"], model(images)["authenticity"], rtol=1e-6)
