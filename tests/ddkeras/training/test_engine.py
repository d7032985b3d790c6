"""Training steps: gradients, averages, freezing, logs, precision, several devices."""

import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny import SUPPORT

from ddkeras.config import Recipe
from ddkeras.models.aggregation import aggregate
from ddkeras.models.precision import dtype_policy
from ddkeras.runs.run import CRITERIA
from ddkeras.training import loop
from ddkeras.training.engine import Engine
from ddkeras.training.losses import AUTHENTICITY_LOSSES
from ddkeras.training.optimizers import OPTIMIZERS, layer_factors
from ddkeras.training.schedules import KINDS
from pipelines.views import Windowed

WEIGHTS = {"authenticity": [1.0, 1.0], "category": [1.0, 1.0]}


def batch(number: int = 8, size: int = 32, seed: int = 0):
    """Images with both targets, as `pipelines.loading.batches` has them."""
    random = np.random.default_rng(seed)
    images = tf.constant(random.integers(0, 256, (number, size, size, 3)), tf.uint8)
    targets = {
        "authenticity": tf.constant(random.integers(0, 2, (number, 1)), tf.float32),
        "category": tf.constant(random.integers(0, 2, number), tf.int64),
    }
    return images, targets, {head: tf.ones(number) for head in targets}


def make(recipe, weights=WEIGHTS, steps_per_epoch=10, **changes) -> Engine:
    """An engine of the tiny network, with the same weights each time."""
    recipe = replace(recipe, **{"precision": "float32", "xla": "off", "augment": {}, "dropout": 0.0, **changes})
    keras.utils.set_random_seed(0)
    with dtype_policy(recipe.precision):
        model = loop.build(recipe, len(weights.get("category", [])))
        return Engine(model, recipe, weights, steps_per_epoch=steps_per_epoch, strategy=tf.distribute.get_strategy())


def learn(engine: Engine, *batches, first: int = 0) -> Engine:
    """Take a step with each batch."""
    for step, images in enumerate(batches, first):
        engine.train_step(engine.augment(images, step), step)
    return engine


def weights_of(engine: Engine) -> dict[str, np.ndarray]:
    """The weights, by layer and name."""
    return {"/".join(v.path.rsplit("/", 2)[-2:]): v.numpy() for v in engine.model.weights}


PLAIN = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 1.0, "schedule": "constant", "warmup": 0.0}
PLAIN |= {"weight_decay": 0.0, "freeze_norms": True}


@pytest.mark.parametrize("rest", [32, 19, 5], ids=lambda n: f"{n} images")
def test_four_accumulated_batches_of_eight_equal_one_of_thirty_two(recipe, rest):
    images = batch(rest)
    whole = weights_of(learn(make(recipe, batch=32, **PLAIN), images))
    parts = weights_of(learn(make(recipe, batch=8, accumulate=4, **PLAIN), images))
    before = weights_of(make(recipe, **PLAIN))
    assert max(np.abs(whole[name] - before[name]).max() for name in whole) > 1e-3
    for name in whole:  # differ by the gradients, as the learning rate is 1
        np.testing.assert_allclose(parts[name], whole[name], atol=1e-5, rtol=0)


def test_logs_do_not_depend_on_how_a_batch_is_divided(recipe):
    images = batch(32)
    whole = learn(make(recipe, batch=32, **PLAIN), images).logs()
    parts = learn(make(recipe, batch=8, accumulate=4, **PLAIN), images).logs()
    assert list(whole) == [
        "loss",
        "authenticity_loss",
        "authenticity_accuracy",
        "category_loss",
        "category_accuracy",
    ]
    np.testing.assert_allclose(list(parts.values()), list(whole.values()), rtol=1e-6)


