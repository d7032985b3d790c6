"""Backbones: their names, their pixels, their weights."""

import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

from ddkeras.exceptions import ConfigError
from ddkeras.models.backbones import BACKBONES, build_trunk, canonical_name


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("xception", "xception"),
        ("Xception", "xception"),
        ("EfficientNetV2B0", "efficientnetv2-b0"),
        ("efficientnetv2_s", "efficientnetv2-s"),
        ("EfficientNetB4", "efficientnet-b4"),
        ("MobileNetV2", "mobilenetv2"),
        ("DeepFakeNet", "deepfakenet"),
        ("small_cnn", "small-cnn"),
    ],
)
def test_names_are_recognized_in_any_spelling(given, meant):
    assert canonical_name(given) == meant


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("xceptoin", "xception"),
        ("efficientnet-b0", "efficientnetv2-b0"),
        ("mobilenet", "mobilenetv2"),
        ("deepfake", "deepfakenet"),
    ],
)
def test_an_unknown_name_is_answered_with_the_closest(given, near):
    with pytest.raises(ConfigError, match=f"there is no backbone '{given}'; did you mean {near}?"):
        canonical_name(given)


def test_a_name_close_to_no_backbone_is_answered_with_all():
    with pytest.raises(ConfigError, match=r"there is no backbone 'qqq'\. Known: efficientnetv2-b0, .*, small-cnn"):
        canonical_name("qqq")


QUICK = ["efficientnetv2-b0", "xception", "mobilenetv2", "efficientnet-b4", "deepfakenet", "small-cnn"]


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES if name not in QUICK)]
)
def test_a_trunk_takes_pixels_in_0_to_255_and_scales_them_itself(name):
    trunk = build_trunk(name, image_size=96, weights="none")
    assert trunk.input_shape == (None, 96, 96, 3)
    assert len(trunk.output_shape) == 4
    scaled = first_weighted_layer_input(trunk)
    black, white = scaled.predict(np.stack([np.zeros((96, 96, 3)), np.full((96, 96, 3), 255)]), verbose=0)
    assert -2.2 < black.min() <= black.max() <= 0
    assert 0.9 < white.min() <= white.max() < 2.7


def first_weighted_layer_input(trunk):
    """What reaches the first convolution."""
    first = next(layer for layer in trunk.layers if isinstance(layer, keras.layers.Conv2D))
    source = first.input
    padding = next((layer for layer in trunk.layers if isinstance(layer, keras.layers.ZeroPadding2D)), None)
    if padding is not None and padding.output is source:
        source = padding.input  # padded zeros are not pixels
    return keras.Model(trunk.inputs[0], source)


def test_a_weights_file_is_loaded(tmp_path):
    made = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3))
    made.save_weights(tmp_path / "made.weights.h5")
    trunk = build_trunk("mobilenetv2", image_size=32, weights=str(tmp_path / "made.weights.h5"))
    for given, loaded in zip(made.get_weights(), trunk.get_weights(), strict=True):
        np.testing.assert_array_equal(given, loaded)


def test_the_momentum_of_norms_is_limited():
    norms = [
        layer
        for layer in build_trunk("mobilenetv2", image_size=32, weights="none").layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert {norm.momentum for norm in norms} == {0.9}


def test_efficientnet_b4_from_a_file_normalizes_as_keras_does_for_imagenet(tmp_path):
    made = keras.applications.EfficientNetB4(include_top=False, weights=None, input_shape=(32, 32, 3))
    made.save_weights(tmp_path / "made.weights.h5")
    trunk = build_trunk("efficientnet-b4", image_size=32, weights=str(tmp_path / "made.weights.h5"))
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype("float32")
    expected = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(first_weighted_layer_input(trunk)(pixels), expected, atol=1e-5)


def test_weights_that_do_not_fit_are_named(tmp_path):
    wrong = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    wrong.save_weights(tmp_path / "wrong.weights.h5")
    (tmp_path / "text.weights.h5").write_text("not HDF5")
    for name in ("wrong.weights.h5", "text.weights.h5"):
        with pytest.raises(
            ConfigError, match=rf"{name} does not fit MobileNetV2 without its top .*notop in its name"
        ):
            build_trunk("mobilenetv2", image_size=32, weights=str(tmp_path / name))


def test_a_missing_weights_file_is_named():
    with pytest.raises(ConfigError, match=r"there is no weights file gone\.h5"):
        build_trunk("mobilenetv2", image_size=32, weights="gone.h5")


@pytest.mark.parametrize("name", ["deepfakenet", "small-cnn"])
def test_our_own_networks_have_no_imagenet_weights(name):
    with pytest.raises(ConfigError, match=f"^{name} has no ImageNet weights; give --weights none, or a file"):
        build_trunk(name, image_size=32, weights="imagenet")


def test_weights_that_cannot_be_downloaded_are_named_with_the_remedy(tmp_path):
    script = (
        "from ddkeras.models.backbones import build_trunk\n"
        "build_trunk('efficientnetv2-b0', image_size=64, weights='imagenet')"
    )
    # In its own process, as Keras reads its folder of weights on import; nobody listens at that proxy.
    environment = {"KERAS_HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    message = r"ConfigError: .* get https://\S+notop\.h5 on a machine with a network connection .* --weights FILE"
    assert re.search(message, process.stderr), process.stderr
