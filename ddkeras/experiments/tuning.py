"""Looking for a better recipe: a study of many trainings, each with other values of some fields, by Optuna.

artifacts/tune/
    study.db        what was tried and how it went: all that is needed to go on; or any other database
    best.yaml       the recipe of the best trial so far, renewed after each
    history.png     what each trial came to, and parameters.png: over each field that is searched
    runs/           the run of the best trial, and those that are being trained
"""

import dataclasses
import json
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd

from ddkeras.config import Recipe, recipe_fields
from ddkeras.exceptions import ConfigError
from ddkeras.interrupts import Interrupted, StopRequest
from ddkeras.reporting import figures
from ddkeras.runs.run import CRITERIA, LATEST
from ddkeras.training import distribution, loop
from pipelines import atomic
from pipelines.records.store import Records

try:
    import optuna
    import sqlalchemy
    from optuna.distributions import (
        BaseDistribution,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
        distribution_to_json,
    )
    from optuna.trial import FrozenTrial, TrialState
except ImportError as error:
    raise ConfigError('a study needs Optuna; install it with: pip install "ddkeras[tune]"') from error

_NUMBERS = [field.name for field in dataclasses.fields(Recipe) if "range" in field.metadata]
# Each of these changes what the loss on validation is a mean of, so that it says nothing of which is better.
_OF_THE_LOSS = ("balance", "loss", "focal_gamma", "label_smoothing", "authenticity_weight", "category_weight")
_BEAT, _GRACE = 30, 300  # seconds between two signs of life of a trial; without one, until it counts as dead
_OUTCOMES = {TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
Space = dict[str, BaseDistribution]


# --- what is tried ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What the trials of a study have in common, and in what they differ.

    Args:
        fields: of the recipe that all begin with, as `Recipe` takes them.
        space: what is tried in place of some of them; see `default_space`, `read_space`.

    Raises:
        ConfigError: nothing is searched, or what is searched cannot be compared by what the recipe keeps.
    """

    fields: dict[str, Any]
    space: Space

    def __post_init__(self):
        if not self.space:
            raise ConfigError("there is nothing to search: all that would be is given; leave an option out")
        if "keep" in self.space:
            raise ConfigError("keep says what trials are compared by, and cannot be searched")
        unlike = [name for name in _OF_THE_LOSS if name in self.space]
        if self.start.keep == "loss" and unlike:
            raise ConfigError(
                f"{', '.join(unlike)} changes what the loss is, by which trials would be compared; compare them by "
                "another: --keep auc"
            )

    @cached_property
    def start(self) -> Recipe:
        """The recipe that the search begins with."""
        return Recipe(**self.fields)

    @property
    def column(self) -> str:
        """Of the history: what trials are compared by."""
        return CRITERIA[self.start.keep][0]

    @property
    def more_is_better(self) -> bool:
        """Of what is in `column`."""
        return CRITERIA[self.start.keep][1]

    def recipe(self, drawn: dict[str, Any]) -> Recipe:
        """That of a trial which drew these values.

        Raises:
            ConfigError: they cannot be had together.
        """
        return Recipe(**self.fields | {name: _value(name, value) for name, value in drawn.items()})

    def nearest(self) -> dict[str, Any]:
        """What a trial has to draw to be, as far as the search allows it, the recipe that it begins with."""
        drawn = {}
        for name, values in self.space.items():
            own = getattr(self.start, name)
            if not isinstance(values, CategoricalDistribution):
                drawn[name] = _nearest(values, own)
            elif same := [c for c in values.choices if getattr(self.recipe({name: c}), name) == own]:
                drawn[name] = same[0]
        return drawn

    def described(self, records: Records) -> dict[str, Any]:
        """All that has to be the same for trials to be compared, ready for JSON."""
        shared = {name: value for name, value in dataclasses.asdict(self.start).items() if name not in self.space}
        search = {name: distribution_to_json(values) for name, values in self.space.items()}
        return {**shared, "search": search, "records": records.fingerprint}


def default_space(recipe: Recipe, given: Collection[str] = ()) -> Space:
    """What is searched when nothing is said: how fast it learns, and what keeps it from learning by heart.

    Not augmentation: validation images are as they were found, so that the least would always win.

    Args:
        recipe: that the search begins with.
        given: names of fields that are not to be searched.
    """
    space = {
        "learning_rate": FloatDistribution(recipe.learning_rate / 10, recipe.learning_rate * 10, log=True),
        "weight_decay": FloatDistribution(1e-6, 0.1, log=True),
        "dropout": FloatDistribution(0, 0.5),
        "label_smoothing": FloatDistribution(0, 0.2),
    }
    if recipe.optimizer == "adam":
        del space["weight_decay"]  # which it has not
    if recipe.keep == "loss":
        del space["label_smoothing"]
    return {name: values for name, values in space.items() if name not in given}


def read_space(path: Path, fields: dict[str, Any]) -> Space:
    """What a YAML file says is to be searched, as in: {dropout: {low: 0, high: 0.5}, optimizer: [adamw, sgd]}.

    Args:
        path: maps fields of a recipe to lists of choices, or to low, high and, where wanted, log and step.
        fields: of the recipe that the search begins with, in which each end and choice has to be possible.

    Raises:
        ConfigError: a field is unknown, or what is said of it is not as above or cannot be had.
    """
    return {name: _distribution(f"{path}: {name}", name, said, fields) for name, said in recipe_fields(path).items()}


def _distribution(where: str, name: str, said: Any, fields: dict[str, Any]) -> BaseDistribution:
    try:
        if isinstance(said, list):
            return CategoricalDistribution([_choice(name, value, fields) for value in said])
        return _range(name, said, fields)
    except (ConfigError, ValueError, TypeError) as error:
        raise ConfigError(f"{where}: {str(error).rstrip('.')}") from error


def _range(name: str, said: Any, fields: dict[str, Any]) -> BaseDistribution:
    if not isinstance(said, dict) or not {"low", "high"} <= said.keys() <= {"low", "high", "log", "step"}:
        raise ConfigError("give a list of choices, or low and high and, where wanted, log: true or step")
    if name not in _NUMBERS:
        raise ConfigError("it is no number; give a list of choices")
    low, high = (getattr(Recipe(**fields | {name: said[end]}), name) for end in ("low", "high"))
    options = {"log": said["log"]} if "log" in said else {}
    if not isinstance(options.get("log", True), bool):
        raise ConfigError(f"log must be true or false, not {options['log']}")
    if "step" in said:
        options["step"] = type(low)(said["step"])
    with warnings.catch_warnings(action="ignore"):  # that no step ends on `high`
        return (IntDistribution if isinstance(low, int) else FloatDistribution)(low, high, **options)


def _choice(name: str, value: Any, fields: dict[str, Any]) -> Any:
    """A choice as Optuna keeps it, which knows no mappings; see `_value`."""
    settled = getattr(Recipe(**fields | {name: value}), name)
    if not isinstance(settled, dict):
        return settled
    return value if isinstance(value, str) else json.dumps(value)


def _value(name: str, drawn: Any) -> Any:
    return json.loads(drawn) if name == "augment" and drawn.startswith("{") else drawn


def _nearest(values: FloatDistribution | IntDistribution, number: float) -> float:
    number = min(max(number, values.low), values.high)
    return values.low + round((number - values.low) / values.step) * values.step if values.step else number


def _drawn(trial: optuna.Trial, space: Space) -> dict[str, Any]:
    suggest = {
        CategoricalDistribution: trial.suggest_categorical,
        FloatDistribution: trial.suggest_float,
        IntDistribution: trial.suggest_int,
    }
    return {name: suggest[type(values)](name, **vars(values)) for name, values in space.items()}


# --- a study ---------------------------------------------------------------------------------------------------


def tune(
    plan: Plan, records: Records, folder: Path, *, storage: str, name: str, trials: int, tell: Callable[[str], None]
) -> dict:
    """Do more trials of a study, which is begun where there is none of that name.

    Several processes can do so at once. A trial that was interrupted, or whose process died, is begun anew.

    Args:
        plan: what is tried; the same whenever the study is gone on with.
        records: on what.
        folder: where the outcome goes.
        storage: the URL of a database, such as `sqlite:///study.db`.
        name: of the study there.
        trials: how many to do.
        tell: is given a line after each.

    Returns:
        The outcome of the study as a whole, ready for JSON; see `_outcome`.

    Raises:
        ConfigError: the storage cannot be opened, the study was begun on another plan, or no trial ends well.
        DataError: the records lack a labelled train or validation split, or are damaged.
        Interrupted: a signal asked to stop.
    """
    if distribution.workers() > 1:
        raise ConfigError("one process trains a trial: unset TF_CONFIG, and have the workers share a --storage")
    study = _open(plan, records, folder, storage, name)

    def after(study: optuna.Study, trial: FrozenTrial) -> None:
        tell(_line(trial, _best(study.get_trials(deepcopy=False), plan), plan))
        _renew(study, plan, folder)

    objective = partial(_objective, plan=plan, records=records, folder=folder)
    try:
        with StopRequest() as stop:
            for _ in stop.until(range(trials)):
                study.optimize(objective, n_trials=1, catch=(ConfigError,), callbacks=[after], gc_after_trial=True)
    except KeyboardInterrupt as error:
        done = _counted(study.get_trials())["done"]
        raise Interrupted(f"{done} trials are done; go on with the same command") from error
    finally:
        _renew(study, plan, folder)
    return _outcome(study, plan, folder)


def _objective(trial: optuna.Trial, *, plan: Plan, records: Records, folder: Path) -> float:
    """Train as the trial draws it; what its best epoch came to."""

    def after_epoch(row: dict) -> None:
        trial.report(row[plan.column], row["epoch"])
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        recipe = plan.recipe(_drawn(trial, plan.space))
        runs_folder = _runs_folder(folder, trial.study, trial)
        run = loop.fit(recipe, records, runs_folder, after_epoch=after_epoch, verbose=0)
    except ConfigError as error:
        trial.set_user_attr("error", str(error).partition(";")[0])  # what to do about it is not for a trial
        raise
    except KeyboardInterrupt:
        trial.set_user_attr("error", "interrupted")
        trial.study.enqueue_trial(trial.params)
        raise
    return run.best_epoch()[plan.column]


def _open(plan: Plan, records: Records, folder: Path, storage: str, name: str) -> optuna.Study:
    """The study of that name; when it begins, its first trial is the recipe itself, so that none does worse."""
    if name != Path(name).name:
        raise ConfigError(f"{name} cannot be the name of a study, as folders are named after it; leave out slashes")
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    described = plan.described(records)
    with atomic.locked(folder / "study"):  # of two that begin a study, one makes it
        study = optuna.create_study(
            storage=_database(storage),
            study_name=name,
            direction="maximize" if plan.more_is_better else "minimize",
            # By the median, as it needs neither a budget nor many trials. Epochs in which only the heads are trained,
            # and the first one after them, in which the learning rate rises, say little.
            pruner=optuna.pruners.MedianPruner(n_warmup_steps=plan.start.frozen_epochs + 1),
            load_if_exists=True,
        )
        if not study.user_attrs and not study.trials:
            study.set_user_attr("begun", described)
            study.enqueue_trial(plan.nearest())
    begun = study.user_attrs.get("begun", {})
    if changed := [name for name in begun | described if begun.get(name) != described.get(name)]:
        raise ConfigError(
            f"the study {name} was begun with another {', '.join(changed)}; give the same, or name another: --study"
        )
    return study


def _database(url: str) -> optuna.storages.RDBStorage:
    # Writers of SQLite wait for each other. Elsewhere the option has other names, and there is no need for it.
    patience = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    try:
        with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
            # Once: what ends its process twice would do so again.
            retry = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=1)
            return optuna.storages.RDBStorage(
                url,
                engine_kwargs=patience,
                heartbeat_interval=_BEAT,
                grace_period=_GRACE,
                heartbeat_stale_trial_callback=retry,
            )
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(
            f"the storage cannot be opened: {reason}; give the URL of a database, as in: --storage sqlite:///study.db"
        ) from error


# --- what comes of it ------------------------------------------------------------------------------------------


def _best(trials: list[FrozenTrial], plan: Plan) -> FrozenTrial | None:
    """The first of those that came to the best value."""
    choose = max if plan.more_is_better else min
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return choose(done, key=lambda trial: trial.value, default=None)


def _runs_folder(folder: Path, study: optuna.Study, trial: optuna.Trial | FrozenTrial) -> Path:
    return folder / "runs" / f"{study.study_name}-{trial.number}"


def _renew(study: optuna.Study, plan: Plan, folder: Path) -> None:
    """Have in `folder` what is known of the study: its best recipe and run, and the figures."""
    with atomic.locked(
        folder / "study"
    ):  # or what another process has just found would be replaced by what was known
        trials = study.get_trials(deepcopy=False)
        best = _best(trials, plan)
        if best:
            _write(trials, best, plan, folder)
        for trial in trials:
            if trial.state.is_finished() and not (best and trial.number == best.number):
                shutil.rmtree(_runs_folder(folder, study, trial), ignore_errors=True)


def _write(trials: list[FrozenTrial], best: FrozenTrial, plan: Plan, folder: Path) -> None:
    with atomic.file(folder / "best.yaml") as partial_file:
        partial_file.write_text(plan.recipe(best.params).to_yaml())
    seen = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    rows = [{"number": t.number, "value": t.value, "pruned": t.state == TrialState.PRUNED} | t.params for t in seen]
    table = pd.DataFrame(rows)
    with atomic.file(folder / "history.png") as partial_file:
        figures.write_trials(partial_file, table, plan.column, more_is_better=plan.more_is_better)
    logarithmic = {name for name, values in plan.space.items() if getattr(values, "log", False)}
    with atomic.file(folder / "parameters.png") as partial_file:
        figures.write_parameters(partial_file, table, plan.column, best.number, list(plan.space), logarithmic)


def _line(trial: FrozenTrial, best: FrozenTrial | None, plan: Plan) -> str:
    """What came of a trial, and what it tried."""
    if trial.state == TrialState.FAIL:
        came = f"failed, {trial.user_attrs['error']}"
    elif trial.state == TrialState.PRUNED:
        came = f"pruned after epoch {trial.last_step + 1}, {plan.column} {trial.value:.4f}"
    else:
        came = f"{plan.column} {trial.value:.4f}"
        came += ", the best so far" if best and best.number == trial.number else ""
    numbers = {name: f"{value:.3g}" for name, value in trial.params.items() if isinstance(value, float)}
    tried = ", ".join(f"{name} {value}" for name, value in (trial.params | numbers).items())
    return f"trial {trial.number}: {came} ({tried})"


def _counted(trials: list[FrozenTrial]) -> dict[str, int]:
    states = Counter(trial.state for trial in trials)
    return {word: states[state] for state, word in _OUTCOMES.items()}


def _outcome(study: optuna.Study, plan: Plan, folder: Path) -> dict:
    """What is known so far: the best trial, its value, recipe and run, which may be on another machine."""
    trials = study.get_trials(deepcopy=False)
    best, counts = _best(trials, plan), _counted(trials)
    if not best:
        errors = [trial.user_attrs["error"] for trial in trials if "error" in trial.user_attrs]
        raise ConfigError(f"none of {sum(counts.values())} trials ended well; the last one: {errors[-1]}")
    run = _runs_folder(folder, study, best) / LATEST
    return {
        "study": study.study_name,
        "trials": counts,
        "best_trial": best.number,
        plan.column: best.value,
        "recipe": dataclasses.asdict(plan.recipe(best.params)),
        "folder": str(folder),
        "run": str(run) if run.is_dir() else None,
    }