def test_validation_metrics_follow_from_the_logits(recipe):
    engine = make(recipe, category_weight=0.5)
    images, targets, weights = batch(20, seed=3)
    weights = {**weights, "category": tf.constant([1.0] * 5 + [0.0] * 15)}
    logits = {head: values.numpy() for head, values in engine.model(images).items()}
    fake, labels = logits["authenticity"][:, 0], targets["authenticity"].numpy()[:, 0]
    loss = np.mean(np.log1p(np.exp(np.where(labels, -fake, fake))))
    own = logits["category"][np.arange(20), targets["category"].numpy()]
    category = np.mean((np.log(np.exp(logits["category"]).sum(axis=1)) - own)[:5])
    found = engine.validate([(images, targets, weights)])
    assert found["authenticity_loss"] == pytest.approx(loss, rel=1e-5)
    assert found["category_loss"] == pytest.approx(category, rel=1e-5)
    assert found["loss"] == pytest.approx(loss + 0.5 * 5 * category / 20, rel=1e-5)
    assert found["authenticity_accuracy"] == pytest.approx(np.mean((fake > 0) == labels))
    pairs = [(a > b) + (a == b) / 2 for a in fake[labels == 1] for b in fake[labels == 0]]
    assert found["authenticity_auc"] == pytest.approx(np.mean(pairs))


def test_validation_in_several_batches_equals_validation_in_one(recipe):
    engine = make(recipe)
    parts = [batch(5, seed=1), batch(3, seed=2)]
    whole = tuple(keras.tree.map_structure(lambda *x: tf.concat(x, 0), *(p[i] for p in parts)) for i in range(3))
    assert engine.validate(parts) == pytest.approx(engine.validate([whole]), rel=1e-5)


def test_an_image_without_a_category_trains_only_the_authenticity_head(recipe):
    engine = make(recipe, **PLAIN)
    before = weights_of(engine)
    images, targets, weights = batch()
    learn(engine, (images, targets, {**weights, "category": tf.zeros(8)}))
    changed = {name for name, values in weights_of(engine).items() if (values != before[name]).any()}
    assert {"authenticity/kernel", "conv/kernel"} <= changed
    assert not any(name.startswith("category") for name in changed)
    assert np.isnan(engine.logs()["category_loss"])


# Two windows of each image, and attention among them.
ATTENTION = {"view": "windows", "windows": 3, "windows_per_image": 2, "aggregate": "attention"}


def of_pairs(images, targets, weights):
    """The batch as one of which two images in a row are windows of one."""
    return images, keras.tree.map_structure(lambda values: tf.repeat(values[::2], 2, axis=0), targets), weights


def test_with_attention_the_loss_is_that_of_the_mean_logit_of_an_image_weighted_by_it(recipe):
    engine = make(recipe, **ATTENTION, **PLAIN)
    images, targets, weights = of_pairs(*batch(8))
    logits = {name: values.numpy() for name, values in engine.model(images).items()}
    shares = np.exp(logits["attention"].reshape(4, 2))
    fake = (logits["authenticity"].reshape(4, 2) * shares).sum(axis=1) / shares.sum(axis=1)
    labels = targets["authenticity"].numpy()[::2, 0]
    before = weights_of(engine)
    learn(engine, (images, targets, weights))
    expected = np.mean(np.log1p(np.exp(np.where(labels, -fake, fake))))
    assert engine.logs()["authenticity_loss"] == pytest.approx(expected, rel=1e-5)
    after = weights_of(engine)
    assert all((after[name] != before[name]).any() for name in ("attention/kernel", "attention_hidden/kernel"))


def test_windows_of_an_image_stay_together_in_accumulated_batches(recipe):
    images = of_pairs(*batch(16))
    whole = weights_of(learn(make(recipe, batch=8, **ATTENTION, **PLAIN), images))
    parts = weights_of(learn(make(recipe, batch=3, accumulate=3, **ATTENTION, **PLAIN), images))
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], atol=1e-5, rtol=0)


