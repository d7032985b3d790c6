"""The training loop: run folders, checkpoints, resuming, early stopping."""

import errno
import gc
import json
import os
import signal
from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import yaml
from tiny import plant

from ddkeras.exceptions import ConfigError, DivergedError
from ddkeras.interrupts import Interrupted
from ddkeras.metrics.calibration import OperatingPoint
from ddkeras.runs import checkpoint
from ddkeras.runs.run import copy_run, locked, open_run, open_unfinished
from ddkeras.training import engine, loop, losses
from ddkeras.training.monitor import TrainingMonitor
from pipelines.datasets.layouts import read_layout
from pipelines.exceptions import DataError
from pipelines.records.conversion import write_records
from pipelines.records.store import open_records


def test_a_run_folder_has_everything_needed_to_use_it(run, recipe, records):
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "history.csv",
        "log.txt",
        "model.keras",
        "recipe.yaml",
        "run.json",
        "status.json",
        "tensorboard",
    ]
    assert run.name.startswith("tiny-")
    assert yaml.safe_load((run.folder / "recipe.yaml").read_text())["epochs"] == 2
    latest = open_run(run.folder.parent / "latest")
    assert latest.folder.resolve() == run.folder.resolve()
    assert replace(latest, folder=run.folder) == run
    assert latest.categories == records.categories


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0}, "the temperature must be above 0 and finite, not 0;"),
        ({"temperature": -1.5}, "the temperature must be above 0 and finite, not -1.5;"),
        ({"temperature": float("nan")}, "the temperature must be above 0 and finite, not nan;"),
        ({"limits": {"real_below": 2, "fake_from": 1}}, "crossed: images are real below 2 and fake from 1;"),
        ({"limits": {"real_below": 2, "fake_from": float("inf")}}, "thresholds must be finite, not 2 and inf;"),
        ({"by_category": {"animals": {"real_below": 2, "fake_from": 1}}}, "thresholds are crossed"),
    ],
)
def test_an_impossible_operating_point_is_named_with_the_remedy(run, tmp_path, change, message):
    copy = copy_run(run, tmp_path)
    (copy.folder / "operating_point.json").write_text(json.dumps(OperatingPoint().to_dict() | change))
    with pytest.raises(ConfigError, match=rf"operating_point\.json: .*{message}"):
        open_run(copy.folder)


def test_an_ensemble_cannot_be_opened_as_a_run(tmp_path):
    (tmp_path / "ensemble.json").write_text("{}")
    with pytest.raises(ConfigError, match="is an ensemble; give one of its runs"):
        open_run(tmp_path)


def test_the_history_has_loss_and_accuracy_of_both_heads_on_both_splits(run):
    history = run.history()
    assert history["epoch"].tolist() == [1, 2]
    for name in ("loss", "authenticity_loss", "authenticity_accuracy", "category_loss", "category_accuracy"):
        assert {name, f"val_{name}"} <= set(history)


def test_the_weights_kept_are_those_of_the_best_validation_loss(run):
    best = run.best_epoch()
    assert best["val_loss"] == run.history()["val_loss"].min()
    assert best["epochs"] == 2


