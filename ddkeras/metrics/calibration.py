"""From logits to calibrated probabilities and verdicts: a temperature and two thresholds, fitted on validation."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from keras import ops
from scipy.optimize import minimize_scalar

from ddkeras.exceptions import ConfigError

VERDICTS = ("real", "fake", "unsure")  # the first two are the names of the labels 0 and 1
TOO_SMALL = "its shorter side has {side} pixels, fewer than {min_side}"  # why an image is unsure, whatever its score
FALSE_ALARMS, MISSES = 0.01, 0.05  # error rates allowed by default
_FITTED = ("false_alarms", "misses", "reals", "fakes")
_TEMPERATURES = (0.05, 100)
_MIN_ERRORS = 2  # allowed errors from which a category has thresholds of its own; fewer depend on a single image


@dataclass(frozen=True)
class Limits:
    """Thresholds on the logit: real below `real_below`, fake from `fake_from` on, unsure in between.

    Raises:
        ConfigError: they are not finite, or crossed.
    """

    real_below: float = 0.0
    fake_from: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.real_below) and math.isfinite(self.fake_from)):
            raise ConfigError(f"thresholds must be finite, not {self.real_below} and {self.fake_from}")
        if self.real_below > self.fake_from:
            raise ConfigError(
                f"thresholds are crossed: images are real below {self.real_below:g} and fake from {self.fake_from:g}"
            )


@dataclass(frozen=True)
class OperatingPoint:
    """How logits become probabilities and verdicts; the defaults are those of an unfitted detector.

    Args:
        temperature: probabilities are the sigmoid of the logits divided by it.
        limits: the thresholds of all images.
        by_category: thresholds of images that are predicted to be of a category, in place of `limits`.
        fitted: the error rates allowed, `false_alarms` and `misses`, and the number of `reals` and `fakes` it was
            fitted on; empty if it was not fitted.

    Raises:
        ConfigError: the temperature is not above 0.
    """

    temperature: float = 1.0
    limits: Limits = Limits()
    by_category: dict[str, Limits] = field(default_factory=dict)
    fitted: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ConfigError(f"the temperature must be above 0 and finite, not {self.temperature}")

    def probabilities(self, logits):
        """Probabilities of fake, float32 (batch,), from logits (batch,)."""
        return ops.sigmoid(ops.cast(logits, "float32") / self.temperature)

    def verdicts(self, logits, category_probabilities=None, categories: Sequence[str] = ()):
        """Indices of `VERDICTS`, int32 (batch,).

        Args:
            logits: float32 (batch,).
            category_probabilities: (batch, categories), or their logits; needed with thresholds by category.
            categories: their names.
        """
        real_below, fake_from = self.limits.real_below, self.limits.fake_from
        if self.by_category:
            limits = [self.by_category.get(name, self.limits) for name in categories]
            # Not argmax: Keras's looks at the sign bit of zeros, for which LiteRT has no operation.
            predicted = ops.top_k(category_probabilities, 1)[1][:, 0]
            real_below = ops.take(np.array([each.real_below for each in limits], np.float32), predicted)
            fake_from = ops.take(np.array([each.fake_from for each in limits], np.float32), predicted)
        is_decided_real = ops.cast(logits < real_below, "int32")
        return ops.where(logits >= fake_from, 1, 2 - 2 * is_decided_real)

    def to_dict(self) -> dict:
        """JSON-ready; see `from_dict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, stored: dict) -> "OperatingPoint":
        """The inverse of `to_dict`.

        Raises:
            KeyError, TypeError: a field is missing, or not a number.
            ConfigError: it cannot turn logits into probabilities and verdicts.
        """

        def limits(pair: dict) -> Limits:
            return Limits(_number(pair, "real_below"), _number(pair, "fake_from"))

        by_category = {name: limits(pair) for name, pair in stored["by_category"].items()}
        fitted = {name: _number(stored["fitted"], name) for name in _FITTED} if stored["fitted"] else {}
        return cls(_number(stored, "temperature"), limits(stored["limits"]), by_category, fitted)


def _number(stored: dict, name: str) -> float:
    if not isinstance(stored[name], int | float):
        raise TypeError(f"{name} is not a number")
    return stored[name]


def require_finite(logits: np.ndarray, detector: str) -> None:
    """Check that a detector has scored all images.

    Args:
        logits: (n,), of fake.
        detector: named in the message.

    Raises:
        ConfigError: a logit is NaN or infinite.
    """
    failed = int((~np.isfinite(logits)).sum())
    if failed:
        raise ConfigError(
            f"{detector} gives {failed} of {len(logits)} images a score that is not a finite number; its weights are "
            "broken: train again, with a lower --learning-rate"
        )


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the least log loss (Guo et al. 2017, https://arxiv.org/abs/1706.04599).

    The targets are Platt's (1999), (n + 1) / (n + 2) in place of 1: without them the temperature would fall to the
    lowest allowed whenever the logits separate the labels perfectly.

    Args:
        logits: (n,), of fake.
        labels: (n,), 0 real or 1 fake.

    Returns:
        A temperature from 0.05 to 100.
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
    """The lowest `fake_from` and the highest `real_below` that keep the error rates on these images.

    Where they would overlap, no image needs to be unsure, and both are set to their midpoint.

    Args:
        logits: (n,), of fake.
        labels: (n,), 0 real or 1 fake; both occur.
        false_alarms: the highest proportion of the reals that is called fake.
        misses: the highest proportion of the fakes that is called real.
    """
    scores = np.unique(logits.astype(np.float64))
    reals, fakes = np.sort(logits[labels == 0])[::-1], np.sort(logits[labels == 1])
    last_real = reals[min(int(false_alarms * len(reals)), len(reals) - 1)]
    first_fake = fakes[min(int(misses * len(fakes)), len(fakes) - 1)]
    # Halfway to the next score, so that small numerical differences on other hardware change no verdict.
    above, below = scores[scores > last_real], scores[scores < first_fake]
    # One further out is all that separates scores so large that adding 1 does not change them.
    fake_from = (last_real + above[0]) / 2 if len(above) else max(last_real + 1, np.nextafter(last_real, np.inf))
    real_below = (first_fake + below[-1]) / 2 if len(below) else first_fake - 1.0
    if real_below > fake_from:
        real_below = fake_from = (real_below + fake_from) / 2
    # In float32, like the logits, or the exported graph would compare with another threshold.
    return Limits(float(np.float32(real_below)), float(np.float32(fake_from)))


def fit(
    logits: np.ndarray,
    labels: np.ndarray,
    predicted: np.ndarray | None = None,
    categories: Sequence[str] = (),
    *,
    false_alarms: float = FALSE_ALARMS,
    misses: float = MISSES,
) -> OperatingPoint:
    """Fit an operating point; a category gets its own thresholds if the rates allow at least two errors of each kind.

    Args:
        logits: float32 (n,), of fake.
        labels: (n,), 0 real or 1 fake; both occur.
        predicted: (n,), indices of the predicted categories; None without categories.
        categories: their names.
        false_alarms, misses: as in `fit_limits`.
    """
    rates = {"false_alarms": false_alarms, "misses": misses}
    by_category = {}
    for index, name in enumerate(categories):
        in_category = predicted == index
        is_fake = labels[in_category] == 1
        if (~is_fake).sum() * false_alarms >= _MIN_ERRORS and is_fake.sum() * misses >= _MIN_ERRORS:
            by_category[name] = fit_limits(logits[in_category], labels[in_category], **rates)
    counts = {"reals": int((labels == 0).sum()), "fakes": int((labels == 1).sum())}
    limits = fit_limits(logits, labels, **rates)
    return OperatingPoint(fit_temperature(logits, labels), limits, by_category, rates | counts)
