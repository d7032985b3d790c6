"""Learning rate schedules."""

import math

import keras
from keras import ops

KINDS = ("cosine", "step", "exponential", "constant")


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up from 0 to `peak`, then the decay of `kind`.

    - cosine: from `peak` to 0 at `steps`, and 0 after (Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983)
    - step: peak * decay ** floor(epochs / decay_epochs)
    - exponential: peak * decay ** (epochs / decay_epochs)
    - constant: peak

    `epochs`, step / steps_per_epoch, count from the start of training, so exponential decay starts during the
    warm-up; the cosine starts after it.

    Args:
        kind: one of `KINDS`.
        peak: the learning rate at the end of the warm-up, before decay.
        steps: of the whole training.
        steps_per_epoch: at least 1.
        warmup_steps: in 0..`steps`; 0 for no warm-up.
        decay: factor on the rate per `decay_epochs`, in (0, 1].
        decay_epochs: above 0.
        thaw_step: from this step on, the rate is multiplied by `thaw_factor`, after a second warm-up: Adam has no
            moments yet of the weights unfrozen then, and its first updates would be several times too large. 0 for
            never.
        thaw_factor: above 0.

    Raises:
        ValueError: there is no such kind.
    """

    def __init__(
        self,
        kind: str,
        peak: float,
        *,
        steps: int,
        steps_per_epoch: int,
        warmup_steps: int = 0,
        decay: float = 0.1,
        decay_epochs: float = 5,
        thaw_step: int = 0,
        thaw_factor: float = 1.0,
    ):
        if kind not in KINDS:
            raise ValueError(f"there is no schedule {kind!r}; give one of {', '.join(KINDS)}")
        self.kind = kind
        self.peak = peak
        self.steps = steps
        self.steps_per_epoch = steps_per_epoch
        self.warmup_steps = warmup_steps
        self.decay = decay
        self.decay_epochs = decay_epochs
        self.thaw_step = thaw_step
        self.thaw_factor = thaw_factor

    def __call__(self, step):
        """The learning rate at `step`, a number or a tensor counted from 0; a float32 scalar."""
        step = ops.cast(step, "float32")
        rate = self.peak * self._warmup_factor(step) * self._decay_factor(step)
        if not self.thaw_step:
            return rate
        thawed = rate * self.thaw_factor * self._warmup_factor(step - self.thaw_step)
        return ops.where(step < self.thaw_step, rate, thawed)

    def get_config(self) -> dict:
        """The constructor's arguments, as Keras serializes them."""
        return dict(vars(self))

    def _warmup_factor(self, step):
        """In [0, 1], for a warm-up that started `step` steps ago."""
        return ops.minimum(step / self.warmup_steps, 1.0) if self.warmup_steps else 1.0

    def _decay_factor(self, step):
        """In [0, 1]."""
        if self.kind == "constant":
            return ops.ones_like(step)
        if self.kind == "cosine":
            progress = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
            return (1 + ops.cos(math.pi * ops.clip(progress, 0, 1))) / 2
        period = self.steps_per_epoch * self.decay_epochs
        if self.kind == "exponential":
            return ops.power(self.decay, step / period)
        # Plus half a step, since a compiled graph may multiply by 1 / period and get 0.9999999 instead of 1.
        return ops.power(self.decay, ops.floor((step + 0.5) / period))
