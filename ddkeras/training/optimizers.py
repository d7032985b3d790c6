"""AdamW, Adam and SGD with a learning rate factor per variable."""

from collections.abc import Callable
from typing import Any

import keras

from ddkeras.models.detector import HEAD_LAYERS
from ddkeras.models.tensorflow_internals import require
from ddkeras.training.schedules import Schedule


def build_optimizer(
    kind: str,
    schedule: Schedule,
    *,
    factors: list[float],
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    clip_norm: float = 0.0,
    replicas: int = 1,
    loss_scaling: bool = False,
) -> keras.optimizers.Optimizer:
    """Make the optimizer of a recipe.

    Args:
        kind: adamw, adam or sgd.
        schedule: the learning rate by step.
        factors: the learning rate factor of each variable that the optimizer is built with, see `layer_factors`.
        weight_decay: decoupled, times the learning rate; not of biases and normalization. Adam has none.
        momentum: of SGD.
        clip_norm: maximum norm of the whole gradient; 0 disables.
        replicas: how many devices add up their gradients.
        loss_scaling: scale the loss dynamically, as float16 needs.
    """
    options: dict[str, Any] = {"weight_decay": weight_decay or None}
    if clip_norm:
        options["global_clipnorm"] = clip_norm / replicas  # before the gradients of all replicas are added up
    if kind == "sgd":
        options["momentum"] = momentum
    if kind == "adam":
        options["weight_decay"] = None  # with it, Adam is AdamW
    optimizer = OPTIMIZERS[kind](schedule, factors=factors, replicas=replicas, **options)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    # As in Keras's `fit`: steps whose gradients overflow are skipped, and halve the scale.
    return keras.optimizers.LossScaleOptimizer(optimizer) if loss_scaling else optimizer


class _LayerwiseRates:
    """Mixin for a Keras optimizer: a factor per variable on its learning rate and, with that, its weight decay."""

    _get_variable_index: Callable[[keras.Variable], int]  # of the optimizer

    def __init__(self, *arguments, factors: list[float], replicas: int, **options):
        super().__init__(*arguments, **options)
        self._factors, self._replicas = factors, replicas

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate * self._factor(variable))

    def _apply_weight_decay(self, variables):
        decay = self.weight_decay
        for factor in sorted(set(self._factors)) if decay else ():
            self.weight_decay = decay * factor
            super()._apply_weight_decay([v for v in variables if self._factor(v) == factor])
        self.weight_decay = decay

    def _all_reduce_sum_gradients(self, grads_and_vars):
        if self._replicas == 1:
            return grads_and_vars  # see `Engine._sum_over_replicas`
        return super()._all_reduce_sum_gradients(grads_and_vars)

    def _factor(self, variable) -> float:
        return self._factors[self._get_variable_index(variable)]


def with_layerwise_rates(base: type) -> type:
    """A Keras optimizer class with a learning rate factor per variable.

    Raises:
        ConfigError: this version of Keras lacks a private method that is overridden.
    """
    require("keras", base, "_apply_weight_decay", "_all_reduce_sum_gradients", "_get_variable_index")
    return type(f"Layerwise{base.__name__}", (_LayerwiseRates, base), {})


OPTIMIZERS = {
    "adamw": with_layerwise_rates(keras.optimizers.AdamW),
    "adam": with_layerwise_rates(keras.optimizers.Adam),
    "sgd": with_layerwise_rates(keras.optimizers.SGD),
}


def layer_factors(model: keras.Model, decay: float) -> list[float]:
    """The learning rate factor of each trainable variable: 1 in the heads, times `decay` per stage further down.

    A stage is all layers whose feature maps have one size. Layer-wise decay is from Howard and Ruder 2018,
    https://arxiv.org/abs/1801.06146.
    """
    height: int = 0
    heights: dict[str, int] = {}
    for layer in model.layers:
        shape: tuple[int | None, ...] = getattr(layer.output, "shape", ())
        if len(shape) == 4 and shape[1] and shape[1] > 1:  # skips the pooled maps of squeeze-and-excitation
            height = shape[1]
        heights[layer.name] = 0 if layer.name in HEAD_LAYERS else height
    stages = sorted(set(heights.values()))
    return [decay ** stages.index(heights[layer.name]) for layer in model.layers for _ in layer.trainable_variables]
