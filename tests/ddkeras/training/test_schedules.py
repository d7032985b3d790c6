"""Learning rate schedules, against values computed by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ddkeras.training.schedules import KINDS, Schedule


def rates(schedule: Schedule, steps: list[int]) -> list[float]:
    return [float(schedule(step)) for step in steps]


def test_cosine_warms_up_to_the_peak_and_falls_to_0():
    schedule = Schedule("cosine", 0.8, steps=100, steps_per_epoch=10, warmup_steps=20)
    np.testing.assert_allclose(rates(schedule, [0, 5, 20, 60, 80, 100]), [0, 0.2, 0.8, 0.4, 0.1171573, 0], atol=1e-7)


def test_cosine_stays_at_0_after_the_last_step():
    assert rates(Schedule("cosine", 0.8, steps=100, steps_per_epoch=10), [100, 150, 200]) == [0, 0, 0]


def test_cosine_equals_that_of_keras():
    ours = Schedule("cosine", 0.003, steps=120, steps_per_epoch=10, warmup_steps=6)
    theirs = keras.optimizers.schedules.CosineDecay(0.0, decay_steps=114, warmup_target=0.003, warmup_steps=6)
    every = list(range(121))
    np.testing.assert_allclose(rates(ours, every), rates(theirs, every), rtol=1e-5, atol=1e-9)


def test_step_decays_every_decay_epochs():
    schedule = Schedule("step", 0.8, steps=100, steps_per_epoch=10, decay=0.5, decay_epochs=3)
    np.testing.assert_allclose(rates(schedule, [0, 29, 30, 59, 60, 90]), [0.8, 0.8, 0.4, 0.4, 0.2, 0.1])


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("steps_per_epoch", [49, 97, 123])  # a multiple of n times 1 / n may be 0.9999999
def test_step_decays_in_the_first_step_of_an_epoch_in_a_graph_too(compiled, steps_per_epoch):
    schedule = Schedule("step", 1.0, steps=10_000, steps_per_epoch=steps_per_epoch, decay=0.5, decay_epochs=5)
    rate = tf.function(schedule, jit_compile=compiled)
    for decays in (1, 2, 3, 8):
        first = decays * 5 * steps_per_epoch
        assert float(rate(tf.constant(first - 1))) == pytest.approx(2 * 0.5**decays)
        assert float(rate(tf.constant(first))) == pytest.approx(0.5**decays)


def test_exponential_decays_in_every_step():
    schedule = Schedule("exponential", 0.8, steps=100, steps_per_epoch=10, decay=0.25, decay_epochs=4)
    np.testing.assert_allclose(rates(schedule, [0, 10, 20, 40, 80]), [0.8, 0.565685, 0.4, 0.2, 0.05], rtol=1e-6)


def test_constant_stays_at_the_peak():
    schedule = Schedule("constant", 0.8, steps=100, steps_per_epoch=10, warmup_steps=4)
    np.testing.assert_allclose(rates(schedule, [0, 1, 4, 5, 100]), [0, 0.2, 0.8, 0.8, 0.8])


@pytest.mark.parametrize("kind", ["cosine", "step", "constant"])
def test_the_rate_rises_linearly_to_its_peak(kind):
    schedule = Schedule(kind, 0.8, steps=100, steps_per_epoch=10, warmup_steps=20)
    np.testing.assert_allclose(rates(schedule, [0, 5, 15, 20]), [0, 0.2, 0.6, 0.8], rtol=1e-6)


def test_decay_epochs_include_the_warm_up():
    options = {"steps": 100, "steps_per_epoch": 10, "warmup_steps": 20, "decay": 0.5, "decay_epochs": 3}
    np.testing.assert_allclose(rates(Schedule("step", 0.8, **options), [21, 29, 30]), [0.8, 0.8, 0.4])
    np.testing.assert_allclose(rates(Schedule("exponential", 0.8, **options), [30, 60]), [0.4, 0.2], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_without_warm_up_the_first_step_is_at_the_peak(kind):
    assert rates(Schedule(kind, 0.8, steps=100, steps_per_epoch=10), [0]) == [pytest.approx(0.8)]


def test_exponential_decay_starts_during_the_warm_up():
    options = {"steps": 100, "steps_per_epoch": 10, "warmup_steps": 20, "decay": 0.25, "decay_epochs": 2}
    np.testing.assert_allclose(
        rates(Schedule("exponential", 0.8, **options), [0, 10, 20, 40]), [0, 0.2, 0.2, 0.05], rtol=1e-6
    )


@pytest.mark.parametrize("kind", ["cosine", "step", "constant"])
def test_a_training_may_be_all_warm_up(kind):
    schedule = Schedule(kind, 0.8, steps=4, steps_per_epoch=4, warmup_steps=4)
    np.testing.assert_allclose(rates(schedule, [0, 1, 2, 3, 4]), [0, 0.2, 0.4, 0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_rates_are_multiplied_after_unfreezing(kind):
    options = {"steps": 100, "steps_per_epoch": 10, "warmup_steps": 20}
    plain = rates(Schedule(kind, 0.8, **options), [10, 29, 50, 70])
    thawed = rates(Schedule(kind, 0.8, **options, thaw_step=30, thaw_factor=0.1), [10, 29, 50, 70])
    np.testing.assert_allclose(thawed, np.multiply(plain, [1, 1, 0.1, 0.1]), rtol=1e-6)


def test_there_is_a_second_warm_up_after_unfreezing():
    options = {"steps": 100, "steps_per_epoch": 10, "thaw_step": 30, "thaw_factor": 0.5}
    risen = rates(Schedule("constant", 0.8, **options, warmup_steps=10), [5, 10, 29, 30, 35, 40, 99])
    np.testing.assert_allclose(risen, [0.4, 0.8, 0.8, 0, 0.2, 0.4, 0.4], rtol=1e-6)
    assert rates(Schedule("constant", 0.8, **options), [30])[0] == pytest.approx(0.4), "without a warm-up at once"


def test_without_frozen_epochs_the_thaw_factor_has_no_effect():
    schedule = Schedule("constant", 0.8, steps=100, steps_per_epoch=10, thaw_factor=0.1)
    assert rates(schedule, [0, 50]) == [pytest.approx(0.8)] * 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compiled", [False, True])
def test_a_graph_gives_the_same_float32_rates(kind, compiled):
    options = {"steps": 100, "steps_per_epoch": 10, "warmup_steps": 20, "thaw_step": 30, "thaw_factor": 0.1}
    schedule = Schedule(kind, 0.8, **options)
    rate = tf.function(schedule, jit_compile=compiled)
    compiled_rates = [rate(tf.constant(step, "int64")) for step in (0, 5, 20, 25, 30, 99)]
    assert {value.dtype.name for value in compiled_rates} == {"float32"}
    np.testing.assert_allclose(compiled_rates, rates(schedule, [0, 5, 20, 25, 30, 99]), rtol=1e-5, atol=1e-9)


def test_an_optimizer_follows_the_schedule():
    weight = keras.Variable(1.0)
    schedule = Schedule("step", 0.5, steps=4, steps_per_epoch=1, decay=0.5, decay_epochs=1)
    optimizer = keras.optimizers.SGD(schedule)
    for expected in (0.5, 0.25, 0.125):
        optimizer.apply([keras.ops.ones(())], [weight])
        assert float(weight) == pytest.approx(expected)


def test_a_schedule_is_restored_from_its_config():
    options = {
        "steps": 100,
        "steps_per_epoch": 10,
        "warmup_steps": 20,
        "decay": 0.5,
        "decay_epochs": 3,
        "thaw_step": 30,
        "thaw_factor": 0.1,
    }
    config = Schedule("step", 0.8, **options).get_config()
    assert config == {"kind": "step", "peak": 0.8, **options}
    assert Schedule.from_config(config).get_config() == config


def test_an_unknown_kind_is_answered_with_all_kinds():
    with pytest.raises(
        ValueError, match=r"^there is no schedule 'linear'; give one of cosine, step, exponential, constant$"
    ):
        Schedule("linear", 0.8, steps=100, steps_per_epoch=10)
