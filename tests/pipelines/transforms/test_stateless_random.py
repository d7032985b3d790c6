"""Stateless random numbers: the same on all backends, and statistically random."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from pipelines.transforms import stateless_random

UNIFORM = [[0.672857, 0.82882309, 0.44377410], [0.15506643, 0.07673359, 0.86487609]]  # seed 7, step 3, "a"
NORMAL = [[-0.560630, 0.002703, 0.528043], [-1.782217, 0.903973, -0.533908]]
DRAW = """
import json, numpy, keras
from pipelines.transforms import stateless_random
keys = stateless_random.fold(stateless_random.keys(7, 3, 0, 2), "a")
values = {"backend": keras.backend.backend(), "keys": keys, "uniform": stateless_random.uniform(keys, (3,))}
values["normal"] = stateless_random.normal(keys, (3,))
print(json.dumps(values, default=lambda x: numpy.asarray(x).tolist()))
"""


def drawn(images: int, values: int, *, seed: int = 1, step=2, purpose: str = "test") -> np.ndarray:
    keys = stateless_random.fold(stateless_random.keys(seed, step, 0, images), purpose)
    return np.asarray(stateless_random.uniform(keys, (values,)))


def test_values_are_stable():
    keys = stateless_random.fold(stateless_random.keys(7, 3, 0, 2), "a")
    np.testing.assert_allclose(stateless_random.uniform(keys, (3,)), UNIFORM, atol=1e-8)
    np.testing.assert_allclose(stateless_random.normal(keys, (3,)), NORMAL, atol=1e-6)


def test_xla_with_an_unknown_batch_size_gives_the_same_numbers():
    @tf.function(jit_compile=True, input_signature=[tf.TensorSpec((), "int64"), tf.TensorSpec((None, 1))])
    def compiled(step, images):
        keys = stateless_random.fold(stateless_random.keys(7, step, 0, tf.shape(images)[0]), "a")
        return keys, stateless_random.uniform(keys, (3,)), stateless_random.normal(keys, (3,))

    keys, uniform, normal = compiled(tf.constant(3, tf.int64), tf.zeros((2, 1)))
    np.testing.assert_array_equal(keys, stateless_random.fold(stateless_random.keys(7, 3, 0, 2), "a"))
    np.testing.assert_array_equal(uniform, stateless_random.uniform(keys, (3,)))
    np.testing.assert_allclose(normal, NORMAL, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_jax_gives_the_same_numbers():
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    done = subprocess.run(
        [sys.executable, "-c", DRAW], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    drawn_by_jax = json.loads(done.stdout)
    assert drawn_by_jax["backend"] == "jax"
    keys = stateless_random.fold(stateless_random.keys(7, 3, 0, 2), "a")
    np.testing.assert_array_equal(drawn_by_jax["keys"], keys)
    np.testing.assert_array_equal(np.float32(drawn_by_jax["uniform"]), stateless_random.uniform(keys, (3,)))
    np.testing.assert_allclose(drawn_by_jax["normal"], NORMAL, atol=1e-6)


def test_dividing_a_batch_over_devices_does_not_change_its_keys():
    whole = np.asarray(stateless_random.keys(7, 3, 0, 8))
    np.testing.assert_array_equal(
        np.concatenate([stateless_random.keys(7, 3, 0, 5), stateless_random.keys(7, 3, 5, 3)]), whole
    )


def test_all_keys_of_a_batch_differ():
    keys = stateless_random.keys(0, 0, 0, 100_000)
    assert len(np.unique(keys)) == len(np.unique(stateless_random.fold(keys, "blur"))) == 100_000


def test_a_seed_has_up_to_32_bits():
    stateless_random.keys(2**32 - 1, 0, 0, 1)
    with pytest.raises(OverflowError):
        stateless_random.keys(2**32, 0, 0, 1)


def test_uniform_numbers_are_uniform():
    values = drawn(500, 2000)
    assert values.dtype == np.float32
    assert values.min() >= 0
    assert values.max() < 1
    assert abs(values.mean() - 1 / 2) < 0.0012  # four standard errors of a million
    assert abs(values.var() - 1 / 12) < 0.0003
    for bits in (values, np.mod(values * 2**12, 1)):  # the upper and the lower half of each
        assert scipy.stats.chisquare(np.histogram(bits, 1024, (0, 1))[0]).pvalue > 1e-4


def test_normal_numbers_are_normal():
    values = np.asarray(stateless_random.normal(stateless_random.keys(1, 2, 0, 500), (2000,))).ravel()
    assert abs(values.mean()) < 0.004  # four standard errors of a million
    assert abs(values.var() - 1) < 0.006
    assert 4 < np.abs(values).max() < 4.9
    assert scipy.stats.kstest(values, "norm").pvalue > 1e-4


@pytest.mark.parametrize("other", [{"seed": 2}, {"step": 3}, {"purpose": "best"}])
def test_seeds_steps_and_purposes_are_independent(other):
    one, two = drawn(100, 1000), drawn(100, 1000, **other)
    assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 0.0127  # four standard errors of 100,000


def test_neighbouring_images_and_indices_are_uncorrelated():
    values = drawn(301, 1001)
    for one, two in ((values[:-1], values[1:]), (values[:, :-1], values[:, 1:]), (values[:-1, :-1], values[1:, 1:])):
        assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 0.0073  # four standard errors of 300,000


def test_the_first_numbers_of_many_steps_are_uniform():
    keys = np.concatenate([stateless_random.keys(0, step, 0, 20) for step in range(100)])
    first = np.asarray(stateless_random.uniform(stateless_random.fold(keys, "touched")))
    assert first.shape == (2000,)
    assert scipy.stats.chisquare(np.histogram(first, 20, (0, 1))[0]).pvalue > 1e-4


def test_a_longer_shape_begins_with_the_numbers_of_a_shorter_one():
    np.testing.assert_array_equal(drawn(3, 10)[:, :4], drawn(3, 4))
    keys = stateless_random.keys(1, 2, 0, 3)
    np.testing.assert_array_equal(
        np.reshape(stateless_random.uniform(keys, (2, 5)), (3, 10)), stateless_random.uniform(keys, (10,))
    )
