"""Training steps and validation passes, on one or more devices.

`loop.fit` decides what happens when; the `Engine` does it.
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
from ddkeras.models.aggregation import aggregate
from ddkeras.models.detector import HEAD_LAYERS
from ddkeras.runs.run import squares_per_image, view_of
from ddkeras.training import metrics
from ddkeras.training.losses import head_losses
from ddkeras.training.optimizers import build_optimizer, layer_factors
from ddkeras.training.schedules import Schedule
from pipelines.transforms.augmenter import Augmenter
from pipelines.views import Windowed, flat

_HITS = {"authenticity": metrics.authenticity_hits, "category": metrics.category_hits}
_HEAD_SUMS = ("loss", "hits", "weight")


class Engine:
    """A model in training. It is created, and its methods are called, in the scope of its strategy.

    Args:
        model: from `loop.build`; its layers are frozen and unfrozen during training.
        recipe: with `precision` and `xla` resolved, see `autotune.resolve_auto`.
        class_weights: of each head that is trained.
        steps_per_epoch: updates per epoch.
        strategy: over the devices to train on.

    Attributes:
        names: of the sums that training accumulates.
        sums: float64 (names,), their values over the examples of the epoch so far.
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
        self.categories = len(class_weights.get("category", []))
        self.losses = head_losses(
            recipe.loss, class_weights, focal_gamma=recipe.focal_gamma, label_smoothing=recipe.label_smoothing
        )
        self.head_weights = {"authenticity": recipe.authenticity_weight, "category": recipe.category_weight or 1.0}
        self.augmenter = Augmenter(recipe.augment, recipe.image_size, seed=recipe.seed)
        # Compiled even where the network is not: on a CPU augmentation becomes three times as fast.
        self.augment_images = (
            tf.function(self.augmenter, jit_compile=True) if self.augmenter.compiles else self.augmenter
        )
        self.network = _resized(model, self.augmenter.size)
        self._is_frozen: bool | None = None
        self.freeze(trunk=False)
        self._schedule = _schedule(recipe, steps_per_epoch)
        self.optimizer = build_optimizer(
            recipe.optimizer,
            self._schedule,
            factors=layer_factors(model, recipe.layer_decay),
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
            clip_norm=recipe.clip_norm,
            replicas=self.replicas,
            loss_scaling=recipe.precision == "mixed_float16",
        )
        self.optimizer.build(self.variables)  # with all variables, also those frozen at first
        self.averaged_variables = self.variables if recipe.ema else []
        self.averages = [tf.Variable(v.value, trainable=False) for v in self.averaged_variables]
        self._traced_augment: Callable | None = None
        self._traced_score = tf.function(self._score_on_replicas, reduce_retracing=True)
        self.names = ["loss", "examples", *(f"{head}_{name}" for head in self.losses for name in _HEAD_SUMS)]
        self.sums = np.zeros(len(self.names))

    # --- state -------------------------------------------------------------------------------------------------

    def freeze(self, *, trunk: bool) -> None:
        """Train the heads alone, or all layers but those the recipe keeps frozen."""
        if trunk == self._is_frozen:
            return  # without tracing the step again
        self._is_frozen = trunk
        for layer in self.model.layers:
            is_norm = isinstance(layer, keras.layers.BatchNormalization)
            layer.trainable = layer.name in HEAD_LAYERS or not (trunk or (is_norm and self.recipe.freeze_norms))
        self.variables = self.model.trainable_variables
        self._traced_update: Callable | None = None

    def state(self) -> list[np.ndarray]:
        """All values that training steps change, for `restore`."""
        return [np.asarray(variable) for variable in self._state_variables()]

    def restore(self, arrays: list[np.ndarray]) -> None:
        """Set the state of an engine of the same recipe, as `state` gave it."""
        for variable, array in zip(self._state_variables(), arrays, strict=True):
            variable.assign(array)

    def _state_variables(self) -> list:
        return [*self.model.variables, *self.optimizer.variables, *self.averages]

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """In this context the model has the moving average of its weights, if the recipe asks for one."""
        trained = [variable.numpy() for variable in self.averaged_variables]
        for variable, average in zip(self.averaged_variables, self.averages, strict=True):
            variable.assign(average)
        try:
            yield
        finally:
            for variable, value in zip(self.averaged_variables, trained, strict=True):
                variable.assign(value)

    # --- steps -------------------------------------------------------------------------------------------------

    def augment(self, batch, step: int):
        """The batch as the network sees it.

        Args:
            batch: images, targets and weights of each replica, see `pipelines.loading.batches.training_batches`.
            step: number of the training step, from 0; it determines all random draws.
        """
        if self._traced_augment is None:
            self._traced_augment = self._trace(self._augment_on_replicas, batch)
        return self._traced_augment(batch, tf.constant(step, tf.int64))

    def train_step(self, batch, step: int) -> None:
        """Update the weights from a batch that was augmented for that step."""
        if self._traced_update is None:
            self._traced_update = self._trace(self._update_on_replicas, batch)
        sums = self._traced_update(batch, tf.constant(step, tf.int64))
        self.sums = self.sums + tf.cast(sums, tf.float64)  # asynchronous: does not wait for the step

    def logs(self) -> dict[str, float]:
        """Mean losses and accuracies of the epoch so far; waits for the steps in progress."""
        return _means(dict(zip(self.names, map(float, self.sums), strict=True)))

    def learning_rate(self) -> float:
        """The learning rate of the last step."""
        return float(self._schedule(max(int(self.optimizer.iterations.numpy()) - 1, 0)))

    def _trace(self, function: Callable, batch) -> Callable:
        signature = None
        if self.replicas == 1:
            # Only the last batch of an epoch has another length, which is not worth a second trace.
            signature = (tree.map_structure(_any_length, batch), tf.TensorSpec((), tf.int64))
        return tf.function(function, input_signature=signature, reduce_retracing=True)

    def _augment_on_replicas(self, batch, step):
        return self.strategy.run(self._augment_on_replica, args=(*batch, step))

    def _update_on_replicas(self, batch, step):
        sums = self.strategy.reduce("SUM", self.strategy.run(self._update_on_replica, args=batch), axis=None)
        self._update_averages(step)
        return sums

    def _augment_on_replica(self, images, targets, weights, step):
        context = tf.distribute.get_replica_context()
        squares = squares_per_image(self.recipe)  # those of an image are on one replica
        batch_size = self._sum_over_replicas(tf.shape(images)[0]) // squares
        first = tf.cast(context.replica_id_in_sync_group, tf.int32) * batch_size // self.replicas * squares
        targets = {head: targets[head] for head in self.losses}
        weights = {head: weights[head] for head in self.losses}
        images = self.augment_images(images, step=step, first=first)
        return self.augmenter.mix(images, targets, weights, self.categories, step=step, first=first)

    def _update_on_replica(self, images, targets, weights):
        batch = (images, targets, weights)
        # Over all replicas, so that the loss does not depend on how the batch is divided.
        examples = self._sum_over_replicas(tf.reduce_sum(weights["authenticity"]))
        if self.recipe.accumulate == 1:
            gradients, sums = self._compiled(self._gradients)(*batch, examples)
        else:
            gradients, sums = self._accumulated_gradients(batch, examples)
        if self.replicas > 1 and (self.recipe.clip_norm or self.recipe.precision == "mixed_float16"):
            # Clipping and loss scaling need the whole gradient. The optimizer will sum over the replicas once more.
            gradients = [gradient / self.replicas for gradient in self._sum_over_replicas(gradients)]
        self.optimizer.apply(gradients, self.variables)
        return tf.stack([sums[name] for name in self.names])

    def _sum_over_replicas(self, values):
        if self.replicas == 1:
            return values  # all_reduce would be a no-op that keeps the traced step in memory until the process ends
        return tf.distribute.get_replica_context().all_reduce("SUM", values)

    def _accumulated_gradients(self, batch, examples):
        """Gradients and sums, added up over one micro-batch after the other."""
        size = -(-self.recipe.batch // self.replicas) * squares_per_image(self.recipe)
        micro_gradients = self._compiled(self._gradients)
        gradients = [tf.zeros(variable.shape) for variable in self.variables]
        sums = {name: tf.zeros(()) for name in self.names}
        for begin in tf.range(0, tf.shape(batch[0])[0], size):
            micro_batch = tree.map_structure(lambda values: values[begin : begin + size], batch)  # noqa: B023
            more_gradients, more_sums = micro_gradients(*micro_batch, examples)
            gradients = [a + b for a, b in zip(gradients, more_gradients, strict=True)]
            sums = {name: sums[name] + more_sums[name] for name in sums}
        return gradients, sums

    def _compiled(self, function: Callable) -> Callable:
        """Compiled with XLA, if the recipe says so; anew for each replica, as it captures the replica's variables.

        Only the part between communications: XLA cannot compile those with it.
        """
        return tf.function(function, jit_compile=True) if self.recipe.xla == "on" else function

    def _gradients(self, images, targets, weights, examples):
        with tf.GradientTape() as tape:
            logits = self._attended(self.network(images, training=True))
            sums = self._batch_sums(logits, targets, weights)
            loss = self.optimizer.scale_loss(sums["loss"] / examples)
        return tape.gradient(loss, self.variables), sums

    def _attended(self, logits):
        """The logits of the windows of a training batch; with attention, that of its image in place of each."""
        if "attention" not in logits:
            return logits
        squares = squares_per_image(self.recipe)
        counts = tf.fill([tf.shape(logits["attention"])[0] // squares], squares)
        outputs = {"logit": logits["authenticity"][:, 0], "attention": logits["attention"][:, 0]}
        of_images = aggregate(outputs, counts, self.recipe.aggregate, whole=view_of(self.recipe).whole)["logit"]
        return logits | {"authenticity": tf.repeat(of_images, counts)[:, tf.newaxis]}

    def _batch_sums(self, logits, targets, weights) -> dict[str, tf.Tensor]:
        """The sums over a batch from which `_means` computes means."""
        sums = {"loss": tf.zeros(()), "examples": tf.reduce_sum(weights["authenticity"])}
        for head, loss in self.losses.items():
            weight = weights[head]
            sums[f"{head}_loss"] = tf.reduce_sum(weight * loss(targets[head], logits[head]))
            sums[f"{head}_hits"] = tf.reduce_sum(weight * _HITS[head](targets[head], logits[head]))
            sums[f"{head}_weight"] = tf.reduce_sum(weight)
            sums["loss"] += self.head_weights[head] * sums[f"{head}_loss"]
        return sums

    def _update_averages(self, step) -> None:
        # A lower decay at first, as in tf.train.ExponentialMovingAverage, to forget the initial weights.
        step = tf.cast(step, tf.float32)
        decay = tf.minimum(self.recipe.ema, (1 + step) / (10 + step))
        for variable, average in zip(self.averaged_variables, self.averages, strict=True):
            self.strategy.extended.update(
                average, lambda old, new: old.assign(old + (1 - decay) * (new - old)), args=(variable.value,)
            )

    # --- validation --------------------------------------------------------------------------------------------

    def validate(self, batches: Iterable) -> dict[str, float]:
        """Mean losses, accuracies and AUC with the current weights; the loss alone, as NaN, if a logit is not finite.

        Args:
            batches: see `pipelines.loading.batches.inference_batches`.
        """
        parts = [tree.map_structure(np.asarray, self._traced_score(*batch)) for batch in batches]
        logits, targets, weights = tree.map_structure(lambda *arrays: np.concatenate(arrays), *parts)
        if not all(np.isfinite(values).all() for values in logits.values()):
            return {"loss": float("nan")}  # a bounded loss of the authenticity head would be finite
        sums = {name: float(value) for name, value in self._batch_sums(logits, targets, weights).items()}
        is_labelled = weights["authenticity"] > 0
        auc = classification.auc(targets["authenticity"][is_labelled, 0], logits["authenticity"][is_labelled, 0])
        return _means(sums) | {"authenticity_auc": auc}

    def chance_loss(self) -> float:
        """The loss of a network that guesses: logits of 0, on as many images of each label and category."""
        total = 0.0
        for head, loss in self.losses.items():
            classes = np.arange(self.categories) if head == "category" else np.array([[0.0], [1.0]])
            logits = np.zeros((len(classes), self.categories if head == "category" else 1), np.float32)
            total += self.head_weights[head] * float(np.mean(loss(classes, logits)))
        return total

    def _score_on_replicas(self, images, targets, weights):
        scored = (self.strategy.run(self._score_on_replica, args=(images,)), targets, weights)
        if self.replicas == 1:
            return scored
        return tree.map_structure(lambda values: self.strategy.gather(values, axis=0), scored)

    def _score_on_replica(self, images):
        score = self._compiled(partial(self.model, training=False))
        if not isinstance(images, Windowed):
            return score(images)
        logits = score(flat(images))
        outputs = {"logit": logits["authenticity"][:, 0]}
        if "category" in logits:
            outputs["category_probabilities"] = tf.nn.softmax(logits["category"])
        if "attention" in logits:
            outputs["attention"] = logits["attention"][:, 0]
        of_images = aggregate(outputs, images.counts, self.recipe.aggregate, whole=view_of(self.recipe).whole)
        by_head = {"authenticity": of_images["logit"][:, tf.newaxis]}
        if "category" in logits:
            # The logarithm of the mean probability is a logit of it, as the loss and the accuracy take it.
            by_head["category"] = tf.math.log(of_images["category_probabilities"] + keras.config.epsilon())
        return by_head


# --- parts of an engine ----------------------------------------------------------------------------------------


def _resized(model: keras.Model, size: int) -> keras.Model:
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


def _any_length(values) -> tf.TensorSpec:
    return tf.TensorSpec((None, *values.shape[1:]), values.dtype)


def _means(sums: dict[str, float]) -> dict[str, float]:
    """The mean losses and accuracies of `Engine.sums`."""
    heads = [name.removesuffix("_hits") for name in sums if name.endswith("_hits")]
    logs = {"loss": _ratio(sums["loss"], sums["examples"])}
    for head in heads:
        logs[f"{head}_loss"] = _ratio(sums[f"{head}_loss"], sums[f"{head}_weight"])
        logs[f"{head}_accuracy"] = _ratio(sums[f"{head}_hits"], sums[f"{head}_weight"])
    return logs


def _ratio(total: float, weight: float) -> float:
    return total / weight if weight else float("nan")
