"""Estimates with 95% confidence intervals, by resampling groups of images."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

RESAMPLINGS = 1000
_CELLS = 2_000_000  # weights held in memory at once
_QUANTILES = (0.025, 0.975)
_Z2 = 3.841458820694124  # square of the 97.5% quantile of the standard normal distribution

Measure: TypeAlias = Callable[[np.ndarray], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Estimate:
    """A measured value and its 95% confidence interval.

    `value`, `low` and `high` are NaN where nothing could be measured; `reason` may say why.
    """

    value: float
    low: float
    high: float
    reason: str | None = None

    @classmethod
    def missing(cls, reason: str | None = None) -> "Estimate":
        """No value."""
        return cls(math.nan, math.nan, math.nan, reason)

    @property
    def is_missing(self) -> bool:
        """Whether there is no value."""
        return math.isnan(self.value)

    def complement(self) -> "Estimate":
        """One minus a proportion."""
        return Estimate(1 - self.value, 1 - self.high, 1 - self.low, self.reason)

    def to_dict(self) -> dict[str, float | str | None]:
        """JSON-ready: `value`, `low` and `high`, None where missing, and the `reason` if there is one."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        reason = {} if self.reason is None else {"reason": self.reason}
        return {name: None if math.isnan(number) else number for name, number in numbers.items()} | reason

    def __float__(self) -> float:
        """The value."""
        return self.value

    def __str__(self) -> str:
        """Such as "0.8940 (0.8710 to 0.9152)"."""
        if self.is_missing:
            return f"undefined: {self.reason}" if self.reason else "undefined"
        return f"{self.value:.4f} ({self.low:.4f} to {self.high:.4f})"

    def __format__(self, spec: str) -> str:
        """With a `spec`, the value alone."""
        return format(self.value, spec) if spec else str(self)


class Bootstrap:
    """Resampling of groups of images, such as the edits of one photo, whose scores are not independent.

    Args:
        groups: (n,), a name or number for each image; images of one group are drawn together.
        resamplings: how many to draw.
        seed: of the random generator.
    """

    def __init__(self, groups: np.ndarray, *, resamplings: int = RESAMPLINGS, seed: int = 0):
        names, self._group = np.unique(groups, return_inverse=True)
        self._groups, self._resamplings, self._seed = len(names), resamplings, seed

    def estimate(self, measure: Measure, counts: Mapping[str, int] | None = None) -> dict[str, Estimate]:
        """Measure all images, with percentile intervals over resamplings (Efron 1979).

        A proportion that is 0 or 1 in all resamplings would get an interval of no width, however few the images.
        It gets the Wilson interval for their number instead.

        Args:
            measure: from weights (resamplings, n), how often each image counts, to values (resamplings,).
            counts: for each value that is a proportion, the number of images it is a proportion of.

        Returns:
            An estimate for each value; it is missing where the value is not finite.
        """
        values = measure(np.ones((1, len(self._group))))
        parts = [measure(weights) for weights in self._weights()]
        estimates = {}
        for name, value in values.items():
            resampled = np.concatenate([part[name] for part in parts])
            estimates[name] = _estimate(float(value[0]), resampled[np.isfinite(resampled)], (counts or {}).get(name))
        return estimates

    def _weights(self) -> Iterator[np.ndarray]:
        """How often each image is drawn: (resamplings, n), in parts that fit into memory."""
        random = np.random.default_rng(self._seed)
        rows = max(1, _CELLS // max(1, len(self._group)))
        for begin in range(0, self._resamplings, rows):
            number = min(rows, self._resamplings - begin)
            drawn = random.integers(self._groups, size=(number, self._groups))
            drawn += np.arange(number)[:, None] * self._groups
            counts = np.bincount(drawn.ravel(), minlength=number * self._groups).reshape(number, self._groups)
            yield counts[:, self._group].astype(np.float64)


def wilson_interval(proportions: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95% score interval of proportions (Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953).

    Args:
        proportions: each from 0 to 1.
        counts: the number of images that each is a proportion of, at least 1.

    Returns:
        The lower and the upper ends.
    """
    centre = counts * proportions + _Z2 / 2
    half = np.sqrt(_Z2 * (counts * proportions * (1 - proportions) + _Z2 / 4))
    return (centre - half) / (counts + _Z2), (centre + half) / (counts + _Z2)


def _estimate(value: float, resampled: np.ndarray, count: int | None) -> Estimate:
    if not math.isfinite(value):
        return Estimate.missing()
    low, high = np.quantile(resampled, _QUANTILES) if len(resampled) else (value, value)
    if count and low == high and value in (0, 1):
        _, width = wilson_interval(np.array(0.0), np.array(count))
        low, high = (0.0, width) if value == 0 else (1 - width, 1.0)
    return Estimate(value, float(low), float(high))