@pytest.mark.parametrize("how", ["mean", "top", "attention"])
def test_images_are_validated_by_their_windows(recipe, how):
    engine = make(recipe, **ATTENTION | {"aggregate": how})
    squares, targets, weights = batch(9)
    of_images = keras.tree.map_structure(lambda values: values[:4], (targets, weights))
    counts = [3, 1, 2, 3]
    padded = np.zeros((4, 3, 32, 32, 3), np.uint8)
    for image, (first, count) in enumerate(zip(np.cumsum([0, *counts]), counts, strict=False)):
        padded[image, :count] = squares[first : first + count]
    found = engine.validate([(Windowed(tf.constant(padded), tf.constant(counts)), *of_images)])
    outputs = {name: values[:, 0] for name, values in engine.model(squares).items() if name != "category"}
    logits = aggregate(outputs | {"logit": outputs["authenticity"]}, tf.constant(counts), how)["logit"].numpy()
    labels = of_images[0]["authenticity"].numpy()[:, 0]
    assert found["authenticity_loss"] == pytest.approx(np.mean(np.log1p(np.exp(np.where(labels, -logits, logits)))))
    assert found["authenticity_accuracy"] == np.mean((logits > 0) == labels)


def test_the_network_trains_on_crops_and_is_validated_on_whole_images(recipe):
    engine = make(recipe, image_size=48, augment={"crop": {"share": 2 / 3}})
    images = batch(4, 48)
    crops = engine.augment(images, 0)
    assert crops[0].shape == (4, 32, 32, 3)
    before = engine.validate([images])
    learn(engine, images)
    assert engine.validate([images])["loss"] != before["loss"]


def test_the_learning_rate_warms_up_and_falls_to_zero(recipe):
    engine = make(recipe, epochs=4, warmup=0.25, learning_rate=0.1)
    rates = []
    for step in (0, 5, 10, 25, 40):
        engine.optimizer.iterations.assign(step)
        rates.append(round(float(engine.optimizer.learning_rate), 4))
    assert rates == [0.0, 0.05, 0.1, 0.05, 0.0]
    engine.optimizer.iterations.assign(11)
    assert engine.learning_rate() == pytest.approx(0.1), "of the last step, not of the next"


@pytest.mark.parametrize(("optimizer", "decays"), [("adamw", True), ("sgd", True), ("adam", False)])
def test_biases_and_norms_do_not_decay(recipe, optimizer, decays):
    options = {"learning_rate": 0.1, "weight_decay": 0.5, "warmup": 0.0, "schedule": "constant"}
    engine = make(recipe, optimizer=optimizer, authenticity_weight=0.0, category_weight=1e-12, **options)
    for variable in engine.model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    engine.optimizer.apply([np.zeros(v.shape, "float32") for v in engine.variables], engine.variables)
    decayed = {v.path.rpartition("/")[2] for v in engine.variables if (v.numpy() < 0.99).any()}
    assert decayed == ({"kernel"} if decays else set())


def test_gradients_are_clipped_to_the_maximum_norm(recipe):
    engine = make(recipe, **PLAIN, clip_norm=0.01)
    before = weights_of(engine)
    learn(engine, batch())
    moved = [values - before[name] for name, values in weights_of(engine).items()]
    assert np.sqrt(sum((m**2).sum() for m in moved)) == pytest.approx(0.01, rel=1e-4)


def test_every_choice_of_a_recipe_has_its_implementation():
    choices = {field.name: field.metadata.get("choices") for field in fields(Recipe)}
    assert choices["loss"] == tuple(AUTHENTICITY_LOSSES)
    assert choices["optimizer"] == tuple(OPTIMIZERS)
    assert choices["schedule"] == KINDS
    assert choices["keep"] == tuple(CRITERIA)


# --- freezing --------------------------------------------------------------------------------------------------


def test_a_frozen_trunk_does_not_change_until_it_is_unfrozen(recipe):
    engine = make(recipe, frozen_epochs=1, optimizer="adamw", warmup=0.0)
    engine.freeze(trunk=True)
    before = weights_of(engine)
    learn(engine, batch())
    changed = {name.split("/")[0] for name, values in weights_of(engine).items() if (values != before[name]).any()}
    assert changed == {"authenticity", "category"}
    engine.freeze(trunk=False)
    learn(engine, batch(), first=1)
    changed = {name for name, values in weights_of(engine).items() if (values != before[name]).any()}
    assert changed == set(before)  # statistics of the norms too


