"""Our own networks: outputs, parameters, initialization, saved weights."""

import keras
import numpy as np
import pytest

from ddkeras.models.backbones import build_trunk
from ddkeras.models.networks import deepfake_net, small_cnn


def parameters(network: keras.Model) -> int:
    return sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)


def layers(network: keras.Model, kind: type) -> list[keras.layers.Layer]:
    return [layer for layer in network.layers if isinstance(layer, kind)]


def test_deepfakenet_is_ten_bottlenecks_in_four_stages():
    network = deepfake_net(128)
    assert network.input_shape == (None, 128, 128, 3)
    stages = [(64, 64)] * 2 + [(32, 128)] * 3 + [(16, 256)] * 3 + [(8, 512)] * 2
    sums = layers(network, keras.layers.Add)
    assert [added.output.shape for added in sums] == [(None, rows, rows, channels) for rows, channels in stages]
    assert network.output_shape == (None, 8, 8, 512)
    assert parameters(network) == 2_628_160


def test_the_first_stage_of_deepfakenet_has_half_the_resolution():
    network = deepfake_net(128)
    strides = [layer.strides for layer in layers(network, keras.layers.Conv2D)]
    assert strides[:7] == [(2, 2)] + [(1, 1)] * 6  # the stem, then two bottlenecks
    assert layers(network, keras.layers.MaxPooling2D) == []


def test_a_new_bottleneck_is_the_identity():
    network = deepfake_net(32)
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    stem = layers(network, keras.layers.ReLU)[0].output
    first, second = (layer.output for layer in layers(network, keras.layers.Add)[:2])
    given, *passed_on = keras.Model(network.input, [stem, first, second])(images)
    for features in passed_on:
        np.testing.assert_array_equal(features, given)


def test_small_cnn_is_three_convolutions_each_pooled():
    network = small_cnn(128)
    assert network.input_shape == (None, 128, 128, 3)
    convolutions = layers(network, keras.layers.Conv2D)
    assert [layer.output.shape[1:] for layer in convolutions] == [(128, 128, 32), (64, 64, 64), (32, 32, 128)]
    assert network.output_shape == (None, 16, 16, 128)
    assert parameters(network) == 93_472


@pytest.mark.parametrize("network", [deepfake_net, small_cnn])
def test_convolutions_have_he_initialization_and_no_bias(network):
    for layer in layers(network(32), keras.layers.Conv2D):
        assert not layer.use_bias
        kernel = np.asarray(layer.kernel)
        assert kernel.std() == pytest.approx(np.sqrt(2 / np.prod(kernel.shape[:3])), rel=0.1)


@pytest.mark.parametrize(
    ("network", "size", "rows"),
    [(deepfake_net, 32, 2), (deepfake_net, 75, 5), (small_cnn, 32, 4), (small_cnn, 75, 9)],
)
def test_networks_take_other_sizes(network, size, rows):
    features = network(size)(np.full((2, size, size, 3), 255, "float32"))
    assert features.shape[:3] == (2, rows, rows)
    assert np.isfinite(features).all()


@pytest.mark.parametrize("name", ["deepfakenet", "small-cnn"])
def test_saved_weights_load_again_at_any_size(name, tmp_path):
    made = build_trunk(name, image_size=32, weights="none")
    made.save_weights(tmp_path / "made.weights.h5")
    again = build_trunk(name, image_size=48, weights=str(tmp_path / "made.weights.h5"))
    for given, loaded in zip(made.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(given, loaded)
