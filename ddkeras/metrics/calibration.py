"""From logits to what a person can act on: probabilities that can be taken at their word, and verdicts.

Both are fitted on validation, and stored with the run.
"""

import dataclasses
import math
from dataclasses import dataclass, field

import numpy as np
from keras import ops
from scipy.optimize import minimize_scalar

VERDICTS = ("real", "fake", "unsure")
FALSE_ALARMS, MISSES = 0.01, 0.05
_TEMPERATURES = (0.05, 100)
_ERRORS = 2  # that a category must be allowed, or its own limits would follow from single images


@dataclass(frozen=True)
class Limits:
    """An image whose logit is below `real_below` is called real, from `fake_from` on fake, between them unsure."""

    real_below: float = 0.0
    fake_from: float = 0.0


@dataclass(frozen=True)
class OperatingPoint:
    """What makes probabilities and verdicts of a run's logits; as it stands here, where none was fitted.

    Args:
        temperature: probabilities are the sigmoid of logits divided by it.
        limits: of all images.
        by_category: other limits, for images that are predicted to be of a category.
        fitted: on what, for which rates of error, and what came of it; empty when it was not.
    """

    temperature: float = 1.0
    limits: Limits = Limits()
    by_category: dict[str, Limits] = field(default_factory=dict)
    fitted: dict = field(default_factory=dict)

    def probabilities(self, logits):
        """Of being fake, as float32 (batch,), for logits (batch,)."""
        return ops.sigmoid(ops.cast(logits, "float32") / self.temperature)

    def verdicts(self, logits, category_probabilities=None, categories: list[str] | None = None):
        """Indices of `VERDICTS`, int32 (batch,).

        Args:
            logits: float32 (batch,).
            category_probabilities: (batch, categories), or logits of them; of the `categories` of the run.
        """
        real_below, fake_from = self.limits.real_below, self.limits.fake_from
        if self.by_category:
            each = [self.by_category.get(name, self.limits) for name in categories]
            # Not argmax: that of Keras looks at the sign bit of zeros, for which LiteRT has no operation.
            predicted = ops.top_k(category_probabilities, 1)[1][:, 0]
            real_below = ops.take(np.array([own.real_below for own in each], np.float32), predicted)
            fake_from = ops.take(np.array([own.fake_from for own in each], np.float32), predicted)
        is_decided_real = ops.cast(logits < real_below, "int32")
        return ops.where(logits >= fake_from, 1, 2 - 2 * is_decided_real)

    def to_dict(self) -> dict:
        """Ready for JSON; see `from_dict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, stored: dict) -> "OperatingPoint":
        """What `to_dict` gave."""
        by_category = {name: Limits(**own) for name, own in stored["by_category"].items()}
        return cls(stored["temperature"], Limits(**stored["limits"]), by_category, stored["fitted"])


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """What logits are to be divided by for the least log loss (Guo et al. 2017, https://arxiv.org/abs/1706.04599).

    Labels count as Platt's targets (1999), (n + 1) / (n + 2) in place of 1: or, where no image is on the wrong side,
    there would be no end to how sure the probabilities are.

    Args:
        logits: (n,), of fake.
        labels: (n,), 0 real or 1 fake.

    Returns:
        From 0.05 to 100.
    """
    fakes, reals = (labels == 1).sum(), (labels == 0).sum()
    targets = np.where(labels == 1, (fakes + 1) / (fakes + 2), 1 / (reals + 2))
    logits = logits.astype(np.float64)

    def log_loss(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        return float(np.mean(np.logaddexp(0, scaled) - targets * scaled))

    bounds = tuple(math.log(temperature) for temperature in _TEMPERATURES)
    return float(math.exp(minimize_scalar(log_loss, bounds=bounds, method="bounded").x))


def fit_limits(logits: np.ndarray, labels: np.ndarray, *, false_alarms: float, misses: float) -> Limits:
    """The lowest `fake_from` and the highest `real_below` that keep to the rates on these images.

    Where they would overlap, as no image need be unsure, both lie in the middle of that.

    Args:
        logits: (n,), of fake.
        labels: (n,), 0 real or 1 fake; both occur.
        false_alarms: at most this share of the reals is called fake.
        misses: at most this share of the fakes is called real.
    """
    scores = np.unique(logits.astype(np.float64))
    reals, fakes = np.sort(logits[labels == 0])[::-1], np.sort(logits[labels == 1])
    last_real = reals[min(int(false_alarms * len(reals)), len(reals) - 1)]
    first_fake = fakes[min(int(misses * len(fakes)), len(fakes) - 1)]
    # Halfway to the next image, so that one that is scored a little differently elsewhere has the same verdict.
    above, below = scores[scores > last_real], scores[scores < first_fake]
    fake_from = (last_real + above[0]) / 2 if len(above) else last_real + 1.0
    real_below = (first_fake + below[-1]) / 2 if len(below) else first_fake - 1.0
    if real_below > fake_from:
        real_below = fake_from = (real_below + fake_from) / 2
    # As the network's own logits are, or a limit would not be the same in the graph.
    return Limits(float(np.float32(real_below)), float(np.float32(fake_from)))


def fit(
    logits: np.ndarray,
    labels: np.ndarray,
    predicted: np.ndarray | None = None,
    categories: list[str] | None = None,
    *,
    false_alarms: float = FALSE_ALARMS,
    misses: float = MISSES,
) -> OperatingPoint:
    """Fit all of an operating point; a category has limits of its own where the rates allow two errors of each kind.

    Args:
        logits: float32 (n,), of fake.
        labels: (n,), 0 real or 1 fake; both occur.
        predicted: (n,), indices of the `categories` that images are predicted to be of, None where there are none.
        false_alarms, misses: as in `fit_limits`.
    """
    rates = {"false_alarms": false_alarms, "misses": misses}
    by_category = {}
    for index, name in enumerate(categories or []):
        own = predicted == index
        is_fake = labels[own] == 1
        if (~is_fake).sum() * false_alarms >= _ERRORS and is_fake.sum() * misses >= _ERRORS:
            by_category[name] = fit_limits(logits[own], labels[own], **rates)
    counts = {"reals": int((labels == 0).sum()), "fakes": int((labels == 1).sum())}
    limits = fit_limits(logits, labels, **rates)
    return OperatingPoint(fit_temperature(logits, labels), limits, by_category, rates | counts)