def test_frozen_norms_keep_their_statistics(recipe):
    engine = make(recipe, freeze_norms=True, warmup=0.0)
    before = weights_of(engine)
    learn(engine, batch())
    kept = {name.rpartition("/")[2] for name, values in weights_of(engine).items() if (values == before[name]).all()}
    assert kept == {"gamma", "beta", "moving_mean", "moving_variance"}


def test_layer_decay_lowers_the_learning_rate_of_deeper_stages(recipe):
    engine = make(recipe, **{**PLAIN, "freeze_norms": False}, layer_decay=0.5)
    full = make(recipe, **{**PLAIN, "freeze_norms": False})
    before = weights_of(engine)
    learn(engine, batch())
    learn(full, batch())
    # The tiny network has one stage.
    for name, values in weights_of(engine).items():
        factor = 1.0 if name.split("/")[0] in ("authenticity", "category") or "moving" in name else 0.5
        expected = factor * (weights_of(full)[name] - before[name])
        np.testing.assert_allclose(values - before[name], expected, rtol=1e-3, atol=1e-6, err_msg=name)


def test_layer_decay_lowers_the_weight_decay_of_deeper_stages(recipe):
    engine = make(recipe, **PLAIN | {"weight_decay": 0.5, "freeze_norms": False}, layer_decay=0.25)
    for variable in engine.variables:
        variable.assign(np.ones(variable.shape))
    engine.optimizer.apply([np.zeros(v.shape, "float32") for v in engine.variables], engine.variables)
    left = {v.path: float(v.numpy().max()) for v in engine.variables if v.path.endswith("kernel")}
    assert left == {"conv/kernel": 0.875, "authenticity/kernel": 0.5, "category/kernel": 0.5}


def test_stages_are_distinguished_by_the_size_of_their_feature_maps():
    images = keras.Input((32, 32, 3))
    values = keras.layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False)(images)
    weighed = keras.layers.GlobalAveragePooling2D(keepdims=True)(values)
    values = keras.layers.Multiply()([values, keras.layers.Conv2D(4, 1)(weighed)])
    values = keras.layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False)(values)
    pooled = keras.layers.GlobalAveragePooling2D()(values)
    model = keras.Model(images, keras.layers.Dense(1, name="authenticity")(pooled))
    assert layer_factors(model, 0.5) == [0.25, 0.25, 0.25, 0.5, 1, 1]


# --- averages --------------------------------------------------------------------------------------------------


def test_the_moving_average_has_its_decay_and_a_lower_one_at_first(recipe):
    engine = make(recipe, **PLAIN, ema=0.25)
    expected = engine.variables[0].numpy()
    for number, memory in enumerate((1 / 10, 2 / 11, 3 / 12, 0.25, 0.25)):
        learn(engine, batch(seed=number), first=number)
        expected = memory * expected + (1 - memory) * engine.variables[0].numpy()
    own = engine.variables[0].numpy()
    with engine.averaged_weights():
        np.testing.assert_allclose(engine.variables[0].numpy(), expected, rtol=1e-5)
    np.testing.assert_array_equal(engine.variables[0].numpy(), own)


def test_without_an_average_the_weights_are_unchanged(recipe):
    engine = make(recipe)
    before = weights_of(engine)
    with engine.averaged_weights():
        assert all((values == before[name]).all() for name, values in weights_of(engine).items())


# --- precision -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_logits_and_losses_are_float32_in_any_precision(recipe, precision):
    engine = make(recipe, precision=precision)
    assert {logits.dtype for logits in engine.model(batch()[0]).values()} == {tf.float32}
    assert engine.network.get_layer(index=2).compute_dtype == precision.removeprefix("mixed_")
    learn(engine, batch())
    full = learn(make(recipe), batch())
    assert engine.logs()["loss"] == pytest.approx(full.logs()["loss"], rel=0.01)