def test_two_runs_of_one_recipe_and_seed_agree(run, recipe, records, tmp_path):
    keras.utils.set_random_seed(5)  # whatever a caller did before
    again = loop.fit(recipe, records, tmp_path, verbose=0)
    for ours, theirs in zip(run.load_scorer().get_weights(), again.load_scorer().get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_another_seed_is_another_run(run, recipe, records, tmp_path):
    other = loop.fit(replace(recipe, seed=1), records, tmp_path, verbose=0)
    assert (other.history()["loss"] != run.history()["loss"]).all()


@pytest.mark.parametrize("chain", [{"mix_up": {}}, {"rotation": {}, "cut_mix": {}}], ids=str)
def test_mixed_images_train_both_heads(recipe, records, tmp_path, chain):
    run = loop.fit(replace(recipe, augment=chain, epochs=1), records, tmp_path, verbose=0)
    assert np.isfinite(run.history()[["authenticity_loss", "category_loss", "val_loss"]].to_numpy()).all()


def test_without_labelled_validation_there_is_no_training(recipe, records, tmp_path):
    unlabelled = {**records.splits, "validation": replace(records.splits["validation"], labels={})}
    with pytest.raises(DataError, match="has no labelled split validation"):
        loop.fit(recipe, replace(records, splits=unlabelled), tmp_path, verbose=0)


def test_a_diverging_run_says_so_and_leaves_nothing(recipe, records, tmp_path, monkeypatch):
    monkeypatch.setitem(
        losses.AUTHENTICITY_LOSSES, "cross_entropy", lambda labels, logits, **_: logits[:, 0] * float("nan")
    )
    with pytest.raises(
        ConfigError, match="the loss became NaN before the first epoch was done; lower --learning-rate"
    ):
        loop.fit(recipe, records, tmp_path / "runs", verbose=0)
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_diverged_training_says_so_and_is_not_the_latest(recipe, records, tmp_path):
    before = loop.fit(replace(recipe, epochs=1), records, tmp_path, verbose=0)
    wild = replace(recipe, learning_rate=10.0, schedule="constant", epochs=3)
    with pytest.raises(
        DivergedError, match=r"the training diverged: the loss is .*, where guessing has .*; lower --l"
    ):
        loop.fit(wild, records, tmp_path, verbose=0)
    assert open_run(tmp_path / "latest").name == before.name
    assert len(list(tmp_path.glob("*/model.keras"))) == 3  # one of them through `latest`


def test_infinite_logits_are_a_diverged_training_whatever_the_loss(recipe, records, tmp_path, monkeypatch):
    score = engine.Engine._score_on_replica

    def score_infinitely(self, images):
        return {head: logits * 0 + float("inf") for head, logits in score(self, images).items()}

    monkeypatch.setattr(engine.Engine, "_score_on_replica", score_infinitely)
    bounded = replace(recipe, loss="squared_error", category_weight=0)
    with pytest.raises(ConfigError, match="the loss became NaN before the first epoch was done"):
        loop.fit(bounded, records, tmp_path, verbose=0)


@pytest.mark.parametrize(
    ("loss", "chance"),
    [("cross_entropy", 2 * 0.693147), ("focal", 0.25 * 0.693147 + 0.693147), ("squared_error", 0.25 + 0.693147)],
)
def test_the_loss_of_guessing(recipe, loss, chance):
    weights = {"authenticity": [1.0, 1.0], "category": [1.0, 1.0]}
    strategy = tf.distribute.get_strategy()
    parts = loop.build(recipe, 2), replace(recipe, loss=loss, precision="float32", xla="off"), weights
    assert engine.Engine(*parts, steps_per_epoch=1, strategy=strategy).chance_loss() == pytest.approx(
        chance, abs=1e-5
    )


def test_a_finished_training_leaves_no_graphs_in_memory(recipe, records, tmp_path):
    def graphs() -> int:
        gc.collect()
        return sum(isinstance(thing, tf.Graph) for thing in gc.get_objects())

    before = graphs()
    loop.fit(recipe, records, tmp_path, verbose=0)
    assert graphs() == before


def test_an_unknown_source_cannot_be_held_out(recipe, records, tmp_path):
    with pytest.raises(DataError, match="no image comes from the source gan"):
        loop.fit(replace(recipe, hold_out="gan"), records, tmp_path, verbose=0)
    assert not list(tmp_path.iterdir())


# --- interrupting and resuming ----------------------------------------------------------------------------------


def ask_to_stop(monkeypatch, after: int) -> None:
    """Raise a signal during the step of that number, from 1."""
    learn, done = engine.Engine.train_step, []

    def learn_and_signal(self, *batch):
        learn(self, *batch)
        done.append(batch)
        if len(done) == after:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(engine.Engine, "train_step", learn_and_signal)


@pytest.fixture(scope="module")
def eventful(recipe):
    """A recipe with all kinds of state: averages, dropout, augmentation, frozen epochs; 2 epochs of 3 steps."""
    options = {"ema": 0.9, "dropout": 0.5, "augment": {"noise": {}, "flip": {}}, "frozen_epochs": 1}
    return replace(recipe, **options)


@pytest.fixture(scope="module")
def uninterrupted(eventful, records, tmp_path_factory):
    return loop.fit(eventful, records, tmp_path_factory.mktemp("runs"), verbose=0)


@pytest.mark.parametrize("after", [1, 3, 4, 6])
def test_a_resumed_training_ends_like_an_uninterrupted_one(
    eventful, uninterrupted, records, tmp_path, monkeypatch, after
):
    with monkeypatch.context() as patched:
        ask_to_stop(patched, after)
        where = rf"stopped in epoch {1 + (after - 1) // 3} of 2 after step {1 + (after - 1) % 3} of 3"
        with pytest.raises(Interrupted, match=rf"{where}; continue with: ddk fit --resume .*/tiny-"):
            loop.fit(eventful, records, tmp_path, verbose=0)
    unfinished = open_unfinished(tmp_path, records)
    status = json.loads((unfinished.folder / "status.json").read_text())
    assert (status["state"], status["step"]) == ("interrupted", 1 + (after - 1) % 3)
    keras.utils.set_random_seed(99)
    run = loop.fit(unfinished.recipe, records, tmp_path, resume=unfinished, verbose=0)
    assert run.folder == unfinished.folder
    assert not (run.folder / "checkpoint.npz").exists()
    pd.testing.assert_frame_equal(run.history(), uninterrupted.history(), check_exact=True)
    for ours, theirs in zip(run.load_scorer().get_weights(), uninterrupted.load_scorer().get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_training_can_be_interrupted_before_the_first_step_of_an_epoch(
    eventful, uninterrupted, records, tmp_path, monkeypatch, epoch
):
    begin_epoch = TrainingMonitor.begin_epoch

    def begin_and_signal(self, number, step):
        begin_epoch(self, number, step)
        if number == epoch - 1:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(TrainingMonitor, "begin_epoch", begin_and_signal)
        with pytest.raises(
            Interrupted, match=rf"^stopped in epoch {epoch} of 2 after step 0 of 3; continue with: ddk"
        ):
            loop.fit(eventful, records, tmp_path, verbose=0)
    unfinished = open_unfinished(tmp_path, records)
    run = loop.fit(unfinished.recipe, records, tmp_path, resume=unfinished, verbose=0)
    pd.testing.assert_frame_equal(run.history(), uninterrupted.history(), check_exact=True)


def test_a_second_signal_interrupts_at_once(recipe, records, tmp_path, monkeypatch):
    learn = engine.Engine.train_step

    def learn_and_signal(self, *batch):
        learn(self, *batch)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(engine.Engine, "train_step", learn_and_signal)
    with pytest.raises(KeyboardInterrupt):
        loop.fit(recipe, records, tmp_path, verbose=0)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert list(tmp_path.iterdir()) == []  # nothing to resume


def test_checkpoints_are_saved_every_save_every_steps_and_after_each_epoch(recipe, records, tmp_path, monkeypatch):
    saved = []
    save = checkpoint.save
    monkeypatch.setattr(
        checkpoint, "save", lambda folder, p, arrays: saved.append((p.epoch, p.step)) or save(folder, p, arrays)
    )
    loop.fit(replace(recipe, save_every=2), records, tmp_path, verbose=0)
    assert saved == [(0, 2), (1, 0), (1, 1), (1, 3), (2, 0)]


def test_which_run_is_resumed(recipe, records, tmp_path, monkeypatch, run):
    with pytest.raises(ConfigError, match=r"there is no unfinished training in .*; start one with: ddk fit"):
        open_unfinished(tmp_path, records)
    with monkeypatch.context() as patched:
        ask_to_stop(patched, 2)
        with pytest.raises(Interrupted):
            loop.fit(recipe, records, tmp_path, verbose=0)
    unfinished = open_unfinished(tmp_path, records)
    assert open_unfinished(unfinished.folder, records) == unfinished
    with pytest.raises(ConfigError, match="was trained on other records than those in"):
        open_unfinished(tmp_path, replace(records, fingerprint="another"))
    with (
        locked(unfinished),
        pytest.raises(ConfigError, match=r"is being trained by another process; wait for it, or stop it"),
    ):
        loop.fit(unfinished.recipe, records, tmp_path, resume=unfinished, verbose=0)
    checkpoint = unfinished.folder / "checkpoint.npz"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-500])
    with pytest.raises(ConfigError, match=r"checkpoint\.npz is damaged \(.*\); start again with: ddk fit"):
        loop.fit(unfinished.recipe, records, tmp_path, resume=unfinished, verbose=0)


