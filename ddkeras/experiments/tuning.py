"""Hyperparameter search with Optuna: a study of trials, each a training with other values of some fields.

artifacts/tune/
    study.db        the study, from which it is resumed; it may be in any other database
    best.yaml       the recipe of the best trial so far, updated after each trial
    history.png     the value of each trial; parameters.png: the same by searched field
    runs/           the run of the best trial, and those in training
"""

import dataclasses
import json
import math
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
from ddkeras.training import loop
from ddkeras.training.distribution import worker_count
from pipelines import atomic
from pipelines.records.store import Records
from pipelines.wording import count_of

try:
    import optuna
    import sqlalchemy
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
        distribution_to_json,
    )
    from optuna.trial import FrozenTrial, TrialState
except ImportError as error:
    raise ConfigError('a study needs Optuna; install it with: pip install "ddkeras[tune]"') from error

_NUMERIC = [field.name for field in dataclasses.fields(Recipe) if "range" in field.metadata]
# These change the definition of the validation loss, so it cannot compare trials that differ in them.
_LOSS_FIELDS = ("balance", "loss", "focal_gamma", "label_smoothing", "authenticity_weight", "category_weight")
_HEARTBEAT, _GRACE = 30, 300  # seconds: between heartbeats of a trial, and without one until it counts as dead
_OUTCOMES = {TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
Distribution = CategoricalDistribution | FloatDistribution | IntDistribution
Space = dict[str, Distribution]


# --- the search space ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """The fields that the trials of a study share, and the search space.

    Args:
        fields: of the base recipe, as given to `Recipe`.
        space: distributions for some of the fields; see `default_space`, `read_space`.

    Raises:
        ConfigError: the space is empty, or the recipe's checkpoint-selection metric cannot compare its trials.
    """

    fields: dict[str, Any]
    space: Space

    def __post_init__(self) -> None:
        if not self.space:
            raise ConfigError("there is nothing to search, as all of its fields are given; leave an option out")
        if "keep" in self.space:
            raise ConfigError("keep is the metric that compares trials, and cannot be searched")
        changed = [name for name in _LOSS_FIELDS if name in self.space]
        if self.base.keep == "loss" and changed:
            raise ConfigError(
                f"{', '.join(changed)} changes the loss, which then cannot compare trials; compare them by another "
                "metric: --keep auc"
            )

    @cached_property
    def base(self) -> Recipe:
        """The recipe that trials start from."""
        return Recipe(**self.fields)

    @property
    def column(self) -> str:
        """The column of the history by which trials are compared."""
        return CRITERIA[self.base.keep][0]

    @property
    def more_is_better(self) -> bool:
        """Whether higher values in `column` are better."""
        return CRITERIA[self.base.keep][1]

    def recipe(self, parameters: dict[str, Any]) -> Recipe:
        """The recipe of a trial with these values of the searched fields.

        Raises:
            ConfigError: they do not fit together.
        """
        return Recipe(**self.fields | {name: _value(name, value) for name, value in parameters.items()})

    def nearest(self) -> dict[str, Any]:
        """The parameters within the search space that are nearest to the base recipe.

        Of choices that are not numbers, and do not have the recipe's value, it is the first.
        """
        return {name: self._nearest(name, distribution) for name, distribution in self.space.items()}

    def outside(self) -> list[str]:
        """A sentence for each searched field whose value in the base recipe is outside the search space."""
        nearest = self.nearest()
        first = self.recipe(nearest)
        values = {name: self._value_in_base(name) for name in self.space}
        return [
            # A chain of augmentations would fill lines.
            f"{name}{'' if isinstance(value, dict) else f' {value}'} of the recipe is outside the search: "
            f"the first trial has {nearest[name]}, so the result can be worse than the recipe"
            for name, value in values.items()
            if value != getattr(first, name)
        ]

    def _value_in_base(self, name: str) -> Any:
        value = getattr(self.base, name)
        return 1.0 if value is None else value  # the weight of the category head, 1 where the data has classes

    def _nearest(self, name: str, distribution: Distribution) -> Any:
        value = self._value_in_base(name)
        if not isinstance(distribution, CategoricalDistribution):
            return _nearest(distribution, value)
        if name in _NUMERIC:
            return min(distribution.choices, key=lambda choice: abs(choice - value))
        equal = [choice for choice in distribution.choices if getattr(self.recipe({name: choice}), name) == value]
        return (equal or distribution.choices)[0]

    def describe(self, records: Records) -> dict[str, Any]:
        """Everything that must be equal for trials to be comparable, JSON-ready."""
        shared = {name: value for name, value in dataclasses.asdict(self.base).items() if name not in self.space}
        search = {name: distribution_to_json(distribution) for name, distribution in self.space.items()}
        return {**shared, "search": search, "records": records.fingerprint}


def default_space(recipe: Recipe, given: Collection[str] = ()) -> Space:
    """The default search space: learning rate and regularization.

    It leaves out augmentation: validation images are not augmented, so the weakest would always win.

    Args:
        recipe: the base recipe.
        given: names of fields not to search.
    """
    space: Space = {
        "learning_rate": FloatDistribution(recipe.learning_rate / 10, recipe.learning_rate * 10, log=True),
        "weight_decay": FloatDistribution(1e-6, 0.1, log=True),
        "dropout": FloatDistribution(0, 0.5),
        "label_smoothing": FloatDistribution(0, 0.2),
    }
    if recipe.optimizer == "adam":
        del space["weight_decay"]  # Adam has none
    if recipe.keep == "loss":
        del space["label_smoothing"]
    return {name: distribution for name, distribution in space.items() if name not in given}


def read_space(path: Path, fields: dict[str, Any]) -> Space:
    """Read a search space from a YAML file, as in: {dropout: {low: 0, high: 0.5}, optimizer: [adamw, sgd]}.

    Args:
        path: a file that maps fields of a recipe to lists of choices, or to low, high and optionally log or step.
        fields: of the base recipe, in which each end of a range and each choice must be valid.

    Raises:
        ConfigError: a field is unknown, or its values are malformed or invalid.
    """
    space: Space = {}
    for name, values in recipe_fields(str(path)).items():
        try:
            if isinstance(values, list):
                space[name] = CategoricalDistribution([_choice(name, value, fields) for value in values])
            else:
                space[name] = _range(name, values, fields)
        except (ConfigError, ValueError, TypeError) as error:
            raise ConfigError(f"{path}: {name}: {str(error).rstrip('.')}") from error
    return space


def _range(name: str, values: Any, fields: dict[str, Any]) -> FloatDistribution | IntDistribution:
    if not isinstance(values, dict) or not {"low", "high"} <= values.keys() <= {"low", "high", "log", "step"}:
        raise ConfigError("give a list of choices, or low and high and optionally log: true or step")
    if name not in _NUMERIC:
        raise ConfigError("it is not a number; give a list of choices")
    low, high = (getattr(Recipe(**fields | {name: values[end]}), name) for end in ("low", "high"))
    log = values.get("log", False)
    if not isinstance(log, bool):
        raise ConfigError(f"log must be true or false, not {log}")
    with warnings.catch_warnings(action="ignore"):  # that the steps do not end at `high`
        if isinstance(low, int):
            return IntDistribution(low, high, log=log, step=int(values.get("step", 1)))
        return FloatDistribution(low, high, log=log, step=float(values["step"]) if "step" in values else None)


def _choice(name: str, value: Any, fields: dict[str, Any]) -> Any:
    """A choice as Optuna stores it, which has no mappings; the inverse of `_value`."""
    resolved = getattr(Recipe(**fields | {name: value}), name)
    if not isinstance(resolved, dict):
        return resolved
    return value if isinstance(value, str) else json.dumps(value)


def _value(name: str, parameter: Any) -> Any:
    return json.loads(parameter) if name == "augment" and parameter.startswith("{") else parameter


def _nearest(distribution: FloatDistribution | IntDistribution, value: float) -> float:
    low, high, step = distribution.low, distribution.high, distribution.step
    value = min(max(value, low), high)
    stepped = low + round((value - low) / step) * step if step else value
    return value if math.isclose(stepped, value) else stepped


def _draw(trial: optuna.Trial, space: Space) -> dict[str, Any]:
    return {name: _suggest(trial, name, distribution) for name, distribution in space.items()}


def _suggest(trial: optuna.Trial, name: str, distribution: Distribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    return trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


# --- a study ---------------------------------------------------------------------------------------------------


def tune(
    plan: Plan, records: Records, folder: Path, *, storage: str, name: str, trials: int, tell: Callable[[str], None]
) -> dict:
    """Run trials of a study, which is created if there is none of that name.

    Several processes can do so at once. A trial that was interrupted, or whose process died, is repeated.

    Args:
        plan: the trials; the same whenever the study is continued.
        records: the data.
        folder: where the results are written.
        storage: URL of a database, such as `sqlite:///study.db`.
        name: of the study there.
        trials: number of trials to run.
        tell: called with a line after each trial, and when the study begins with one for each field whose value in
            the recipe is outside the search space.

    Returns:
        The result of the whole study, JSON-ready; see `_result`.

    Raises:
        ConfigError: the storage cannot be opened, the study has another plan, or all trials failed.
        DataError: the records lack a labelled train or validation split, or are damaged.
        Interrupted: a signal asked to stop.
    """
    if worker_count() > 1:
        raise ConfigError("a trial is trained by one process: unset TF_CONFIG, and let the workers share a --storage")
    study = _open(plan, records, folder, storage, name, tell)

    def after(study: optuna.Study, trial: FrozenTrial) -> None:
        tell(_format_trial(trial, _best(study.get_trials(deepcopy=False), plan), plan))
        _update_folder(study, plan, folder)

    objective = partial(_objective, plan=plan, records=records, folder=folder)
    try:
        with StopRequest() as stop:
            for _ in stop.interruptible(range(trials)):
                study.optimize(objective, n_trials=1, catch=(ConfigError,), callbacks=[after], gc_after_trial=True)
    except KeyboardInterrupt as error:
        done = _count_outcomes(study.get_trials())["done"]
        raise Interrupted(f"{count_of(done, 'trial')} done; continue with the same command") from error
    finally:
        _update_folder(study, plan, folder)
    return _result(study, plan, folder)


def _objective(trial: optuna.Trial, *, plan: Plan, records: Records, folder: Path) -> float:
    """Train with the parameters of a trial; its best value of the checkpoint-selection metric."""

    def after_epoch(row: dict) -> None:
        trial.report(row[plan.column], row["epoch"] - 1)  # pruners count from 0
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        recipe = plan.recipe(_draw(trial, plan.space))
        runs_folder = _runs_folder(folder, trial.study, trial)
        run = loop.fit(recipe, records, runs_folder, after_epoch=after_epoch, verbose=0)
    except ConfigError as error:
        trial.set_user_attr("error", str(error).partition(";")[0])  # the remedy does not apply to a trial
        raise
    except KeyboardInterrupt:
        trial.set_user_attr("error", "interrupted")
        trial.study.enqueue_trial(trial.params)
        raise
    return run.best_epoch()[plan.column]


def _open(
    plan: Plan, records: Records, folder: Path, storage: str, name: str, tell: Callable[[str], None]
) -> optuna.Study:
    """Open or create a study; its first trial is the base recipe, or the nearest to it in the search space."""
    if name != Path(name).name:
        raise ConfigError(f"{name} cannot name a study, as folders are named after it; leave out slashes")
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    description = plan.describe(records)
    with atomic.locked(folder / "study"):  # of two processes that start a study, only one creates it
        study = optuna.create_study(
            storage=_database(storage),
            study_name=name,
            direction="maximize" if plan.more_is_better else "minimize",
            # The median needs neither a budget nor many trials. It ignores the epochs that train only the heads, and
            # the first one after them, where the learning rate warms up.
            pruner=optuna.pruners.MedianPruner(n_warmup_steps=plan.base.frozen_epochs + 1),
            load_if_exists=True,
        )
        if not study.user_attrs and not study.trials:
            study.set_user_attr("begun", description)
            study.enqueue_trial(plan.nearest())
            for sentence in plan.outside():
                tell(sentence)
    stored = study.user_attrs.get("begun", {})
    if changed := [name for name in stored | description if stored.get(name) != description.get(name)]:
        raise ConfigError(
            f"the study {name} was started with another {', '.join(changed)}; give the same, or another --study"
        )
    return study


def _database(url: str) -> optuna.storages.RDBStorage:
    # Processes that write to SQLite wait for each other; other databases need no such option.
    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    try:
        with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
            # Only once, as a trial that killed its process twice would do so again.
            retry = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=1)
            return optuna.storages.RDBStorage(
                url,
                engine_kwargs=options,
                heartbeat_interval=_HEARTBEAT,
                grace_period=_GRACE,
                heartbeat_stale_trial_callback=retry,
            )
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(
            f"the storage cannot be opened: {reason}; give the URL of a database, as in: --storage sqlite:///study.db"
        ) from error


# --- results ---------------------------------------------------------------------------------------------------


def _best(trials: list[FrozenTrial], plan: Plan) -> FrozenTrial | None:
    """The first trial with the best value."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    values = [trial.value for trial in complete if trial.value is not None]  # every complete trial has one
    if not values:
        return None
    return complete[values.index(max(values) if plan.more_is_better else min(values))]


def _runs_folder(folder: Path, study: optuna.Study, trial: optuna.Trial | FrozenTrial) -> Path:
    return folder / "runs" / f"{study.study_name}-{trial.number}"


def _update_folder(study: optuna.Study, plan: Plan, folder: Path) -> None:
    """Write the best recipe so far and the figures, and keep only the best run and those in training."""
    with atomic.locked(folder / "study"):  # or an older state could replace that of another process
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
    shown = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    rows = [{"number": t.number, "value": t.value, "pruned": t.state == TrialState.PRUNED} | t.params for t in shown]
    table = pd.DataFrame(rows)
    with atomic.file(folder / "history.png") as partial_file:
        figures.write_trials(partial_file, table, plan.column, more_is_better=plan.more_is_better)
    logarithmic = {name for name, distribution in plan.space.items() if getattr(distribution, "log", False)}
    with atomic.file(folder / "parameters.png") as partial_file:
        figures.write_parameters(partial_file, table, plan.column, best.number, list(plan.space), logarithmic)


def _format_trial(trial: FrozenTrial, best: FrozenTrial | None, plan: Plan) -> str:
    """The outcome of a trial and its parameters, in one line."""
    if trial.state == TrialState.FAIL:
        outcome = f"failed, {trial.user_attrs['error']}"
    elif trial.state == TrialState.PRUNED:
        outcome = f"pruned after epoch {len(trial.intermediate_values)}, {plan.column} {trial.value:.4f}"
    else:
        outcome = f"{plan.column} {trial.value:.4f}"
        outcome += ", the best so far" if best and best.number == trial.number else ""
    numbers = {name: f"{value:.3g}" for name, value in trial.params.items() if isinstance(value, float)}
    parameters = ", ".join(f"{name} {value}" for name, value in (trial.params | numbers).items())
    return f"trial {trial.number}: {outcome} ({parameters})"


def _count_outcomes(trials: list[FrozenTrial]) -> dict[str, int]:
    states = Counter(trial.state for trial in trials)
    return {word: states[state] for state, word in _OUTCOMES.items()}


def _result(study: optuna.Study, plan: Plan, folder: Path) -> dict:
    """The best trial so far, its value, recipe and run, which may be on another machine."""
    trials = study.get_trials(deepcopy=False)
    best, counts = _best(trials, plan), _count_outcomes(trials)
    if not best:
        errors = [trial.user_attrs["error"] for trial in trials if "error" in trial.user_attrs]
        raise ConfigError(f"no trial of {sum(counts.values())} worked; the last one: {errors[-1]}")
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
