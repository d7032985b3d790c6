"""Training a detector: `fit`, read from top to bottom, is a training run."""

import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from ddkeras.config import Recipe
from ddkeras.exceptions import ConfigError, DivergedError
from ddkeras.interrupts import Interrupted, StopRequest
from ddkeras.models.backbones import build_trunk
from ddkeras.models.detector import build_model
from ddkeras.models.precision import dtype_policy
from ddkeras.runs import checkpoint
from ddkeras.runs.checkpoint import Position
from ddkeras.runs.run import CRITERIA, Run, has_attention, locked, new_run, view_of
from ddkeras.training import autotune, distribution
from ddkeras.training.engine import Engine
from ddkeras.training.monitor import TrainingMonitor
from ddkeras.training.tensorboard import IMAGES
from ddkeras.training.view import resolve_view
from pipelines import atomic
from pipelines.datasets.examples import LABELS
from pipelines.loading.batches import inference_batches, steps_per_epoch, training_batches
from pipelines.records import corruption, queries
from pipelines.records.store import Records, Split
from pipelines.transforms.augmenter import MIXING

_log = logging.getLogger(__name__)
_DIVERGED = 3  # times the loss of guessing
_TIMED_EVERY, _TIMED_AT = 100, 2  # steps whose augmentation is timed; the first ones compile


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
    """Train a detector on the `train` split and keep the weights of the best epoch on `validation`.

    Args:
        recipe: how to train.
        records: the data.
        runs_folder: where the run's folder is created; afterwards `latest` in it points there.
        resume: an unfinished run to continue with its own recipe, in place of a new one.
        cache: where decoded images are kept for later epochs: `memory`, `disk`, `none`, or `auto`: where they fit.
        service: address of a tf.data service that decodes the training images; it determines their order.
        verbose: 0 silent, 1 a progress bar, 2 a line per epoch.
        after_epoch: called with each new row of the history; an exception from it ends the training.

    Raises:
        ConfigError: the backbone, weights or devices are not available, or the loss became NaN.
        DivergedError: the loss stayed far above that of guessing; the run is kept, but `latest` does not point to it.
        DataError: the records lack a labelled train or validation split, or are damaged.
        Interrupted: a signal asked to stop; there is a checkpoint of the last step.
    """
    recipe = resume.recipe if resume else recipe
    strategy = distribution.create_strategy(recipe.strategy)
    records = queries.exclude_source(records, recipe.hold_out) if recipe.hold_out else records
    _check(recipe, records, strategy.num_replicas_in_sync)
    if len(records.categories) == 1 and recipe.category_weight is None and not resume:
        _log.info("%s is the only class, so there is no category head", records.categories[0])
        recipe = replace(recipe, category_weight=0.0)
    for text in records.few_images:
        _log.warning(text)
    epoch = _Epoch.of(
        records.splits["train"], recipe.batch * recipe.accumulate, undersample=recipe.balance == "undersample"
    )
    recipe = resolve_view(recipe, records)
    if recipe.view == "windows":
        _check_windows(recipe, records)
    precision, xla = autotune.resolve_auto(
        recipe.precision,
        recipe.xla,
        backbone=recipe.backbone,
        image_size=recipe.image_size,
        steps=recipe.epochs * epoch.steps,
    )
    recipe = replace(recipe, precision=precision, xla=xla)
    position, arrays = checkpoint.load(resume.folder) if resume else (Position(), None)
    engine = _build_engine(recipe, queries.class_weights(records), strategy, epoch.steps, arrays)
    with (
        corruption.locate_errors(*records.splits.values()),
        distribution.reporting_lost_workers(),
        locked(resume) if resume else new_run(Path(runs_folder), recipe, records, engine.model.count_params()) as run,
        TrainingMonitor(
            run.folder,
            epochs=recipe.epochs,
            steps=epoch.steps,
            batch_size=epoch.batch,
            verbose=verbose,
            history=position.history,
        ) as monitor,
        StopRequest() as stop,
        _checkpoint_when_interrupted(run, position, engine, epoch.steps),
    ):
        train = stop.interruptible(_training_batches(engine, records, epoch, position, cache, service))
        validation = _validation_batches(engine, records, cache)
        while position.epoch < recipe.epochs and position.waited < recipe.patience:
            logs = _train_epoch(engine, train, epoch, position, run, monitor)
            with engine.averaged_weights():
                metrics = engine.validate(stop.interruptible(validation))
                logs |= {f"val_{name}": value for name, value in metrics.items()}
                _keep_if_best(run, position, logs, engine)
            monitor.end_epoch(logs)
            position.end_epoch(monitor.history)
            checkpoint.save(run.folder, position, engine.state())
            if after_epoch:
                after_epoch(monitor.history[-1])
        checkpoint.discard(run.folder)
        _check_converged(run, monitor.history, engine.chance_loss())
    return run


