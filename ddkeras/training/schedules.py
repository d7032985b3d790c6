"""The learning rate, step by step."""

import math

import keras
from keras import ops

KINDS = ("cosine", "step", "exponential", "constant")


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up from 0 to `peak`, then the decay that `kind` names.

    - cosine: half a wave down to 0 at `steps`, and 0 after (Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983)
    - step: peak * decay ** floor(epochs / decay_epochs)
    - exponential: peak * decay ** (epochs / decay_epochs)
    - constant: peak

    `epochs`, step / steps_per_epoch, are counted from the beginning of the training, so that an exponential decay
    has begun before the warm-up is over; a cosine begins after it.

    Args:
        kind: one of `KINDS`.
        peak: the rate at `warmup_steps`, but for what has decayed until then.
        steps: those of the whole training.
        steps_per_epoch: at least 1.
        warmup_steps: from 0, when there is none, to `steps`.
        decay: what is left of the rate after `decay_epochs`, in (0, 1].
        decay_epochs: more than 0.
        thaw_step: from this step on the rate is multiplied by `thaw_factor`, after a second warm-up: Adam knows
            nothing yet of the weights that are trained from then on, and would change them several times as fast.
            With 0 never.
        thaw_factor: more than 0.

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
        """The rate of that step, a float32 scalar; `step` is a number or a tensor, counted from 0."""
        step = ops.cast(step, "float32")
        rate = self.peak * self._risen(step) * self._left(step)
        if not self.thaw_step:
            return rate
        thawed = rate * self.thaw_factor * self._risen(step - self.thaw_step)
        return ops.where(step < self.thaw_step, rate, thawed)

    def get_config(self) -> dict:
        return dict(vars(self))

    def _risen(self, step):
        """How far a warm-up that began `step` steps ago has come, in [0, 1]."""
        return ops.minimum(step / self.warmup_steps, 1.0) if self.warmup_steps else 1.0

    def _left(self, step):
        """What is left of the peak at `step`, in [0, 1]."""
        if self.kind == "constant":
            return ops.ones_like(step)
        if self.kind == "cosine":
            done = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
            return (1 + ops.cos(math.pi * ops.clip(done, 0, 1))) / 2
        period = self.steps_per_epoch * self.decay_epochs
        if self.kind == "exponential":
            return ops.power(self.decay, step / period)
        # Half a step further: a compiled graph may multiply by 1 / period, and find 0.9999999 where 1 is due.
        return ops.power(self.decay, ops.floor((step + 0.5) / period))