def test_a_nan_loss_leaves_the_best_weights(recipe, records, tmp_path, monkeypatch):
    learn = engine.Engine.train_step

    def learn_nothing_after_an_epoch(self, batch, number):
        learn(self, batch, number)
        if number == 4:
            self.sums = self.sums * float("nan")

    monkeypatch.setattr(engine.Engine, "train_step", learn_nothing_after_an_epoch)
    message = "the loss became NaN in epoch 2; the best weights until then are in .*Lower --learning-rate, or limit"
    with pytest.raises(ConfigError, match=message):
        loop.fit(recipe, records, tmp_path, verbose=0)
    assert open_run(tmp_path / "latest").history()["epoch"].tolist() == [1]
    assert checkpoint.load((tmp_path / "latest").resolve())[0].epoch == 1


def test_a_full_disk_leaves_the_previous_checkpoint(recipe, records, tmp_path, monkeypatch):
    save = checkpoint.save

    def save_once(folder, position, arrays):
        if position.epoch == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        save(folder, position, arrays)

    monkeypatch.setattr(checkpoint, "save", save_once)
    with pytest.raises(OSError, match="No space left"):
        loop.fit(recipe, records, tmp_path, verbose=0)
    assert checkpoint.load((tmp_path / "latest").resolve())[0].epoch == 1


