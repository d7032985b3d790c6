"""Learned rounding of weights to 8 bits."""

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


def test_all_kernels_but_the_first_are_quantized_to_8_bits(network):
    before, updates = kernels(network), []
    quantization.learn_rounding(network, images(2), 2, lambda *update: updates.append(update))
    after = kernels(network)
    assert updates == [(1, 2), (2, 2)]
    np.testing.assert_array_equal(after[0], before[0], "0.9% of all weights")
    for old, new in zip(before[1:], after[1:], strict=True):
        assert not quantization.is_quantized(old, axis=3)
        assert quantization.is_quantized(new, axis=3)
        greatest = np.abs(old).max(axis=(0, 1, 2))
        np.testing.assert_allclose(np.abs(new).max(axis=(0, 1, 2)), greatest, rtol=1e-6)
        assert (np.abs(new - old) / (greatest / 127)).max() < 2, "a weight moves by less than two steps"


def test_learned_rounding_changes_logits_less_than_rounding_to_the_nearest_value(network, monkeypatch):
    monkeypatch.setattr(quantization, "_MAX_LEVEL", 7)  # 4 bits, where rounding errors are large

    def error_after(steps: int) -> float:
        copy = keras.models.clone_model(network)
        copy.set_weights(network.get_weights())
        quantization.learn_rounding(copy, images(steps), steps, lambda *_: None)
        other = np.random.default_rng(2).integers(0, 256, (64, 32, 32, 3)).astype("float32")
        rounded, original = (model.predict_on_batch(other)["authenticity"] for model in (copy, network))
        return float(np.sqrt(np.mean((rounded - original) ** 2)))

    assert error_after(100) < 0.5 * error_after(0)


def test_is_quantized():
    channels = np.array([[127, -5, 0], [254, 2, -30]], np.float32)
    assert quantization.is_quantized(channels, axis=0)
    assert not quantization.is_quantized(channels + np.float32([0, 0.3, 0]), axis=0)
    assert quantization.is_quantized(np.zeros((2, 3), np.float32), axis=1)
