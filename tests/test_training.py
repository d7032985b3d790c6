"""Training: what is compiled, what is kept, what a run folder holds."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import yaml

from ddkeras import training
from ddkeras.errors import ConfigError
from ddkeras.runs import open_run
from pipelines.augmentation import Augmenter
from pipelines.errors import DataError


def test_a_run_folder_holds_all_that_is_needed_to_use_it(run, recipe, records):
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "history.csv",
        "model.keras",
        "recipe.yaml",
        "run.json",
    ]
    assert run.name.startswith("tiny-")
    assert yaml.safe_load((run.folder / "recipe.yaml").read_text())["epochs"] == 2
    latest = open_run(run.folder.parent / "latest")
    assert latest.folder.resolve() == run.folder.resolve()
    assert replace(latest, folder=run.folder) == run
    assert latest.categories == records.categories


def test_the_history_has_both_heads_loss_and_accuracy_on_both_splits(run):
    history = run.history()
    assert history["epoch"].tolist() == [0, 1]
    for name in ("loss", "authenticity_loss", "authenticity_accuracy", "category_loss", "category_accuracy"):
        assert {name, f"val_{name}"} <= set(history)


def test_the_weights_kept_are_those_of_the_best_validation_loss(run):
    best = run.best_epoch()
    assert best["val_loss"] == run.history()["val_loss"].min()
    assert best["epochs"] == 2


def test_two_runs_of_one_recipe_and_seed_agree(run, recipe, records, tmp_path):
    keras.utils.set_random_seed(5)  # whatever a caller did before
    again = training.fit(recipe, records, tmp_path, verbose=0)
    for ours, theirs in zip(run.load_scorer().get_weights(), again.load_scorer().get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_another_seed_is_another_run(run, recipe, records, tmp_path):
    other = training.fit(replace(recipe, seed=1), records, tmp_path, verbose=0)
    assert (other.history()["loss"] != run.history()["loss"]).all()


def test_the_network_trains_on_crops_and_is_validated_on_whole_images(recipe):
    model = training.build(replace(recipe, image_size=48), 0)
    images = np.random.default_rng(0).uniform(0, 255, (4, 48, 48, 3)).astype("float32")
    learner = training.Learner(model, Augmenter({"crop": {"share": 2 / 3}}, 48))
    crops, _, _ = learner.augmented(images, {}, {}, step=0)
    assert crops.shape == (4, 32, 32, 3)
    expected = np.asarray(model(images, training=False)["authenticity"])
    np.testing.assert_array_equal(learner(images, training=False)["authenticity"], expected)
    assert not np.allclose(learner(crops, training=True)["authenticity"], expected)
    assert [id(v) for v in learner.trainable_variables] == [id(v) for v in model.trainable_variables]


@pytest.mark.parametrize("chain", [{"mix_up": {}}, {"rotation": {}, "cut_mix": {}}], ids=str)
def test_mixed_images_train_both_heads(recipe, records, tmp_path, chain):
    run = training.fit(replace(recipe, augment=chain, epochs=1), records, tmp_path, verbose=0)
    assert np.isfinite(run.history()[["authenticity_loss", "category_loss", "val_loss"]].to_numpy()).all()


def test_without_labelled_validation_there_is_no_training(recipe, records, tmp_path):
    unlabelled = {**records.splits, "validation": replace(records.splits["validation"], labels={})}
    with pytest.raises(DataError, match="has no labelled split validation"):
        training.fit(recipe, replace(records, splits=unlabelled), tmp_path, verbose=0)


def test_a_diverging_run_says_so_and_leaves_nothing(recipe, records, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "BinaryCrossEntropy", lambda weights: lambda y, logit: logit * float("nan"))
    with pytest.raises(ConfigError, match="the loss became NaN before one epoch was done; lower --learning-rate"):
        training.fit(recipe, records, tmp_path / "runs", verbose=0)
    assert list((tmp_path / "runs").iterdir()) == []


def test_the_best_model_survives_a_worse_epoch(tmp_path):
    number = keras.Input((1,))
    model = keras.Model(number, keras.layers.Dense(1, use_bias=False)(number))
    keep = training.KeepBest(model, tmp_path / "model.keras")
    for value, loss in ((1.0, 0.5), (2.0, 0.4), (3.0, 0.6), (4.0, float("nan"))):
        model.set_weights([np.array([[value]])])
        keep.on_epoch_end(0, {"val_loss": loss})
    assert keras.saving.load_model(tmp_path / "model.keras").get_weights()[0].item() == 2.0


def test_the_learning_rate_warms_up_and_falls_to_zero(recipe):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, name="authenticity")])
    recipe = replace(recipe, epochs=4, warmup=0.25, learning_rate=0.1)
    training.compile_model(model, recipe, {"authenticity": [1.0, 1.0]}, steps_per_epoch=10)
    rate = model.optimizer._learning_rate
    assert [round(float(rate(step)), 4) for step in (0, 5, 10, 25, 40)] == [0.0, 0.05, 0.1, 0.05, 0.0]


def test_biases_and_norms_do_not_decay(recipe):
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    )
    recipe = replace(recipe, learning_rate=0.1, weight_decay=0.5, warmup=0)
    training.compile_model(model, recipe, {"authenticity": [1.0, 1.0]}, steps_per_epoch=10)
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    model.optimizer.apply([np.zeros(variable.shape, "float32") for variable in model.trainable_variables])
    decayed = {v.path.rpartition("/")[2] for v in model.trainable_variables if (v.numpy() < 0.99).any()}
    assert decayed == {"kernel"}