# --- choices ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"aggregate": "attention"}, "learned among several windows of an image; give --windows-per-image 4"),
        ({"category_view": "squash", "category_weight": 0}, "there is no category head; leave it out"),
        ({"category_view": "squash", "augment": "mix_up"}, "mix_up would mix whole images with windows"),
    ],
)
def test_windows_that_cannot_be_trained_are_refused_before_the_training_begins(
    recipe, records, tmp_path, changes, message
):
    if changes.get("augment"):
        changes = changes | {"augment": {changes["augment"]: {}}}
    with pytest.raises(ConfigError, match=message):
        loop.fit(replace(recipe, view="windows", **changes), records, tmp_path / "runs", verbose=0)
    assert not (tmp_path / "runs").exists()


def test_the_auc_is_no_criterion_where_validation_lacks_a_label(recipe, tmp_path):
    plant(tmp_path / "data", {"train/real": 2, "train/fake": 2, "val/fake": 2, "test/real": 2})
    write_records(read_layout(tmp_path / "data"), tmp_path / "records")
    records = open_records(tmp_path / "records")
    with pytest.raises(
        ConfigError, match="validation has no real images, and so no AUC; add some, or give --keep loss"
    ):
        loop.fit(replace(recipe, keep="auc"), records, tmp_path / "runs", verbose=0)
    assert not (tmp_path / "runs").exists(), "refused before the training begins"


@pytest.mark.parametrize(
    ("keep", "column", "best"),
    [("loss", "val_loss", 2), ("accuracy", "val_authenticity_accuracy", 1), ("auc", "val_authenticity_auc", 3)],
)
def test_the_best_epoch_is_kept_by_the_checkpoint_selection_metric(
    recipe, records, tmp_path, monkeypatch, keep, column, best
):
    rows = iter(
        {"loss": loss, "authenticity_accuracy": accuracy, "authenticity_auc": auc}
        for loss, accuracy, auc in ((0.5, 0.7, 0.6), (0.4, 0.6, 0.7), (0.6, 0.7, 0.8), (0.7, 0.6, 0.5))
    )
    weights = []

    def validate(self, batches):
        weights.append(self.model.get_weights())
        return next(rows)

    monkeypatch.setattr(engine.Engine, "validate", validate)
    run = loop.fit(replace(recipe, keep=keep, epochs=4), records, tmp_path, verbose=0)
    assert run.best_epoch()["best_epoch"] == best
    assert run.best_epoch()[column] == run.history()[column][best - 1]
    for kept, then in zip(keras.saving.load_model(run.model_path).get_weights(), weights[best - 1], strict=True):
        np.testing.assert_array_equal(kept, then)


