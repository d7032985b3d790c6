"""Training a detector: `fit`, read from top to bottom, is what happens in a training run."""

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from ddkeras.config import Recipe
from ddkeras.exceptions import ConfigError
from ddkeras.interrupts import Interrupted, StopRequest
from ddkeras.models import precision
from ddkeras.models.backbones import build_trunk
from ddkeras.models.detector import build_model
from ddkeras.runs import checkpoint
from ddkeras.runs.checkpoint import Position
from ddkeras.runs.run import CRITERIA, Run, new_run, taken_up
from ddkeras.training import autotune, distribution
from ddkeras.training.engine import Engine
from ddkeras.training.monitor import TrainingMonitor
from ddkeras.training.tensorboard import IMAGES
from pipelines import atomic
from pipelines.loading.batches import inference_batches, steps_per_epoch, training_batches
from pipelines.records import corruption, queries
from pipelines.records.store import Records

_TIMED_EVERY, _TIMED_AT = 100, 2  # steps; the first ones compile


def fit(
    recipe: Recipe,
    records: Records,
    runs_folder: str | os.PathLike,
    *,
    resume: Run | None = None,
    cache: str = "auto",
    service: str = "",
    verbose: int = 1,
    after_epoch: Callable[[dict], None] | None = None,
) -> Run:
    """Train one detector on the `train` split and keep the weights of the best epoch on `validation`.

    Args:
        recipe: how.
        records: on what.
        runs_folder: where the run's folder is made; `latest` in it points there afterwards.
        resume: an unfinished run to go on with, by its own recipe, in place of a new one.
        cache: where decoded images are kept for later epochs: `memory`, `disk`, `none`, or `auto`: where they fit.
        service: the address of a tf.data service that decodes the training images; then in an order of its own.
        verbose: 0 silent, 1 a progress bar, 2 a line per epoch.
        after_epoch: is given each row of the history when its epoch is over; what it raises ends the training.

    Raises:
        ConfigError: backbone, weights or devices cannot be had, or the loss is no longer a number.
        DataError: the records lack a labelled train or validation split, or are damaged.
        Interrupted: a signal asked to stop; there is a checkpoint of the last step.
    """
    recipe = resume.recipe if resume else recipe
    strategy = distribution.strategy(recipe.strategy)
    records = queries.exclude_source(records, recipe.hold_out) if recipe.hold_out else records
    epoch = _Epoch.of(recipe, records, strategy)
    recipe = autotune.resolve_auto(recipe, recipe.epochs * epoch.steps)
    position, arrays = checkpoint.load(resume.folder) if resume else (Position(), None)
    engine = _engine(recipe, records, strategy, epoch, arrays)
    begun = partial(new_run, Path(runs_folder), recipe, records, engine.model.count_params())
    with (
        corruption.locate_errors(*records.splits.values()),
        distribution.lost_ones_named(),
        taken_up(resume) if resume else begun() as run,
        TrainingMonitor(
            run.folder, **epoch.numbers, epochs=recipe.epochs, verbose=verbose, history=position.history
        ) as watch,
        StopRequest() as stop,
        _saved_when_interrupted(run, position, engine, epoch.steps),
    ):
        train = stop.until(_training_batches(engine, records, epoch, position, cache, service))
        validation = _validation_batches(engine, records, cache)
        while position.epoch < recipe.epochs and position.waited < recipe.patience:
            logs = _train_an_epoch(engine, train, epoch, position, run, watch)
            with engine.averaged():
                logs |= {f"val_{name}": value for name, value in engine.validate(stop.until(validation)).items()}
                _keep_if_best(run, position, logs, engine)
            watch.end_epoch(logs)
            position.end_epoch(watch.history)
            checkpoint.save(run.folder, position, engine.state())
            if after_epoch:
                after_epoch(watch.history[-1])
        checkpoint.discard(run.folder)
    return run


