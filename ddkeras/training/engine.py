"""One step of a training, and one look at validation, on however many devices.

`training.fit` says what happens when; the `Engine` does it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from ddkeras.config import Recipe
from ddkeras.metrics import classification
from ddkeras.models.detector import HEADS
from ddkeras.training import losses, metrics
from ddkeras.training.optimizers import build_optimizer
from ddkeras.training.schedules import Schedule
from pipelines.transforms.augmenter import Augmenter

_LOSSES = {
    "cross_entropy": losses.binary_cross_entropy,
    "focal": losses.focal,
    "squared_error": losses.squared_error,
}
_HITS = {"authenticity": metrics.authenticity_hits, "category": metrics.category_hits}
_COUNTED = ("loss", "hits", "weight")


class Engine:
    """A model in training: made, and its methods called, within the scope of its strategy.

    Args:
        model: from `training.build`, thawed and frozen as the training goes on.
        recipe: with `precision` and `xla` settled.
        class_weights: of each head that is trained.
        steps_per_epoch: updates in an epoch.
        strategy: of the devices it is trained on.
    """

    def __init__(
        self,
        model: keras.Model,
        recipe: Recipe,
        class_weights: dict[str, list[float]],
        *,
        steps_per_epoch: int,
        strategy: tf.distribute.Strategy,
    ):
        self.model, self.recipe, self.strategy = model, recipe, strategy
        self.replicas = strategy.num_replicas_in_sync
        self.losses = _losses(recipe, class_weights)
        self.head_weights = {"authenticity": recipe.authenticity_weight, "category": recipe.category_weight or 1.0}
        self.augment = Augmenter(recipe.augment, recipe.image_size, seed=recipe.seed)
        # By itself, where the network is not compiled too: on a CPU it pays here three times over.
        self.augment_images = tf.function(self.augment, jit_compile=True) if self.augment.compiles else self.augment
        self.network = _at_size(model, self.augment.size)
        self._is_frozen: bool | None = None
        self.freeze(trunk=False)
        self._schedule = _schedule(recipe, steps_per_epoch)
        self.optimizer = build_optimizer(recipe, model, self._schedule, self.replicas)
        self.optimizer.build(self.variables)  # of all, those that are frozen at first too
        self.averaged_variables = self.variables if recipe.ema else []
        self.averages = [tf.Variable(v.value, trainable=False) for v in self.averaged_variables]
        self.categories = len(class_weights.get("category", []))
        self._augment = None
        self._scored = tf.function(self._score_everywhere, reduce_retracing=True)
        self.names = ["loss", "examples", *(f"{head}_{what}" for head in self.losses for what in _COUNTED)]
        self.sums = np.zeros(len(self.names))  # of these, over the examples of an epoch so far

    # --- state -------------------------------------------------------------------------------------------------

    def freeze(self, *, trunk: bool) -> None:
        """Train the heads alone, or all but what the recipe freezes for good."""
        if trunk == self._is_frozen:
            return  # the step need not be traced again
        self._is_frozen = trunk
        for layer in self.model.layers:
            is_norm = isinstance(layer, keras.layers.BatchNormalization)
            layer.trainable = layer.name in HEADS or not (trunk or (is_norm and self.recipe.freeze_norms))
        self.variables = self.model.trainable_variables
        self._update = None

    def state(self) -> list[np.ndarray]:
        """All numbers that steps change, to be given to `restore`."""
        return [np.asarray(variable) for variable in self._changing()]

    def restore(self, arrays: list[np.ndarray]) -> None:
        """Be as an engine of the same recipe was when it gave its `state`."""
        for variable, array in zip(self._changing(), arrays, strict=True):
            variable.assign(array)

    def _changing(self) -> list:
        return [*self.model.variables, *self.optimizer.variables, *self.averages]

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """In the block the model has the average of its weights, where the recipe asks for one."""
        own = [variable.numpy() for variable in self.averaged_variables]
        for variable, average in zip(self.averaged_variables, self.averages, strict=True):
            variable.assign(average)
        try:
            yield
        finally:
            for variable, value in zip(self.averaged_variables, own, strict=True):
                variable.assign(value)

    # --- steps -------------------------------------------------------------------------------------------------

    def augmented(self, batch, number: int):
        """What the network sees of a batch.

        Args:
            batch: images, targets and weights, as `pipelines.loading.batches.training` has them, of each replica.
            number: of the step in the training, from 0; all that is random follows from it.
        """
        if self._augment is None:
            self._augment = self._traced(self._augment_everywhere, batch)
        return self._augment(batch, tf.constant(number, tf.int64))

    def learn(self, batch, number: int) -> None:
        """Learn from a batch that was `augmented` for the step of that number."""
        if self._update is None:
            self._update = self._traced(self._update_everywhere, batch)
        sums = self._update(batch, tf.constant(number, tf.int64))
        self.sums = self.sums + tf.cast(sums, tf.float64)  # only begun: nobody waits for it here

    def logs(self) -> dict[str, float]:
        """Losses and accuracies of what `sums` counted; waits for the steps that were begun."""
        return _means(dict(zip(self.names, map(float, self.sums), strict=True)))

    def learning_rate(self) -> float:
        """Of the last step."""
        return float(self._schedule(max(int(self.optimizer.iterations.numpy()) - 1, 0)))

    def _traced(self, step: Callable, batch) -> Callable:
        signature = None
        if self.replicas == 1:
            # Batches differ in length at the end of an epoch alone, which is not worth a second trace.
            signature = (tree.map_structure(_of_any_length, batch), tf.TensorSpec((), tf.int64))
        return tf.function(step, input_signature=signature, reduce_retracing=True)

    def _augment_everywhere(self, batch, number):
        return self.strategy.run(self._augment_on_replica, args=(*batch, number))

    def _update_everywhere(self, batch, number):
        sums = self.strategy.reduce("SUM", self.strategy.run(self._update_on_replica, args=batch), axis=None)
        self._update_averages(number)
        return sums

    def _augment_on_replica(self, images, targets, weights, number):
        """What one device makes of its part of a batch."""
        context = tf.distribute.get_replica_context()
        all_images = self._sum_of_all(tf.shape(images)[0])
        first = tf.cast(context.replica_id_in_sync_group, tf.int32) * all_images // self.replicas
        targets = {head: targets[head] for head in self.losses}
        weights = {head: weights[head] for head in self.losses}
        images = self.augment_images(images, step=number, first=first)
        return self.augment.mix(images, targets, weights, self.categories, step=number, first=first)

    def _update_on_replica(self, images, targets, weights):
        """The part that one device has in a step."""
        batch = (images, targets, weights)
        # Images with a weight: so the loss is the same however the batch is divided.
        examples = self._sum_of_all(tf.reduce_sum(weights["authenticity"]))
        if self.recipe.accumulate == 1:
            gradients, sums = self._compiled(self._differentiated)(*batch, examples)
        else:
            gradients, sums = self._accumulated(batch, examples)
        if self.replicas > 1 and (self.recipe.clip_norm or self.recipe.precision == "mixed_float16"):
            # These have to know of the whole gradient: its length, and whether it is finite. The optimizer will add
            # up those of all devices once more.
            gradients = [gradient / self.replicas for gradient in self._sum_of_all(gradients)]
        self.optimizer.apply(gradients, self.variables)
        return tf.stack([sums[name] for name in self.names])

    def _sum_of_all(self, values):
        """Over the devices."""
        if self.replicas == 1:
            return values  # TensorFlow would do nothing, and keep the step in memory until the process ends
        return tf.distribute.get_replica_context().all_reduce("SUM", values)

    def _accumulated(self, batch, examples):
        """The gradients of one micro-batch after the other, added up."""
        size, differentiated = -(-self.recipe.batch // self.replicas), self._compiled(self._differentiated)
        gradients = [tf.zeros(variable.shape) for variable in self.variables]
        sums = {name: tf.zeros(()) for name in self.names}
        for begin in tf.range(0, tf.shape(batch[0])[0], size):
            micro = tree.map_structure(lambda values: values[begin : begin + size], batch)  # noqa: B023
            more, counted = differentiated(*micro, examples)
            gradients = [a + b for a, b in zip(gradients, more, strict=True)]
            sums = {name: sums[name] + counted[name] for name in sums}
        return gradients, sums

    def _compiled(self, function: Callable) -> Callable:
        """By XLA, if the recipe says so; made anew for each replica, as it holds on to the variables it has seen.

        By itself, because what is done between devices cannot be compiled with it.
        """
        return tf.function(function, jit_compile=True) if self.recipe.xla == "on" else function

    def _differentiated(self, images, targets, weights, examples):
        with tf.GradientTape() as tape:
            sums = self._counted(self.network(images, training=True), targets, weights)
            loss = self.optimizer.scale_loss(sums["loss"] / examples)
        return tape.gradient(loss, self.variables), sums

    def _counted(self, logits, targets, weights) -> dict[str, tf.Tensor]:
        """Sums over the examples of a batch: what `_means` makes means of."""
        sums = {"loss": tf.zeros(()), "examples": tf.reduce_sum(weights["authenticity"])}
        for head, loss in self.losses.items():
            weight = weights[head]
            sums[f"{head}_loss"] = tf.reduce_sum(weight * loss(targets[head], logits[head]))
            sums[f"{head}_hits"] = tf.reduce_sum(weight * _HITS[head](targets[head], logits[head]))
            sums[f"{head}_weight"] = tf.reduce_sum(weight)
            sums["loss"] += self.head_weights[head] * sums[f"{head}_loss"]
        return sums

    def _update_averages(self, number) -> None:
        # A short memory at first, as in tf.train.ExponentialMovingAverage: the first weights have not learned.
        number = tf.cast(number, tf.float32)
        memory = tf.minimum(self.recipe.ema, (1 + number) / (10 + number))
        for variable, average in zip(self.averaged_variables, self.averages, strict=True):
            self.strategy.extended.update(
                average, lambda old, new: old.assign(old + (1 - memory) * (new - old)), args=(variable.value,)
            )

    # --- validation --------------------------------------------------------------------------------------------

    def validate(self, batches: Iterable) -> dict[str, float]:
        """Losses, accuracies and AUC on batches of `pipelines.loading.batches.inference`, by the current weights."""
        parts = [tree.map_structure(np.asarray, self._scored(*batch)) for batch in batches]
        logits, targets, weights = tree.map_structure(lambda *arrays: np.concatenate(arrays), *parts)
        sums = {name: float(value) for name, value in self._counted(logits, targets, weights).items()}
        known = weights["authenticity"] > 0
        auc = classification.auc(targets["authenticity"][known, 0], logits["authenticity"][known, 0])
        return _means(sums) | {"authenticity_auc": auc}

    def _score_everywhere(self, images, targets, weights):
        scored = (self.strategy.run(self._score_on_replica, args=(images,)), targets, weights)
        if self.replicas == 1:
            return scored
        return tree.map_structure(lambda values: self.strategy.gather(values, axis=0), scored)

    def _score_on_replica(self, images):
        return self._compiled(partial(self.model, training=False))(images)


# --- parts of an engine ----------------------------------------------------------------------------------------


def _losses(recipe: Recipe, class_weights: dict[str, list[float]]) -> dict[str, Callable]:
    """The loss of each head, (batch,), as a function of labels and logits."""
    options = {"label_smoothing": recipe.label_smoothing}
    gamma = {"gamma": recipe.focal_gamma} if recipe.loss == "focal" else {}
    functions = {
        "authenticity": partial(_LOSSES[recipe.loss], **options, **gamma),
        "category": partial(losses.categorical_cross_entropy, **options),
    }
    return {head: partial(functions[head], class_weights=weights) for head, weights in class_weights.items()}


def _at_size(model: keras.Model, size: int) -> keras.Model:
    """The same layers for images of another size."""
    if size == model.input_shape[1]:
        return model
    images = keras.Input((size, size, 3), name="images")
    return keras.models.clone_model(model, images, clone_function=lambda layer: layer)


def _schedule(recipe: Recipe, steps_per_epoch: int) -> Schedule:
    steps = recipe.epochs * steps_per_epoch
    return Schedule(
        recipe.schedule,
        recipe.learning_rate,
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        warmup_steps=round(recipe.warmup * steps),
        decay=recipe.decay,
        decay_epochs=recipe.decay_epochs,
        thaw_step=recipe.frozen_epochs * steps_per_epoch,
        thaw_factor=recipe.thaw_factor,
    )


def _of_any_length(values) -> tf.TensorSpec:
    return tf.TensorSpec((None, *values.shape[1:]), values.dtype)


def _means(sums: dict[str, float]) -> dict[str, float]:
    """Losses and accuracies of the sums that `Engine` counts."""
    heads = [name.removesuffix("_hits") for name in sums if name.endswith("_hits")]
    logs = {"loss": _ratio(sums["loss"], sums["examples"])}
    for head in heads:
        logs[f"{head}_loss"] = _ratio(sums[f"{head}_loss"], sums[f"{head}_weight"])
        logs[f"{head}_accuracy"] = _ratio(sums[f"{head}_hits"], sums[f"{head}_weight"])
    return logs


def _ratio(sum_of_all: float, weight: float) -> float:
    return sum_of_all / weight if weight else float("nan")
