"""What `pipelines` relies on in Keras beyond its public API, and what happens when it is gone."""

import keras
import numpy as np
import pytest

from pipelines.exceptions import DataError
from pipelines.transforms.keras_internals import SEEN_WITH, replace_seed_generators

LAYERS = {
    "RandomRotation": (keras.layers.RandomRotation, {"factor": 0.1}, 1),
    "RandomTranslation": (keras.layers.RandomTranslation, {"height_factor": 0.1, "width_factor": 0.1}, 1),
    "RandomShear": (keras.layers.RandomShear, {"x_factor": 0.1}, 1),
    "RandomZoom": (keras.layers.RandomZoom, {"height_factor": 0.1}, 1),
    "RandomColorJitter": (
        keras.layers.RandomColorJitter,
        {"brightness_factor": 0.1, "contrast_factor": 0.1, "saturation_factor": 0.1, "hue_factor": 0.1},
        5,  # its own, and one in each of its four sublayers
    ),
    "MixUp": (keras.layers.MixUp, {}, 1),
    "CutMix": (keras.layers.CutMix, {}, 1),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_seed_generator_of_a_layer_is_replaced(name):
    """Written with Keras 3.15.1 and TensorFlow 2.21.0."""
    kind, options, number = LAYERS[name]
    seeds = replace_seed_generators(kind(**options, seed=0))
    help_text = (
        f"Keras {keras.__version__} keeps the seed generators of {name} in another place than Keras {SEEN_WITH}: see "
        "where in its source, and adapt pipelines/transforms/keras_internals.py"
    )
    assert len(seeds) == number, help_text


def test_a_layer_draws_from_the_replaced_generator():
    layer = keras.layers.RandomRotation(0.5, seed=0, dtype="float32")
    (seeds,) = replace_seed_generators(layer)
    images = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 3)).astype("float32")

    def rotated(key: int) -> np.ndarray:
        seeds.start(key)
        return np.asarray(layer(images, training=True))

    first = rotated(1)
    assert not np.array_equal(rotated(2), first)
    np.testing.assert_array_equal(rotated(1), first)


def test_keys_and_generators_have_seeds_of_their_own():
    layer = keras.layers.RandomColorJitter(brightness_factor=0.1, hue_factor=0.1, seed=0)
    seeds = replace_seed_generators(layer)
    for generator in seeds:
        generator.start(7)
    drawn = [np.asarray(generator.next()).tolist() for generator in seeds for _ in range(2)]
    assert drawn == [[7, 0], [7, 1], [7, 1000], [7, 1001], [7, 2000], [7, 2001]]


class Hidden(keras.layers.RandomRotation):
    """A layer that keeps its generator where a later Keras might."""

    def __init__(self, factor):
        super().__init__(factor, seed=0)
        generator = self.generator
        del self.generator
        self.generators = {"rotation": generator}


def test_a_version_of_keras_that_keeps_them_elsewhere_is_named():
    message = (
        rf"^Keras {keras.__version__} does not keep the seed generators of Hidden where Keras 3\.15\.1 does; install "
        r"that version: pip install keras==3\.15\.1$"
    )
    with pytest.raises(DataError, match=message):
        replace_seed_generators(Hidden(0.1))