def build(recipe: Recipe, categories: int, *, weights: str | None = None) -> keras.Model:
    """The model that `recipe` begins with, with so many classes; random weights come from Keras's global seed."""
    trunk = build_trunk(recipe.backbone, image_size=recipe.image_size, weights=weights or recipe.weights)
    return build_model(trunk, categories, dropout=recipe.dropout)


# --- what is trained, and on what ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Epoch:
    """How many images an epoch has, how many of them an update sees, and how many updates that makes."""

    examples: int
    batch: int
    steps: int

    @classmethod
    def of(cls, recipe: Recipe, records: Records, strategy: tf.distribute.Strategy) -> "_Epoch":
        for split in ("train", "validation"):
            records.split(split, labelled=True)
        if recipe.category_weight and not records.categories:
            raise ConfigError(
                f"category_weight is {recipe.category_weight}, but {records.folder} has no classes; leave it out"
            )
        if recipe.batch % strategy.num_replicas_in_sync:
            raise ConfigError(
                f"a batch of {recipe.batch} cannot be divided among {strategy.num_replicas_in_sync} devices; give a "
                "multiple of that: --batch"
            )
        split, undersample = records.splits["train"], recipe.balance == "undersample"
        batch = recipe.batch * recipe.accumulate
        return cls(
            steps_per_epoch(split, 1, undersample=undersample),
            batch,
            steps_per_epoch(split, batch, undersample=undersample),
        )

    @property
    def numbers(self) -> dict[str, int]:
        return {"steps": self.steps, "batch_size": self.batch}

    def images(self, step: int) -> int:
        """How many the step of that number, from 0, sees."""
        return min(self.batch, self.examples - step * self.batch)


def _engine(recipe: Recipe, records: Records, strategy, epoch: _Epoch, arrays: list | None) -> Engine:
    """What begins a training, or with the `arrays` of a checkpoint goes on with it."""
    class_weights = queries.class_weights(records)
    if recipe.balance != "weights":
        class_weights = {head: [1.0] * len(weights) for head, weights in class_weights.items()}
    if recipe.category_weight == 0:
        class_weights.pop("category", None)
    keras.utils.set_random_seed(recipe.seed)  # of weights and dropout
    with strategy.scope(), precision.computing_in(recipe.precision):
        model = build(recipe, len(class_weights.get("category", [])), weights="none" if arrays else None)
        engine = Engine(model, recipe, class_weights, steps_per_epoch=epoch.steps, strategy=strategy)
        if arrays:
            engine.restore(arrays)
    return engine


def _training_batches(
    engine: Engine, records: Records, epoch: _Epoch, position: Position, cache: str, service: str
) -> Iterator:
    """All that are left of the training, one after the other."""
    recipe, is_shared = engine.recipe, engine.replicas > 1
    own = (
        {"replicas": engine.replicas, "local_replicas": distribution.own_parts(engine.strategy)} if is_shared else {}
    )

    def read(context) -> tf.data.Dataset:
        return training_batches(
            records,
            image_size=recipe.image_size,
            batch_size=epoch.batch,
            epochs=recipe.epochs,
            start=position.epoch * epoch.steps + position.step,
            seed=recipe.seed,
            undersample=recipe.balance == "undersample",
            cache=cache,
            service=service,
            **own,
        )

    return iter(engine.strategy.distribute_datasets_from_function(read))


def _validation_batches(engine: Engine, records: Records, cache: str) -> Iterable:
    recipe = engine.recipe
    batches = inference_batches(
        records, "validation", image_size=recipe.image_size, batch_size=recipe.batch, cache=cache
    )
    return engine.strategy.experimental_distribute_dataset(batches) if engine.replicas > 1 else batches


# --- an epoch --------------------------------------------------------------------------------------------------