def test_early_stopping(recipe, records, tmp_path, monkeypatch):
    losses = iter([0.5, 0.4, 0.41, 0.42, 0.1])
    monkeypatch.setattr(engine.Engine, "validate", lambda self, batches: {"loss": next(losses)})
    run = loop.fit(replace(recipe, epochs=10, patience=2), records, tmp_path, verbose=0)
    assert run.history()["val_loss"].tolist() == [0.5, 0.4, 0.41, 0.42]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category_weight": 1.0}, r"category_weight is 1\.0, but .* has no classes; leave it out"),
        ({"precision": "mixed_float16"}, r"precision mixed_float16 needs a GPU of compute capability 7\.0 or more"),
        ({"strategy": "multiworker"}, "strategy multiworker needs TF_CONFIG in the environment of each worker"),
    ],
    ids=str,
)
def test_an_impossible_recipe_is_rejected_before_a_folder_is_created(recipe, records, tmp_path, change, message):
    without = replace(records, categories=[])
    with pytest.raises(ConfigError, match=message):
        loop.fit(replace(recipe, **change), without, tmp_path / "runs", verbose=0)
    assert not (tmp_path / "runs").exists()


def test_the_category_head_can_be_left_out(recipe, records, tmp_path):
    run = loop.fit(replace(recipe, category_weight=0, epochs=1), records, tmp_path, verbose=0)
    assert run.categories == []
    assert not any("category" in column for column in run.history())
    assert "category_probabilities" not in run.load_scorer().output


def test_one_class_gets_no_category_head_and_a_note(recipe, tmp_path, caplog, recwarn):
    plant(tmp_path / "data", {f"{s}/{label}/faces": 4 for s in ("train", "val") for label in ("real", "fake")})
    write_records(read_layout(tmp_path / "data"), tmp_path / "records", workers=1)
    with caplog.at_level("INFO", "ddkeras"):
        run = loop.fit(replace(recipe, epochs=1), open_records(tmp_path / "records"), tmp_path / "runs", verbose=0)
    assert "faces is the only class, so there is no category head" in caplog.messages
    assert run.categories == []
    assert "category_probabilities" not in run.load_scorer().output
    assert not [warning for warning in recwarn if "sigmoid" in str(warning.message)]


def test_with_test_time_flips_an_image_and_its_mirror_image_have_one_score(recipe, records, tmp_path):
    run = loop.fit(replace(recipe, test_augment="flip", epochs=1), records, tmp_path, verbose=0)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("float32")
    scorer = run.load_scorer()
    scores, mirrored = scorer(images), scorer(images[:, :, ::-1])
    for name, values in scores.items():
        np.testing.assert_allclose(values, mirrored[name], atol=1e-6)
    plain = keras.saving.load_model(run.model_path, compile=False)
    logits = (plain(images)["authenticity"] + plain(images[:, :, ::-1])["authenticity"]) / 2
    np.testing.assert_allclose(scores["fake_probability"], keras.ops.sigmoid(logits)[:, 0], atol=1e-6)


def test_an_undersampled_epoch_has_as_many_real_as_fake_images(recipe, records, tmp_path, monkeypatch):
    labels = []
    learn = engine.Engine.train_step

    def count(self, batch, number):
        labels.extend(batch[1]["authenticity"].numpy()[:, 0].tolist())
        learn(self, batch, number)

    monkeypatch.setattr(engine.Engine, "train_step", count)
    loop.fit(replace(recipe, balance="undersample", epochs=1), records, tmp_path, verbose=0)
    assert (labels.count(0.0), labels.count(1.0)) == (12, 12)


def test_a_step_is_traced_once_and_again_when_the_trunk_is_unfrozen(recipe, records, tmp_path, monkeypatch):
    traced = []
    gradients = engine.Engine._gradients
    monkeypatch.setattr(engine.Engine, "_gradients", lambda self, *batch: traced.append(1) or gradients(self, *batch))
    loop.fit(replace(recipe, epochs=4, frozen_epochs=2), records, tmp_path, verbose=0)
    assert len(traced) == 2