def build(recipe: Recipe, categories: int, *, weights: str | None = None) -> keras.Model:
    """The initial network of a recipe; random weights follow from Keras's global seed.

    Args:
        recipe: its fields on the network.
        categories: number of classes; 0 builds no category head.
        weights: in place of the recipe's.
    """
    trunk = build_trunk(recipe.backbone, image_size=recipe.image_size, weights=weights or recipe.weights)
    return build_model(trunk, categories, dropout=recipe.dropout, attention=has_attention(recipe))


# --- setting up ------------------------------------------------------------------------------------------------


def _check(recipe: Recipe, records: Records, replicas: int) -> None:
    for split in ("train", "validation"):
        records.split(split, labelled=True)
    if recipe.category_weight and len(records.categories) < 2:
        classes = "one class" if records.categories else "no classes"
        raise ConfigError(
            f"category_weight is {recipe.category_weight}, but {records.folder} has {classes}; leave it out"
        )
    absent = [label for label in LABELS if label not in records.splits["validation"].labels]
    if recipe.keep == "auc" and absent:
        raise ConfigError(f"validation has no {absent[0]} images, and so no AUC; add some, or give --keep loss")
    if recipe.batch % replicas:
        raise ConfigError(
            f"a batch of {recipe.batch} cannot be divided among {replicas} devices; give a multiple of {replicas}: "
            "--batch"
        )


def _check_windows(recipe: Recipe, records: Records) -> None:
    if recipe.aggregate == "attention" and recipe.windows_per_image < 2:
        raise ConfigError(
            "aggregate is attention, which is learned among several windows of an image; give --windows-per-image 4, "
            "or another number of at least 2"
        )
    if recipe.category_view == "squash" and (len(records.categories) < 2 or recipe.category_weight == 0):
        raise ConfigError("category_view is squash, but there is no category head; leave it out")
    if recipe.category_view == "squash" and (mixing := MIXING & recipe.augment.keys()):
        raise ConfigError(
            f"category_view is squash, and {min(mixing)} would mix whole images with windows; leave out one of them"
        )


@dataclass(frozen=True)
class _Epoch:
    """The size of an epoch.

    Args:
        examples: number of images.
        batch: images per update.
        steps: number of updates.
    """

    examples: int
    batch: int
    steps: int

    @classmethod
    def of(cls, split: Split, batch: int, *, undersample: bool) -> "_Epoch":
        examples, steps = (steps_per_epoch(split, size, undersample=undersample) for size in (1, batch))
        return cls(examples, batch, steps)

    def images(self, step: int) -> int:
        """The number of images of a step, counted from 0."""
        return min(self.batch, self.examples - step * self.batch)


def _build_engine(
    recipe: Recipe,
    class_weights: dict[str, list[float]],
    strategy: tf.distribute.Strategy,
    steps: int,
    arrays: list[np.ndarray] | None,
) -> Engine:
    """An engine at the start of a training of so many steps per epoch, or at the checkpoint that holds `arrays`."""
    if recipe.balance != "weights":
        class_weights = {head: [1.0] * len(weights) for head, weights in class_weights.items()}
    if recipe.category_weight == 0:
        class_weights.pop("category", None)
    keras.utils.set_random_seed(recipe.seed)  # for initial weights and dropout
    with strategy.scope(), dtype_policy(recipe.precision):
        model = build(recipe, len(class_weights.get("category", [])), weights="none" if arrays else None)
        engine = Engine(model, recipe, class_weights, steps_per_epoch=steps, strategy=strategy)
        if arrays:
            engine.restore(arrays)
    return engine


