"""Augmentation chains, and what they require of the layers of Keras and keras-cv."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from ddkeras.config import Recipe
from ddkeras.exceptions import ConfigError
from ddkeras.training.loop import fit
from pipelines.exceptions import DataError
from pipelines.transforms.augmenter import CHAINS, STEPS, Augmenter

IMAGES = np.random.default_rng(0).uniform(0, 255, (16, 40, 40, 3)).astype("float32")
RAND_AUGMENT = pytest.param("rand_augment", marks=pytest.mark.slow)
LIBRARY_LAYERS = ["rotation", "translation", "shear", "zoom", "colour_jitter"]


def augmented(chain, step=0, seed=0, images=IMAGES, **options) -> np.ndarray:
    return np.asarray(Augmenter(chain, 40, seed=seed)(images, step=step, **options))


def test_an_empty_chain_changes_nothing():
    np.testing.assert_array_equal(augmented({}), IMAGES)


def test_the_forensic_chain_returns_crops_in_range():
    out = augmented(CHAINS["forensic"])
    assert out.shape == (16, 36, 36, 3) == (16, *[Augmenter(CHAINS["forensic"], 40).size] * 2, 3)
    assert out.dtype == "float32"
    assert 0 <= out.min() < out.max() <= 255


@pytest.mark.parametrize(
    "chain", [CHAINS["forensic"], {name: {} for name in LIBRARY_LAYERS}], ids=["forensic", "library"]
)
def test_random_numbers_depend_on_seed_and_step_alone(chain):
    first = augmented(chain, step=7, seed=3)
    twice = Augmenter(chain, 40, seed=3)
    twice(IMAGES, step=1)  # earlier steps do not matter
    np.testing.assert_array_equal(twice(IMAGES, step=7), first)
    assert not np.array_equal(augmented(chain, step=8, seed=3), first)
    assert not np.array_equal(augmented(chain, step=7, seed=4), first)


def test_dividing_a_batch_among_devices_does_not_change_its_augmentation():
    whole = augmented(CHAINS["forensic"], step=5)
    halves = [augmented(CHAINS["forensic"], step=5, images=IMAGES[at : at + 8], first=at) for at in (0, 8)]
    np.testing.assert_allclose(np.concatenate(halves), whole, atol=1e-3)


@pytest.mark.parametrize("name", [*LIBRARY_LAYERS, RAND_AUGMENT, "flip", "blur", "jpeg"])
def test_each_image_of_a_batch_is_augmented_independently(name):
    same = np.repeat(IMAGES[:1], 16, axis=0)
    out = augmented({name: {"probability": 1.0} if name not in ("flip",) else {}}, images=same)
    assert len({image.tobytes() for image in out}) > (1 if name == "flip" else 12)
    assert 0 <= out.min() < out.max() <= 255


@pytest.mark.parametrize("name", [*LIBRARY_LAYERS, RAND_AUGMENT])
def test_library_layers_are_applied_with_their_probability(name):
    assert (augmented({name: {"probability": 0.0}}) == IMAGES).all()
    many = np.repeat(IMAGES, 16, axis=0)
    share = (augmented({name: {"probability": 0.5}}, images=many) != many).any(axis=(1, 2, 3)).mean()
    assert 0.3 < share < 0.65  # 256 images; RandAugment sometimes does nothing to an image


def test_in_half_precision_nothing_overflows():
    layer = Augmenter(CHAINS["forensic"], 40, dtype="mixed_float16")
    for images in (IMAGES, IMAGES.astype("float16"), IMAGES.astype("uint8")):
        out = np.asarray(layer(images, step=3))
        assert out.dtype == "float16"
        assert np.isfinite(out).all()
        assert 0 <= out.min() < out.max() <= 255


def test_the_forensic_chain_compiles_with_xla():
    layer = Augmenter(CHAINS["forensic"], 40)
    assert layer.compiles
    assert not Augmenter({"rotation": {}}, 40).compiles
    assert not Augmenter({"mix_up": {}}, 40).compiles
    specs = [tf.TensorSpec((None, 40, 40, 3), tf.uint8), tf.TensorSpec((), tf.int64)]
    compiled = tf.function(lambda images, step: layer(images, step=step), input_signature=specs, jit_compile=True)
    images = IMAGES.astype("uint8")
    expected = np.asarray(layer(images, step=2))
    # JPEG amplifies differences in rounding.
    assert np.abs(np.asarray(compiled(images, tf.constant(2, tf.int64))) - expected).mean() < 0.05


@pytest.mark.parametrize("name", [RAND_AUGMENT if name == "rand_augment" else name for name in STEPS])
def test_every_step_runs_with_its_defaults(name):
    out = augmented({name: {"share": 0.9} if name == "crop" else {}})
    assert np.isfinite(out).all()


def test_colour_jitter_raises_and_lowers_saturation():
    only_saturation = {"colour_jitter": {"brightness": 0.0, "contrast": 0.0, "hue": 0.0, "saturation": 0.2}}
    out = augmented(only_saturation)
    spread = [np.ptp(images, axis=-1).mean(axis=(1, 2)) for images in (IMAGES, out)]
    factors = spread[1] / spread[0]
    assert 0.75 < factors.min() < 0.95
    assert 1.0 < factors.max() < 1.25


def test_layers_have_different_seeds():
    same = np.repeat(IMAGES[:1], 16, axis=0)
    keys = np.arange(16, dtype="uint32")
    seeds = []
    for name in ("rotation", "zoom", "shear", "translation", "colour_jitter"):
        (step,) = Augmenter({name: {}}, 40).steps
        step(same, keys)
        seeds += [tuple(np.asarray(generator.next()).tolist()) for generator in step.seeds]
    assert len(set(seeds)) == len(seeds) >= 8


# --- without keras-cv ------------------------------------------------------------------------------------------


def test_without_keras_cv_rand_augment_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    with pytest.raises(
        DataError, match=r"^rand_augment needs keras-cv, which .*; install it with: pip install keras-cv$"
    ):
        Augmenter({"flip": {}, "rand_augment": {}}, 40)
    with pytest.raises(ConfigError, match="rand_augment needs keras-cv"):
        Recipe(backbone="small-cnn", augment={"rand_augment": {}})


def test_without_keras_cv_all_other_steps_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    chain = {name: {"share": 0.9} if name == "crop" else {} for name in STEPS if name != "rand_augment"}
    targets = {"authenticity": np.arange(16, dtype="float32")[:, None] % 2}
    weights = {"authenticity": np.ones(16, "float32")}
    augmenter = Augmenter(chain, 40)
    images, targets, weights = augmenter.mix(augmenter(IMAGES, step=0), targets, weights, 0, step=0)
    assert images.shape == (16, 36, 36, 3)
    assert np.isfinite(images).all()


def test_without_keras_cv_recipes_without_rand_augment_train(monkeypatch, records, recipe, tmp_path):
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    recipe = replace(recipe, epochs=1, augment=dict(CHAINS["forensic"]), xla="off")
    assert (fit(recipe, records, tmp_path, verbose=0).folder / "history.csv").is_file()


# --- mixing ----------------------------------------------------------------------------------------------------


def mixed(name, images, categories, weights):
    targets = {"authenticity": np.arange(8, dtype="float32")[:, None] % 2}
    if categories is not None:
        targets["category"] = np.array(categories)
    weights = {head: np.array(weights, "float32") for head in targets}
    augmenter = Augmenter({name: {}}, 40, seed=1)
    out = augmenter.mix(images, targets, weights, 3 if categories is not None else 0, step=0)
    return [out[0].numpy(), *({head: np.asarray(v) for head, v in part.items()} for part in out[1:])]


ROWS = np.repeat(np.eye(8, dtype="float32"), 5, axis=1)[:, :, None, None] * np.ones((1, 1, 40, 3), "float32")
LEVELS = np.ones((8, 40, 40, 3), "float32") * np.arange(8)[:, None, None, None]


@pytest.mark.parametrize(
    ("name", "images", "shares_of", "error"),
    [
        # Image i is 1 in its own rows only, so that they tell its share in a mixture of whole images.
        ("mix_up", ROWS, lambda image: image[::5, 0, 0], 1e-3),
        # Every pixel of image i is i, so that it tells its origin in a mixture of patches. Keras does not count
        # the pixels of a patch that are cut off at the edge.
        ("cut_mix", LEVELS, lambda image: np.bincount(image.ravel().astype(int), minlength=8) / image.size, 0.06),
    ],
)
def test_mixed_targets_match_the_shares_of_the_images(name, images, shares_of, error):
    categories = [0, 1, 2, 0, 1, 2, 0, 1]
    images, targets, weights = mixed(name, images, categories, [1] * 8)
    shares = np.stack([shares_of(image) for image in images])
    assert (shares.max(axis=1) < 0.99).any()
    np.testing.assert_allclose(targets["authenticity"][:, 0], shares @ (np.arange(8) % 2), atol=error)
    np.testing.assert_allclose(targets["category"], shares @ np.eye(3)[categories], atol=error)
    assert weights["authenticity"].tolist() == pytest.approx([1] * 8)


def test_examples_without_a_category_do_not_contribute_one_to_mixtures():
    _, targets, weights = mixed("mix_up", ROWS, [0, 0, 0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0, 0])
    assert (weights["category"] < 1).any()
    known = weights["category"] > 0
    np.testing.assert_allclose(targets["category"][known], [[1, 0, 0]] * known.sum(), atol=1e-5)


def test_data_without_classes_can_be_mixed():
    _, targets, weights = mixed("mix_up", ROWS, None, [1] * 8)
    assert set(targets) == set(weights) == {"authenticity"}


# --- another backend -------------------------------------------------------------------------------------------

STEP = """
import json, sys
import keras, numpy as np
from ddkeras.training.losses import binary_cross_entropy, categorical_cross_entropy
from ddkeras.models.detector import build_model
from pipelines.transforms.augmenter import CHAINS, Augmenter
images = np.random.default_rng(0).uniform(0, 255, (16, 40, 40, 3)).astype("float32")
seen = Augmenter(CHAINS["forensic"], 40, seed=3)(images, step=5)
inputs = keras.Input((36, 36, 3))
kernel = keras.initializers.RandomNormal(seed=0)
trunk = keras.Model(inputs, keras.layers.Conv2D(4, 3, kernel_initializer="ones")(inputs / 255))
model = build_model(trunk, 3, dropout=0.0)
for variable in model.trainable_variables:
    variable.assign(np.linspace(-1, 1, int(np.prod(variable.shape))).reshape(variable.shape))
logits = model(seen, training=True)
losses = binary_cross_entropy(np.ones((16, 1)), logits["authenticity"]), categorical_cross_entropy(
    np.arange(16) % 3, logits["category"])
print(json.dumps([keras.backend.backend(), *(float(keras.ops.mean(loss)) for loss in losses)]))
"""


@pytest.mark.slow
def test_augmentation_forward_pass_and_losses_are_the_same_under_jax():
    pytest.importorskip("jax")
    results = []
    for backend in ("tensorflow", "jax"):
        environment = os.environ | {"KERAS_BACKEND": backend}
        done = subprocess.run(
            [sys.executable, "-c", STEP], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        results.append(json.loads(done.stdout.splitlines()[-1]))
    (first, *expected), (second, *got) = results
    assert (first, second) == ("tensorflow", "jax")
    np.testing.assert_allclose(got, expected, rtol=1e-3)