def test_an_overflow_skips_the_step_and_halves_the_loss_scale(recipe):
    engine = make(recipe, precision="mixed_float16", warmup=0.0)
    engine.optimizer.dynamic_scale.assign(2.0**60)
    before = weights_of(engine)
    learn(engine, batch())
    moved = {name for name, v in weights_of(engine).items() if (v != before[name]).any() and "moving" not in name}
    assert moved == set()
    assert float(engine.optimizer.dynamic_scale) == 2.0**59
    engine.optimizer.dynamic_scale.assign(2.0**10)
    learn(engine, batch(), first=1)
    assert all(np.isfinite(values).all() for values in weights_of(engine).values())
    assert (weights_of(engine)["authenticity/kernel"] != before["authenticity/kernel"]).any()


# --- state -----------------------------------------------------------------------------------------------------


def test_a_restored_engine_continues_bit_for_bit(recipe):
    options = {"dropout": 0.5, "ema": 0.9, "augment": {"flip": {}}, "accumulate": 2, "batch": 4}
    engine = learn(make(recipe, **options), batch(seed=1), batch(seed=2))
    state = engine.state()
    learn(engine, batch(seed=3), batch(seed=4), first=2)
    other = learn(make(recipe, **options), batch(seed=9))
    other.restore(state)
    learn(other, batch(seed=3), batch(seed=4), first=2)
    for ours, theirs in zip(engine.state(), other.state(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


# --- several devices -------------------------------------------------------------------------------------------

TWO_DEVICES = """
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import numpy as np
import tiny
from ddkeras.runs.run import open_run
from ddkeras.training.loop import fit
from ddkeras.config import Recipe
from pipelines.records.store import open_records
tiny.register_tiny()
options = eval(sys.argv[2])
recipe = Recipe(backbone="tiny", image_size=32, weights="none", freeze_norms=True, epochs=3, dropout=0.0, **options)
for strategy in ("one", "mirrored"):
    fit(
        Recipe(**{**recipe.__dict__, "strategy": strategy}), open_records(sys.argv[1]), strategy, verbose=0
    )
one, two = (open_run(f"{strategy}/latest") for strategy in ("one", "mirrored"))
assert "mirrored" in (two.folder / "recipe.yaml").read_text()
np.testing.assert_allclose(one.history(), two.history(), rtol=1e-4)
for ours, theirs in zip(one.load_scorer().get_weights(), two.load_scorer().get_weights(), strict=True):
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
print("agree")
"""


def assert_agreed(script: str, records, options: dict, folder: Path) -> None:
    """Run the script in its own process, as devices must be divided before TensorFlow starts."""
    path = os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])
    here = os.environ | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", script, records.folder, repr(options)]
    done = subprocess.run(command, cwd=folder, env=here, capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("agree"), done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"batch": 8, "augment": {"flip": {}, "noise": {"sigma": [0.0, 9.0]}}},
        {"batch": 4, "accumulate": 4, "clip_norm": 0.05, "ema": 0.9, "augment": "flip"},
        {
            "batch": 6,
            "augment": {"crop": {"share": 0.9}, "blur": {}, "jpeg": {}},
            "loss": "focal",
            "schedule": "step",
        },
        {"batch": 10, "balance": "undersample", "optimizer": "sgd", "xla": "on", "augment": "none"},
        {"batch": 10, "view": "windows", "windows": 3, "augment": "flip"},
        {
            "batch": 10,
            "augment": {"flip": {}, "noise": {"sigma": [0.0, 9.0]}},
            "view": "windows",
            "windows_per_image": 2,
            "aggregate": "attention",
            "category_view": "squash",
        },
    ],
    ids=str,
)
def test_two_devices_train_the_same_as_one(records, tmp_path, options):
    assert_agreed(TWO_DEVICES, records, options, tmp_path)


@pytest.mark.slow
def test_two_devices_rotate_and_mix_images(records, tmp_path):
    script = TWO_DEVICES.partition("one, two =")[0] + "print('agree')"
    options = {"batch": 8, "augment": {"rotation": {}, "colour_jitter": {}, "mix_up": {}}}
    assert_agreed(script, records, options, tmp_path)
