"""The optimizer of a recipe: AdamW, Adam or SGD, with a learning rate for each layer."""

import keras

from ddkeras.config import Recipe
from ddkeras.models.detector import HEADS
from ddkeras.training.schedules import Schedule


def build_optimizer(
    recipe: Recipe, model: keras.Model, schedule: Schedule, replicas: int
) -> keras.optimizers.Optimizer:
    options = {"rates": layer_rates(model, recipe.layer_decay), "weight_decay": recipe.weight_decay or None}
    if recipe.clip_norm:
        options["global_clipnorm"] = recipe.clip_norm / replicas  # of gradients that are added up once more
    if recipe.optimizer == "sgd":
        options["momentum"] = recipe.momentum
    if recipe.optimizer == "adam":
        options["weight_decay"] = None  # or it would be AdamW
    optimizer = _STAGED[recipe.optimizer](schedule, **options)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    # By hand, as Keras's `fit` does it: steps whose gradients overflow are left out, and the scale is halved.
    return keras.optimizers.LossScaleOptimizer(optimizer) if recipe.precision == "mixed_float16" else optimizer


class _Staged:
    """An optimizer whose learning rate, and so its decay, has a factor for each variable that it is built with."""

    def __init__(self, *arguments, rates: list[float], **options):
        super().__init__(*arguments, **options)
        self._rates = rates

    def update_step(self, gradient, variable, learning_rate):
        rate = self._rates[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * rate)

    def _apply_weight_decay(self, variables):
        decay = self.weight_decay
        for rate in sorted(set(self._rates)) if decay else ():
            self.weight_decay = decay * rate
            super()._apply_weight_decay([v for v in variables if self._rates[self._get_variable_index(v)] == rate])
        self.weight_decay = decay

    def _all_reduce_sum_gradients(self, grads_and_vars):
        if self._distribution_strategy.num_replicas_in_sync == 1:
            return grads_and_vars  # as in `Engine._sum_of_all`
        return super()._all_reduce_sum_gradients(grads_and_vars)


_STAGED = {
    name: type(f"Staged{base.__name__}", (_Staged, base), {})
    for name, base in {
        "adamw": keras.optimizers.AdamW,
        "adam": keras.optimizers.Adam,
        "sgd": keras.optimizers.SGD,
    }.items()
}


def layer_rates(model: keras.Model, decay: float) -> list[float]:
    """A factor for each trainable variable: 1 in the heads, `decay` in the last stage of the trunk, and so on down.

    A stage has feature maps of one size. (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146, by layers.)
    """
    height, stages = 0, {}
    for layer in model.layers:
        shape = getattr(layer.output, "shape", ())
        if len(shape) == 4 and shape[1] > 1:  # not the pooled ones that channels are weighed by, in between
            height = shape[1]
        stages[layer.name] = 0 if layer.name in HEADS else height
    heights = sorted(set(stages.values()))
    return [decay ** heights.index(stages[layer.name]) for layer in model.layers for _ in layer.trainable_variables]
