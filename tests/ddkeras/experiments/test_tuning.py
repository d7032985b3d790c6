"""Studies: the search space, the files, interrupting, resuming, and several processes."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import pandas as pd
import pytest
import schemas
import yaml
from click.testing import CliRunner
from PIL import Image
from tiny import start_ddk

from ddkeras.cli import main
from ddkeras.config import Recipe, recipe_fields
from ddkeras.exceptions import ConfigError
from ddkeras.experiments import tuning
from ddkeras.interrupts import Interrupted
from ddkeras.reporting import figures
from ddkeras.runs.run import open_run
from ddkeras.training import engine, loop

OPTIONS = ("--backbone", "tiny", "--weights", "none", "--batch", 8, "--epochs", 2, "--augment", "flip")


@pytest.fixture(scope="module")
def fields(recipe) -> dict:
    return asdict(recipe)


@pytest.fixture
def plan(fields):
    """A search for a dropout near 0.3; see `pretend`."""
    return tuning.Plan(fields, {"dropout": optuna.distributions.FloatDistribution(0.0, 0.5)})


@pytest.fixture
def study(plan, records, tmp_path):
    """Run trials of a study; its result, the lines reported, and its trials as Optuna has them."""

    def tune(trials: int, plan=plan, **changes) -> SimpleNamespace:
        lines = []
        place = {"storage": f"sqlite:///{tmp_path}/study.db", "name": "study"} | changes
        outcome = tuning.tune(plan, records, tmp_path / "tune", trials=trials, tell=lines.append, **place)
        return SimpleNamespace(outcome=outcome, lines=lines, trials=trials_in(tmp_path / "study.db"))

    return tune


def trials_in(path: Path, name: str = "study") -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{path}").trials


@pytest.fixture
def pretend(monkeypatch):
    """Replace training by a fake of one epoch whose loss is 1 plus the distance of the dropout from 0.3."""

    def come_to(epochs=lambda recipe: [1 + abs(recipe.dropout - 0.3)]):
        def fit(recipe, records, folder, *, after_epoch, verbose):
            (folder / "latest").mkdir(parents=True)
            values = []
            for value in epochs(recipe):
                values.append(value)
                after_epoch({"epoch": len(values), "val_loss": value})
            return SimpleNamespace(best_epoch=lambda: {"val_loss": min(values)})

        monkeypatch.setattr(loop, "fit", fit)

    come_to()
    return come_to


# --- the search space ------------------------------------------------------------------------------------------


def test_a_search_file_maps_fields_to_choices_or_ranges(tmp_path, fields):
    (tmp_path / "search.yaml").write_text(
        "learning_rate: {low: 1e-5, high: 1e-2, log: true}\n"
        "dropout: {low: 0, high: 0.5, step: 0.25}\n"
        "batch: {low: 4, high: 16}\n"
        "optimizer: [adamw, sgd]\n"
        "freeze_norms: [true, false]\n"
        "augment: [forensic, {flip: {probability: 0.25}}]\n"
    )
    plan = tuning.Plan(fields, tuning.read_space(tmp_path / "search.yaml", fields))
    study = optuna.create_study()
    drawn = [tuning._draw(study.ask(), plan.space) for _ in range(30)]
    recipes = [plan.recipe(values) for values in drawn]
    assert all(1e-5 <= recipe.learning_rate <= 1e-2 for recipe in recipes)
    assert {recipe.dropout for recipe in recipes} == {0, 0.25, 0.5}
    assert {recipe.batch for recipe in recipes} <= set(range(4, 17))
    assert {recipe.optimizer for recipe in recipes} == {"adamw", "sgd"}
    assert {recipe.freeze_norms for recipe in recipes} == {True, False}
    assert {tuple(recipe.augment) for recipe in recipes} > {("flip",)}
    assert {"flip": {"probability": 0.25}} in [recipe.augment for recipe in recipes]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dropuot: [0.1]", "has an unknown field dropuot; did you mean dropout?"),
        ("- dropout", "must map fields to values"),
        ("dropout: [0.1]\ndropout: [0.2]", "search.yaml is not valid YAML in line 2: dropout is given twice"),
        ("dropout: {low: 0.5, high: 0.1}", "search.yaml: dropout: `low <= high` must hold"),
        ("dropout: {low: 0, high: 2}", "search.yaml: dropout: dropout must be between 0 and 0.95, not 2"),
        ("dropout: {low: 0, high: 0.5, log: true}", "search.yaml: dropout: `low > 0` must hold for `log=True`"),
        ("dropout: {low: 0.1, high: 0.5, log: 10}", "search.yaml: dropout: log must be true or false, not 10"),
        ("dropout: {low: 0.1, high: 0.5, step: 0}", "search.yaml: dropout: `step > 0` must hold"),
        ("dropout: {low: 0.1, high: 0.5, step: small}", "search.yaml: dropout: could not convert string to float"),
        ("dropout: {low: 0.1, step: 0.1}", "search.yaml: dropout: give a list of choices, or low and high"),
        (
            "dropout: {low: 0.1, high: 0.2, mean: 0.1}",
            "search.yaml: dropout: give a list of choices, or low and high",
        ),
        ("dropout: 0.1", "search.yaml: dropout: give a list of choices, or low and high"),
        ("batch: {low: 0.5, high: 8}", "search.yaml: batch: batch must be a whole number, not 0.5"),
        ("batch: []", "search.yaml: batch: The `choices` must contain one or more elements"),
        ("optimizer: {low: 1, high: 2}", "search.yaml: optimizer: it is not a number; give a list of choices"),
        ("optimizer: [adamw, adagrad]", "search.yaml: optimizer: optimizer must be one of adamw, adam, sgd"),
        ("backbone: [tiny, tinny]", "search.yaml: backbone: there is no backbone 'tinny'; did you mean tiny?"),
        ("augment: [foresnic]", "search.yaml: augment: there is no augmentation foresnic"),
        ("keep: [loss, auc]", "keep is the metric that compares trials, and cannot be searched"),
        ("label_smoothing: [0, 0.1]", "label_smoothing changes the loss, which then cannot compare trials"),
        ("{}", "there is nothing to search"),
    ],
)
def test_an_invalid_search_is_a_one_line_error(tmp_path, fields, text, message):
    (tmp_path / "search.yaml").write_text(text)
    with pytest.raises(ConfigError) as raised:
        tuning.Plan(fields, tuning.read_space(tmp_path / "search.yaml", fields))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_default_search_space_depends_on_the_recipe(recipe):
    space = tuning.default_space(Recipe(backbone="mobilenetv2"))
    assert list(space) == ["learning_rate", "weight_decay", "dropout"]
    assert space["learning_rate"].low == pytest.approx(3e-5)
    assert space["learning_rate"].high == pytest.approx(3e-3)
    assert "label_smoothing" in tuning.default_space(Recipe(keep="auc"))
    assert "weight_decay" not in tuning.default_space(Recipe(optimizer="adam"))
    assert list(tuning.default_space(recipe, given={"dropout", "epochs"})) == ["learning_rate", "weight_decay"]


def test_derived_fields_are_derived_in_each_trial(recipe):
    choices = optuna.distributions.CategoricalDistribution(["tiny", "xception"])
    plan = tuning.Plan({"backbone": "tiny", "augment": "flip"}, {"backbone": choices})
    assert plan.recipe({"backbone": "tiny"}).image_size == 32
    assert plan.recipe({"backbone": "xception"}).image_size == 299


def test_the_first_trial_is_the_nearest_to_the_base_recipe(fields):
    search = {
        "learning_rate": optuna.distributions.FloatDistribution(1e-5, 1e-4, log=True),
        "dropout": optuna.distributions.FloatDistribution(0.1, 0.5, step=0.2),
        "batch": optuna.distributions.IntDistribution(2, 32),
        "augment": optuna.distributions.CategoricalDistribution(["forensic", '{"flip": {}}']),
        "optimizer": optuna.distributions.CategoricalDistribution(["adam", "sgd"]),
    }
    plan = tuning.Plan(fields, search)
    assert plan.nearest() == {
        "learning_rate": 1e-4,
        "dropout": pytest.approx(0.1),
        "batch": 8,
        "augment": '{"flip": {}}',
        "optimizer": "adam",
    }
    so = "so the result can be worse than the recipe"
    assert plan.outside() == [
        f"learning_rate 0.001 of the recipe is outside the search: the first trial has 0.0001, {so}",
        f"dropout 0.2 of the recipe is outside the search: the first trial has 0.1, {so}",
        f"optimizer adamw of the recipe is outside the search: the first trial has adam, {so}",
    ]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("image_size: [64, 96]", {"image_size": 96}),
        ("image_size: [256, 96]", {"image_size": 96}),
        ("image_size: {low: 32, high: 100, step: 32}", {"image_size": 96}),
        ("augment: [forensic]", {"augment": "forensic"}),
        ("image_size: [64, 128]", {"image_size": 128}),
        ("dropout: {low: 0.1, high: 0.5, step: 0.1}", {"dropout": 0.3}),
        ("category_weight: {low: 0.5, high: 2}", {"category_weight": 1.0}),
    ],
)
def test_a_recipe_outside_the_search_is_noted_before_the_first_trial(tmp_path, fields, text, first):
    fields = fields | {"image_size": 128, "dropout": 0.3, "keep": "auc"}
    (tmp_path / "search.yaml").write_text(text)
    plan = tuning.Plan(fields, tuning.read_space(tmp_path / "search.yaml", fields))
    assert plan.nearest() == first
    is_inside = first in ({"image_size": 128}, {"dropout": 0.3}, {"category_weight": 1.0})
    assert len(plan.outside()) == (not is_inside)


def test_the_note_is_told_once_when_the_study_begins(study, fields, pretend):
    plan = tuning.Plan(fields, {"dropout": optuna.distributions.FloatDistribution(0.3, 0.5)})
    said = (
        "dropout 0.2 of the recipe is outside the search: the first trial has 0.3, "
        "so the result can be worse than the recipe"
    )
    first, second = study(1, plan=plan), study(1, plan=plan)
    assert first.lines == [said, "trial 0: val_loss 1.0000, the best so far (dropout 0.3)"]
    assert [line.partition(":")[0] for line in second.lines] == ["trial 1"]


# --- a study ---------------------------------------------------------------------------------------------------


def test_a_study_keeps_the_recipe_and_run_of_its_best_trial(study, plan, records, tmp_path):
    plan = tuning.Plan(plan.fields | {"epochs": 1}, plan.space)
    done = study(2, plan=plan)
    folder = tmp_path / "tune"
    assert done.outcome["trials"] == {"done": 2, "pruned": 0, "failed": 0}
    best = done.trials[done.outcome["best_trial"]]
    assert done.trials[0].params == {"dropout": 0.2}, "the recipe as it is"
    assert done.outcome["val_loss"] == best.value == min(trial.value for trial in done.trials)
    assert [path.name for path in (folder / "runs").iterdir()] == [f"study-{best.number}"]
    recipe = Recipe(**recipe_fields(str(folder / "best.yaml")))
    assert asdict(recipe) == done.outcome["recipe"]
    assert recipe == plan.recipe(best.params)
    kept = open_run(done.outcome["run"])
    assert kept.recipe.dropout == recipe.dropout
    again = loop.fit(recipe, records, tmp_path / "runs", verbose=0)
    assert again.best_epoch()["val_loss"] == best.value, "the recipe gives what the study says"
    assert {path.name for path in folder.glob("*.png")} == {"history.png", "parameters.png"}


@pytest.mark.slow
def test_each_trial_is_reported_and_a_second_call_adds_trials(study, pretend, tmp_path):
    first = study(3)
    assert first.lines[0] == "trial 0: val_loss 1.1000, the best so far (dropout 0.2)"
    assert all(line.startswith(f"trial {number}: val_loss 1.") for number, line in enumerate(first.lines))
    second = study(4)
    assert [line.partition(":")[0] for line in second.lines] == ["trial 3", "trial 4", "trial 5", "trial 6"]
    assert second.outcome["trials"]["done"] == len(second.trials) == 7
    best = min(second.trials, key=lambda trial: trial.value)
    assert yaml.safe_load((tmp_path / "tune/best.yaml").read_text())["dropout"] == best.params["dropout"]
    assert [path.name for path in (tmp_path / "tune/runs").iterdir()] == [f"study-{best.number}"]


def test_a_better_trial_of_another_process_is_kept(study, plan, records, pretend, tmp_path):
    run = tmp_path / "tune/runs/study-1"

    def find_a_better_one(line):
        """As another process might, after a trial ends here and before the folder is updated."""
        other = optuna.load_study(study_name="study", storage=f"sqlite:///{tmp_path}/study.db")
        other.add_trial(optuna.create_trial(params={"dropout": 0.3}, distributions=plan.space, value=0.25))
        (run / "latest").mkdir(parents=True)

    storage = f"sqlite:///{tmp_path}/study.db"
    outcome = tuning.tune(
        plan, records, tmp_path / "tune", storage=storage, name="study", trials=1, tell=find_a_better_one
    )
    assert outcome["best_trial"] == 1
    assert outcome["run"] == str(run / "latest")
    assert list((tmp_path / "tune/runs").iterdir()) == [run]
    assert yaml.safe_load((tmp_path / "tune/best.yaml").read_text())["dropout"] == 0.3


def test_a_study_resumes_only_with_the_same_plan(study, plan, fields, pretend):
    study(1)
    other = tuning.Plan(fields | {"epochs": 3, "seed": 1}, plan.space)
    with pytest.raises(ConfigError, match="the study study was started with another epochs, seed; give the same, or"):
        study(1, plan=other)
    wider = tuning.Plan(fields, {"dropout": optuna.distributions.FloatDistribution(0.0, 0.9)})
    with pytest.raises(ConfigError, match="the study study was started with another search"):
        study(1, plan=wider)
    assert study(1, plan=wider, name="wider").outcome["trials"]["done"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"storage": "study.db"}, "the storage cannot be opened: Could not parse SQLAlchemy URL"),
        ({"storage": "sqlite:////nowhere/study.db"}, "unable to open database file; give the URL of a database"),
        ({"name": "../study"}, "../study cannot name a study"),
    ],
)
def test_an_invalid_storage_or_name_is_a_one_line_error(study, pretend, change, message):
    with pytest.raises(ConfigError) as raised:
        study(1, **change)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_trial_worse_than_the_median_is_pruned_and_removed(study, records, pretend, monkeypatch, tmp_path):
    epochs = []
    pretend(lambda recipe: [0.5, 0.4])
    study(5)
    monkeypatch.undo()  # and train

    def validate(self, batches):
        epochs.append(batches)
        return {"loss": 0.9}

    monkeypatch.setattr(engine.Engine, "validate", validate)
    done = study(1)
    assert len(epochs) == 2, "the first epoch after the warm-up is for free"
    assert done.trials[5].state == optuna.trial.TrialState.PRUNED
    assert done.lines[0].startswith("trial 5: pruned after epoch 2, val_loss 0.9000 (dropout 0.")
    assert done.outcome["trials"] == {"done": 5, "pruned": 1, "failed": 0}
    assert [path.name for path in (tmp_path / "tune/runs").iterdir()] == ["study-0"]


def test_a_failed_trial_is_reported_and_the_study_continues(study, pretend, tmp_path):
    numbers = iter(range(10))

    def fail_once(recipe):
        if next(numbers) == 1:
            raise ConfigError("the loss became NaN in epoch 2; the best weights until then are in some folder")
        return [0.5]

    pretend(fail_once)
    done = study(3)
    assert done.lines[1].startswith("trial 1: failed, the loss became NaN in epoch 2 (dropout 0.")
    assert done.trials[1].state == optuna.trial.TrialState.FAIL
    assert done.trials[1].user_attrs == {"error": "the loss became NaN in epoch 2"}
    assert done.outcome["trials"] == {"done": 2, "pruned": 0, "failed": 1}
    assert [path.name for path in (tmp_path / "tune/runs").iterdir()] == ["study-0"]


def test_a_study_without_a_complete_trial_reports_the_last_error(study, pretend):
    def fail(recipe):
        raise ConfigError("there is no weights file gone.h5")

    pretend(fail)
    with pytest.raises(ConfigError, match=r"no trial of 2 worked; the last one: there is no weights file gone\.h5"):
        study(2)


def test_an_interrupted_trial_is_repeated(study, pretend, tmp_path):
    dropouts = []

    def interrupt_the_third(recipe):
        dropouts.append(recipe.dropout)
        yield 0.5
        if len(dropouts) == 3:
            raise Interrupted("stopped in epoch 2; continue with: ddk fit --resume")

    pretend(interrupt_the_third)
    with pytest.raises(Interrupted, match=r"^2 trials done; continue with the same command$"):
        study(5)
    assert [path.name for path in (tmp_path / "tune/runs").iterdir()] == ["study-0"]
    done = study(2)
    assert dropouts[3] == dropouts[2]
    assert dropouts[4] != dropouts[2]
    assert done.trials[2].user_attrs == {"error": "interrupted"}
    assert done.outcome["trials"] == {"done": 4, "pruned": 0, "failed": 1}


def test_a_trial_with_a_heartbeat_is_left_alone(study, pretend, monkeypatch, tmp_path):
    monkeypatch.setattr(tuning, "_HEARTBEAT", 1)
    monkeypatch.setattr(tuning, "_GRACE", 2)
    states = []

    def wait(recipe):
        time.sleep(4)
        other = optuna.load_study(study_name="study", storage=tuning._database(f"sqlite:///{tmp_path}/study.db"))
        with pytest.warns(optuna.exceptions.ExperimentalWarning):
            optuna.storages.fail_stale_trials(other)
        states.append(other.trials[-1].state)
        return [0.5]

    pretend(wait)
    study(1)
    assert states == [optuna.trial.TrialState.RUNNING]


# --- pictures --------------------------------------------------------------------------------------------------

TRIALS = pd.DataFrame(
    {
        "number": [0, 1, 2, 3],
        "value": [0.7, 0.4, 5.0, 0.5],
        "pruned": [False, False, True, False],
        "learning_rate": [1e-4, 1e-3, 1e-1, 1e-2],
        "augment": ["flip", "forensic", "flip", '{"flip": {"probability": 0.25}}'],
        "freeze_norms": [True, False, True, True],
        "batch": [8, 16, 8, 32],
    }
)


@pytest.mark.parametrize("trials", [TRIALS, TRIALS[:1]], ids=["four", "one"])
def test_the_figures_of_a_study(tmp_path, trials):
    figures.write_trials(tmp_path / "history.png", trials, "val_loss", more_is_better=False)
    names = ["learning_rate", "augment", "freeze_norms", "batch"]
    figures.write_parameters(tmp_path / "parameters.png", trials, "val_loss", 0, names, {"learning_rate"})
    for picture in tmp_path.glob("*.png"):
        pixels = np.asarray(Image.open(picture).convert("L"))
        assert min(pixels.shape) > 400
        assert pixels.std() > 10, "an empty picture"


# --- the command -----------------------------------------------------------------------------------------------


@pytest.fixture
def ddk(tmp_path, monkeypatch, records):
    """Run `ddk tune` in an empty folder; what it prints with --json has to be as documented."""
    monkeypatch.chdir(tmp_path)

    def run(*options):
        result = CliRunner().invoke(main, ["tune", "--records", str(records.folder), *map(str, options)])
        if "--json" in options:
            schemas.check_output("tune", result.stdout)
        return result

    return run


def mistake(result) -> str:
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.stderr
    return result.stderr.splitlines()[-1]


@pytest.mark.slow
def test_the_command_prints_a_recipe_for_fit(ddk, recipe, pretend, tmp_path):
    done = ddk(*OPTIONS, "--trials", 2)
    assert done.exit_code == 0, done.output
    assert [line[:17] for line in done.stderr.splitlines()] == ["trial 0: val_loss", "trial 1: val_loss"]
    assert "Next: ddk fit --recipe artifacts/tune/best.yaml" in done.stdout
    printed = yaml.safe_load(done.stdout)
    assert printed == yaml.safe_load((tmp_path / "artifacts/tune/best.yaml").read_text())
    assert (printed["backbone"], printed["epochs"], printed["augment"]) == ("tiny", 2, {"flip": {"probability": 0.5}})
    told = json.loads(ddk(*OPTIONS, "--trials", 1, "--json").stdout)
    assert told["trials"] == {"done": 3, "pruned": 0, "failed": 0}
    assert told["recipe"] == yaml.safe_load((tmp_path / "artifacts/tune/best.yaml").read_text())


def test_fields_given_as_options_are_not_searched(ddk, recipe, pretend, tmp_path):
    told = json.loads(ddk(*OPTIONS, "--learning-rate", 0.002, "--trials", 2, "--json").stdout)
    assert told["recipe"]["learning_rate"] == 0.002
    trials = trials_in(tmp_path / "artifacts/tune/study.db")
    assert set(trials[0].params) == {"weight_decay", "dropout"}
    (tmp_path / "mine.yaml").write_text("learning_rate: [0.1, 0.2]")
    said = mistake(ddk(*OPTIONS, "--learning-rate", 0.002, "--search", "mine.yaml"))
    assert "mine.yaml searches learning_rate, which is also given as an option; leave out one" in said


def test_without_optuna_the_error_names_the_extra_to_install(ddk, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "ddkeras.experiments.tuning")
    monkeypatch.delattr("ddkeras.experiments.tuning")
    assert 'install it with: pip install "ddkeras[tune]"' in mistake(ddk())


# --- several processes -----------------------------------------------------------------------------------------


def started(folder: Path, records, trials: int) -> subprocess.Popen:
    """Start `ddk tune`."""
    return start_ddk(folder, "tune", "--records", records.folder, "--trials", trials, *OPTIONS)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)


@pytest.mark.slow
def test_two_processes_share_a_study(records, tmp_path):
    processes = [started(tmp_path, records, 3) for _ in range(2)]
    for process in processes:
        _, said = process.communicate()
        assert process.returncode == 0, said
        assert said.count("\ntrial ") == 3, said
    trials = trials_in(tmp_path / "artifacts/tune/study.db")
    assert [trial.number for trial in trials] == [0, 1, 2, 3, 4, 5]
    assert len({trial.params["dropout"] for trial in trials}) == 6
    best = min((trial for trial in trials if trial.state.name == "COMPLETE"), key=lambda trial: trial.value)
    assert [path.name for path in (tmp_path / "artifacts/tune/runs").iterdir()] == [f"study-{best.number}"]
    assert recipe_fields(str(tmp_path / "artifacts/tune/best.yaml"))["dropout"] == best.params["dropout"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=lambda number: number.name)
def test_a_study_resumes_after_its_process_died(ddk, recipe, records, tmp_path, monkeypatch, number):
    process = started(tmp_path, records, 5)
    wait_for(tmp_path / "artifacts/tune/runs/study-1", process)
    process.send_signal(number)
    _, said = process.communicate()
    database = tmp_path / "artifacts/tune/study.db"
    if number == signal.SIGINT:
        assert process.returncode == 1, said
        assert said.splitlines()[-1] == "Error: interrupted; 1 trial done; continue with the same command"
        assert os.listdir(tmp_path / "artifacts/tune/runs") == ["study-0"]
    else:
        assert trials_in(database)[1].state.name == "RUNNING"
    monkeypatch.setattr(tuning, "_GRACE", 1)
    time.sleep(2.5)
    done = ddk(*OPTIONS, "--trials", 2)
    assert done.exit_code == 0, done.output
    trials = trials_in(database)
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert trials[2].params == trials[1].params
    best = min((trials[0], *trials[2:]), key=lambda trial: trial.value)
    assert os.listdir(tmp_path / "artifacts/tune/runs") == [f"study-{best.number}"]
