"""What is settled by the machine."""

import logging
from dataclasses import replace

import keras
import pytest

from ddkeras.training import autotune


@pytest.fixture
def quickest(monkeypatch):
    """Have trials take so many seconds; those that were made."""
    tried = []

    def seconds(recipe, precision, xla):
        tried.append((precision, xla))
        return {("float32", "off"): 3.0, ("mixed_bfloat16", "off"): 2.0, ("mixed_bfloat16", "on"): 1.0}[
            precision, xla
        ]

    monkeypatch.setattr(autotune, "_seconds_of_a_step", seconds)
    return tried


def test_a_short_training_on_a_cpu_does_without_a_trial(recipe, quickest):
    settled = autotune.resolve_auto(recipe, 999)
    assert (settled.precision, settled.xla, quickest) == ("float32", "off", [])


def test_a_long_one_takes_what_is_quickest(recipe, quickest, caplog):
    caplog.set_level(logging.INFO, "ddkeras")
    settled = autotune.resolve_auto(recipe, 1000)
    assert (settled.precision, settled.xla) == ("mixed_bfloat16", "on")
    assert [record.getMessage() for record in caplog.records] == [
        "tried float32 3.00 s, mixed_bfloat16 2.00 s: mixed_bfloat16",
        "tried off 2.00 s, on 1.00 s: on",
    ]


def test_what_is_asked_for_is_not_tried(recipe, quickest):
    settled = autotune.resolve_auto(replace(recipe, precision="mixed_bfloat16", xla="off"), 1000)
    assert (settled.precision, settled.xla, quickest) == ("mixed_bfloat16", "off", [])


def test_what_was_settled_stays(recipe, quickest):
    settled = autotune.resolve_auto(recipe, 1000)
    quickest.clear()
    assert autotune.resolve_auto(settled, 1000) == settled
    assert quickest == []


@pytest.mark.parametrize(("precision", "xla"), [("float32", "off"), ("float32", "on"), ("mixed_bfloat16", "off")])
def test_a_trial_is_a_step_of_the_network(recipe, precision, xla):
    before = keras.config.dtype_policy()
    assert 0 < autotune._seconds_of_a_step(replace(recipe, backbone="small-cnn"), precision, xla) < 30
    assert keras.config.dtype_policy() == before