def _training_batches(
    engine: Engine, records: Records, epoch: _Epoch, position: Position, cache: str, service: str
) -> Iterator:
    """All remaining batches of the training."""
    recipe = engine.recipe

    def read(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return training_batches(
            records,
            view=view_of(recipe),
            batch_size=epoch.batch,
            windows_per_image=recipe.windows_per_image,
            epochs=recipe.epochs,
            start=position.epoch * epoch.steps + position.step,
            seed=recipe.seed,
            undersample=recipe.balance == "undersample",
            cache=cache,
            service=service,
            replicas=engine.replicas,
            local_replicas=distribution.local_replicas(engine.strategy) if engine.replicas > 1 else None,
        )

    return iter(engine.strategy.distribute_datasets_from_function(read))


def _validation_batches(engine: Engine, records: Records, cache: str) -> Iterable:
    view, batch = view_of(engine.recipe), engine.recipe.batch
    # The network gets as many squares at once as in training.
    batch = max(engine.replicas, batch // view.parts)
    batches = inference_batches(records, "validation", view=view, batch_size=batch, cache=cache)
    return engine.strategy.experimental_distribute_dataset(batches) if engine.replicas > 1 else batches


# --- an epoch --------------------------------------------------------------------------------------------------


def _train_epoch(
    engine: Engine, batches: Iterator, epoch: _Epoch, position: Position, run: Run, monitor: TrainingMonitor
) -> dict[str, float]:
    """Do the remaining steps of the epoch at `position`; returns the logs of the whole epoch."""
    engine.freeze(trunk=position.epoch < engine.recipe.frozen_epochs)
    engine.sums = np.array(position.sums or [0.0] * len(engine.names))
    monitor.begin_epoch(position.epoch, position.step)
    for batch in monitor.timed("input", islice(batches, epoch.steps - position.step)):
        step = position.epoch * epoch.steps + position.step
        engine.train_step(_augment(engine, batch, step, monitor), step)
        position.step += 1
        logs = monitor.after_step(position.step, epoch.images(position.step - 1), engine.logs)
        _check_finite(logs or {}, run, position.epoch)
        if (step + 1) % engine.recipe.save_every == 0:
            _save_checkpoint(run, position, engine)
    return {**engine.logs(), "learning_rate": engine.learning_rate()}


def _augment(engine: Engine, batch, step: int, monitor: TrainingMonitor):
    """The batch as the network sees it; from time to time, the monitor is told how long that takes."""
    if step % _TIMED_EVERY != _TIMED_AT:
        return engine.augment(batch, step)
    engine.logs()  # waits for the steps in progress
    started = time.perf_counter()
    augmented = engine.augment(batch, step)
    images = engine.strategy.experimental_local_results(augmented[0])[0][:IMAGES].numpy()
    monitor.note("augment", time.perf_counter() - started)
    if step == _TIMED_AT:
        monitor.images("augmented", images)
    return augmented


def _check_finite(numbers: dict[str, float], run: Run, epoch: int) -> None:
    if all(map(math.isfinite, numbers.values())):
        return
    if not run.model_path.is_file():
        raise ConfigError("the loss became NaN before the first epoch was done; lower --learning-rate")
    raise ConfigError(
        f"the loss became NaN in epoch {epoch + 1}; the best weights until then are in {run.folder}. "
        "Lower --learning-rate, or limit the gradient: --clip-norm 1"
    )


def _check_converged(run: Run, history: list[dict[str, float]], chance: float) -> None:
    """Check that training ended, or validation ever was, near or below the loss of guessing.

    Both, as one alone may be high for a while: on validation until the BatchNorm statistics are settled.
    """
    last, best = history[-1]["loss"], min(row["val_loss"] for row in history)
    if min(last, best) > _DIVERGED * chance:
        raise DivergedError(
            f"the training diverged: the loss is {last:.3g}, and at best {best:.3g} on validation, where guessing "
            f"has {chance:.3g}; lower --learning-rate, or limit the gradient: --clip-norm 1. What it learned is in "
            f"{run.folder}"
        )


def _keep_if_best(run: Run, position: Position, logs: dict[str, float], engine: Engine) -> None:
    """Save the model atomically after an epoch that is better than all before."""
    _check_finite({"val_loss": logs["val_loss"]}, run, position.epoch)
    column, more_is_better = CRITERIA[run.recipe.keep]
    value = logs[column]
    is_best = position.best is None or (value > position.best if more_is_better else value < position.best)
    position.waited = 0 if is_best else position.waited + 1
    if is_best:
        position.best = value
        with atomic.file(run.model_path) as partial_file:
            _plain_model(engine).save(partial_file)


def _plain_model(engine: Engine) -> keras.Model:
    """The same network in float32 on one device, as it is used after training."""
    if engine.replicas == 1 and engine.recipe.precision == "float32":
        return engine.model
    with tf.distribute.get_strategy().scope(), dtype_policy("float32"):
        model = build(engine.recipe, engine.categories, weights="none")
    model.set_weights(engine.model.get_weights())
    return model


def _save_checkpoint(run: Run, position: Position, engine: Engine) -> None:
    position.sums = [float(value) for value in engine.sums]
    _check_finite(dict(zip(engine.names, position.sums, strict=True)), run, position.epoch)
    checkpoint.save(run.folder, position, engine.state())


@contextmanager
def _checkpoint_when_interrupted(run: Run, position: Position, engine: Engine, steps: int) -> Iterator[None]:
    try:
        yield
    except Interrupted as error:
        place = f"stopped in epoch {position.epoch + 1} of {run.recipe.epochs} after step {position.step} of {steps}"
        if distribution.worker_count() == 1:  # with several, the others may be waiting for the next step
            _save_checkpoint(run, position, engine)
        raise Interrupted(f"{place}; continue with: ddk fit --resume {run.folder}") from error
