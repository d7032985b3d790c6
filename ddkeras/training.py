"""Training a detector: `fit`, read from top to bottom, is the recipe of a training run."""

import os
from pathlib import Path

import keras
import tensorflow as tf

from ddkeras import runs
from ddkeras.backbones import build_trunk
from ddkeras.config import Recipe
from ddkeras.devices import xla_pays
from ddkeras.errors import ConfigError
from ddkeras.losses import BinaryCrossEntropy, CategoricalCrossEntropy
from ddkeras.metrics import authenticity_hits, category_hits
from ddkeras.model import build_model
from pipelines import atomic, damage, reading
from pipelines.augmentation import Augmenter
from pipelines.records import Records


def fit(
    recipe: Recipe,
    records: Records,
    runs_folder: str | os.PathLike,
    *,
    cache: str = "auto",
    service: str = "",
    verbose: int = 1,
) -> runs.Run:
    """Train one detector on the `train` split and keep the weights with the best loss on `validation`.

    Args:
        recipe: how.
        records: on what.
        runs_folder: where the run's folder is made; `latest` in it points there afterwards.
        cache: where decoded images are kept for later epochs: `memory`, `disk`, `none`, or `auto`: where they fit.
        service: the address of a tf.data service that decodes the training images; then in an order of its own.
        verbose: as Keras has it: 0 silent, 1 a progress bar, 2 a line per epoch.

    Raises:
        ConfigError: backbone or weights cannot be had, or the loss became NaN before an epoch was done.
        DataError: the records lack a labelled train or validation split, or are damaged.
    """
    for split in ("train", "validation"):
        records.split(split, labelled=True)
    keras.utils.set_random_seed(recipe.seed)  # of weights and dropout
    batches = {"image_size": recipe.image_size, "batch_size": recipe.batch_size, "cache": cache}
    train = reading.training(records, epochs=recipe.epochs, seed=recipe.seed, service=service, **batches)
    steps = reading.steps(records.splits["train"], recipe.batch_size)
    validation = reading.inference(records, "validation", **batches)
    model = build(recipe, len(records.categories))
    learner = Learner(model, Augmenter(recipe.augment, recipe.image_size, seed=recipe.seed))
    compile_model(
        learner, recipe, reading.class_weights(records), steps_per_epoch=steps, compiles=learner.augment.compiles
    )
    with damage.named(*records.splits.values()):
        learner.evaluate(
            validation.take(1), verbose=0
        )  # makes the metrics: in the first step they cost a second trace

    with damage.named(*records.splits.values()), runs.new_run(Path(runs_folder), recipe, records) as run:
        callbacks = [
            keras.callbacks.TerminateOnNaN(),
            KeepBest(model, run.model_path),
            keras.callbacks.CSVLogger(run.folder / "history.csv"),
            keras.callbacks.EarlyStopping("val_loss", patience=recipe.patience),
        ]
        learner.fit(
            train,
            validation_data=validation,
            epochs=recipe.epochs,
            steps_per_epoch=steps,
            callbacks=callbacks,
            shuffle=False,  # the dataset does it
            verbose=verbose,
        )
        if not run.model_path.is_file():
            raise ConfigError("the loss became NaN before one epoch was done; lower --learning-rate")
    return run


def build(recipe: Recipe, categories: int) -> keras.Model:
    """The model that `recipe` begins with, with so many classes; random weights come from Keras's global seed."""
    trunk = build_trunk(recipe.backbone, image_size=recipe.image_size, weights=recipe.weights)
    return build_model(trunk, categories, dropout=recipe.dropout)


class Learner(keras.Model):
    """`model` as it is trained: on augmented batches in training, by itself otherwise, on the same weights."""

    def __init__(self, model: keras.Model, augment: Augmenter):
        super().__init__(name=f"{model.name}_learner")
        self.model = model
        self.augment = augment
        # By itself, where the network is not compiled too: on a CPU it pays here three times over.
        self.augment_images = tf.function(augment, jit_compile=True) if augment.compiles else augment
        self.model_of_crops = model
        if augment.size != model.input_shape[1]:
            crops = keras.Input((augment.size, augment.size, 3), name="images")
            self.model_of_crops = keras.models.clone_model(model, crops, clone_function=lambda layer: layer)

    def call(self, images, training=False):
        return (self.model_of_crops if training else self.model)(images, training=training)

    def train_step(self, data):
        """One step on a batch of (images, targets, weights), which it augments outside of what is differentiated."""
        return super().train_step(self.augmented(*data, step=tf.convert_to_tensor(self.optimizer.iterations)))

    def augmented(self, images, targets: dict, weights: dict, *, step):
        """The batch that the step of that number sees."""
        classes = self.model.output["category"].shape[1] if "category" in targets else 0
        return self.augment.mix(self.augment_images(images, step=step), targets, weights, classes, step=step)


def compile_model(
    model: keras.Model,
    recipe: Recipe,
    class_weights: dict[str, list[float]],
    steps_per_epoch: int,
    *,
    compiles: bool = True,
) -> None:
    """Give `model` its optimizer (AdamW, linear warm-up, cosine decay to 0), a loss and an accuracy per head.

    Args:
        compiles: whether XLA can compile all that a step does.
    """
    steps = recipe.epochs * steps_per_epoch
    warmup_steps = round(recipe.warmup * steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=recipe.learning_rate,
        warmup_steps=warmup_steps,
        decay_steps=steps - warmup_steps,
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=recipe.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    optimizer.build(model.trainable_variables)  # not within the first step, which would be traced twice
    losses = {"authenticity": BinaryCrossEntropy, "category": CategoricalCrossEntropy}
    accuracies = {
        "authenticity": lambda: keras.metrics.MeanMetricWrapper(authenticity_hits, name="accuracy"),
        "category": lambda: keras.metrics.MeanMetricWrapper(category_hits, name="accuracy"),
    }
    model.compile(
        optimizer,
        loss={head: losses[head](weights) for head, weights in class_weights.items()},
        # Weighted by the records' 0 or 1: an example without a category does not count as a wrong one.
        weighted_metrics={head: [accuracies[head]()] for head in class_weights},
        jit_compile=xla_pays() and compiles,
    )


class KeepBest(keras.callbacks.Callback):
    """Save the model, whole or not at all, after each epoch with a lower validation loss than any before."""

    def __init__(self, model: keras.Model, path: Path):
        super().__init__()
        self.to_save = model  # not the one in training, whose optimizer would triple the file
        self.path = path
        self.best = float("inf")

    def on_epoch_end(self, epoch, logs=None):
        if logs["val_loss"] < self.best:
            self.best = logs["val_loss"]
            with atomic.file(self.path) as partial:
                self.to_save.save(partial)
