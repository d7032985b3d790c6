"""Precision and XLA as resolved for this machine."""

import logging

import keras
import pytest

from ddkeras.training import autotune

NETWORK = {"backbone": "small-cnn", "image_size": 32}


@pytest.fixture
def trials(monkeypatch):
    """Replace trials by given timings; the list of those that were made."""
    made = []

    def step_seconds(backbone, image_size, precision, xla):
        made.append((precision, xla))
        return {("float32", "off"): 3.0, ("mixed_bfloat16", "off"): 2.0, ("mixed_bfloat16", "on"): 1.0}[
            precision, xla
        ]

    monkeypatch.setattr(autotune, "_step_seconds", step_seconds)
    return made


def test_a_short_training_on_a_cpu_makes_no_trial(trials):
    assert autotune.resolve_auto("auto", "auto", **NETWORK, steps=999) == ("float32", "off")
    assert trials == []


def test_a_long_training_uses_what_is_fastest(trials, caplog):
    caplog.set_level(logging.INFO, "ddkeras")
    assert autotune.resolve_auto("auto", "auto", **NETWORK, steps=1000) == ("mixed_bfloat16", "on")
    assert [record.getMessage() for record in caplog.records] == [
        "tried float32 3.00 s, mixed_bfloat16 2.00 s: mixed_bfloat16",
        "tried off 2.00 s, on 1.00 s: on",
    ]


def test_explicit_choices_are_not_tried(trials):
    assert autotune.resolve_auto("mixed_bfloat16", "off", **NETWORK, steps=1000) == ("mixed_bfloat16", "off")
    assert trials == []


@pytest.mark.parametrize(("precision", "xla"), [("float32", "off"), ("float32", "on"), ("mixed_bfloat16", "off")])
def test_a_trial_times_a_step_of_the_network(precision, xla):
    before = keras.config.dtype_policy()
    assert 0 < autotune._step_seconds("small-cnn", 32, precision, xla) < 30
    assert keras.config.dtype_policy() == before
