"""Rounding to 8 bits that is learnt."""

import keras
import numpy as np
import pytest

from ddkeras.exporting import quantization
from ddkeras.models.backbones import build_trunk
from ddkeras.models.detector import build_model


@pytest.fixture
def network():
    keras.utils.set_random_seed(0)
    model = build_model(build_trunk("small-cnn", image_size=32, weights="none"), 2)
    model.get_layer("authenticity").kernel.assign(np.random.default_rng(0).normal(size=(128, 1)))
    return model


def images(steps: int) -> list[np.ndarray]:
    return list(np.random.default_rng(1).integers(0, 256, (steps, 8, 32, 32, 3)).astype("float32"))


def kernels(network) -> list[np.ndarray]:
    return [layer.kernel.numpy() for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]


def test_all_kernels_but_the_first_are_on_a_grid_of_8_bits(network):
    before, moves = kernels(network), []
    quantization.learn(network, images(2), 2, lambda *move: moves.append(move))
    after = kernels(network)
    assert moves == [(1, 2), (2, 2)]
    np.testing.assert_array_equal(after[0], before[0], "0.9% of all weights")
    for old, new in zip(before[1:], after[1:], strict=True):
        assert not quantization.is_rounded(old, axis=3)
        assert quantization.is_rounded(new, axis=3)
        greatest = np.abs(old).max(axis=(0, 1, 2))
        np.testing.assert_allclose(np.abs(new).max(axis=(0, 1, 2)), greatest, rtol=1e-6)
        assert (np.abs(new - old) / (greatest / 127)).max() < 2, "a weight moves by little"


def test_logits_stay_nearer_than_with_the_nearest_values(network, monkeypatch):
    monkeypatch.setattr(quantization, "_MOST", 7)  # 4 bits, where there is much to win

    def error_after(steps: int) -> float:
        copy = keras.models.clone_model(network)
        copy.set_weights(network.get_weights())
        quantization.learn(copy, images(steps), steps, lambda *_: None)
        other = np.random.default_rng(2).integers(0, 256, (64, 32, 32, 3)).astype("float32")
        ours, theirs = (model.predict_on_batch(other)["authenticity"] for model in (copy, network))
        return float(np.sqrt(np.mean((ours - theirs) ** 2)))

    assert error_after(100) < 0.5 * error_after(0)


def test_what_is_on_the_grid():
    channels = np.array([[127, -5, 0], [254, 2, -30]], np.float32)
    assert quantization.is_rounded(channels, axis=0)
    assert not quantization.is_rounded(channels + np.float32([0, 0.3, 0]), axis=0)
    assert quantization.is_rounded(np.zeros((2, 3), np.float32), axis=1)