def _train_an_epoch(
    engine: Engine, batches: Iterator, epoch: _Epoch, position: Position, run: Run, watch: TrainingMonitor
) -> dict[str, float]:
    """Do the steps that `position` says are left of its epoch; the logs of all of it."""
    engine.freeze(trunk=position.epoch < engine.recipe.frozen_epochs)
    engine.sums = np.array(position.sums or [0.0] * len(engine.names))
    watch.begin_epoch(position.epoch, position.step)
    for batch in watch.timed("input", islice(batches, epoch.steps - position.step)):
        number = position.epoch * epoch.steps + position.step
        augmented = _augmented(engine, batch, number, watch)
        engine.learn(augmented, number)
        position.step += 1
        logs = watch.after_step(position.step, epoch.images(position.step - 1), engine.logs)
        _look_for_numbers(logs or {}, position, run)
        if (number + 1) % engine.recipe.save_every == 0:
            _save(run, position, engine)
    return {**engine.logs(), "learning_rate": engine.learning_rate()}


def _augmented(engine: Engine, batch, number: int, watch: TrainingMonitor):
    """The batch as the network sees it; now and then it is told what that costs."""
    if number % _TIMED_EVERY != _TIMED_AT:
        return engine.augmented(batch, number)
    engine.logs()  # steps are only begun, and done later: wait for them
    begun = time.perf_counter()
    augmented = engine.augmented(batch, number)
    images = engine.strategy.experimental_local_results(augmented[0])[0][:IMAGES].numpy()
    watch.note("augment", time.perf_counter() - begun)
    if number == _TIMED_AT:
        watch.images("augmented", images)
    return augmented


def _look_for_numbers(logs: dict[str, float], position: Position, run: Run) -> None:
    if all(map(math.isfinite, logs.values())):
        return
    if not run.model_path.is_file():
        raise ConfigError("the loss became NaN before one epoch was done; lower --learning-rate")
    raise ConfigError(
        f"the loss became NaN in epoch {position.epoch + 1}; the best weights until then are in {run.folder}. "
        "Lower --learning-rate, or limit the gradient: --clip-norm 1"
    )


def _keep_if_best(run: Run, position: Position, logs: dict[str, float], engine: Engine) -> None:
    """Save the model, whole or not at all, after an epoch that is better than any before."""
    _look_for_numbers({"val_loss": logs["val_loss"]}, position, run)
    column, more_is_better = CRITERIA[run.recipe.keep]
    value = logs[column]
    if math.isnan(value):
        raise ConfigError(f"{column} cannot be had: validation has images of one label alone; choose by loss: --keep")
    is_best = position.best is None or (value > position.best if more_is_better else value < position.best)
    position.waited = 0 if is_best else position.waited + 1
    if is_best:
        position.best = value
        with atomic.file(run.model_path) as partial:
            _plain_model(engine).save(partial)


def _plain_model(engine: Engine) -> keras.Model:
    """The same network in float32 on one device: as it is used from then on."""
    if engine.replicas == 1 and engine.recipe.precision == "float32":
        return engine.model
    with tf.distribute.get_strategy().scope(), precision.computing_in("float32"):
        model = build(engine.recipe, engine.categories, weights="none")
    model.set_weights(engine.model.get_weights())
    return model


def _save(run: Run, position: Position, engine: Engine) -> None:
    position.sums = [float(value) for value in engine.sums]
    _look_for_numbers(dict(zip(engine.names, position.sums, strict=True)), position, run)
    checkpoint.save(run.folder, position, engine.state())


@contextmanager
def _saved_when_interrupted(run: Run, position: Position, engine: Engine, steps: int) -> Iterator[None]:
    try:
        yield
    except Interrupted as error:
        where = f"stopped in epoch {position.epoch + 1} of {run.recipe.epochs} after step {position.step} of {steps}"
        if distribution.workers() == 1:  # of several, the others may be waiting for the next step
            _save(run, position, engine)
        raise Interrupted(f"{where}; go on with: ddk fit --resume {run.folder}") from error
