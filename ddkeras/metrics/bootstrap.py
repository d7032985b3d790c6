"""Estimates with 95% confidence intervals, by resampling groups of images."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from pipelines.intervals import MIN_IMAGES, logit_interval

RESAMPLINGS = 1000
_CELLS = 2_000_000  # weights held in memory at once
_QUANTILES = (0.025, 0.975)

Measure: TypeAlias = Callable[[np.ndarray], Mapping[str, np.ndarray]]
Kinds: TypeAlias = Mapping[str, np.ndarray]  # by plural name, such as fakes: bool (n,), which images are of the kind


@dataclass(frozen=True)
class Estimate:
    """A measured value and its 95% confidence interval.

    `value`, `low` and `high` are NaN where nothing could be measured, `low` and `high` alone where there are too few
    images for an interval; `reason` may say why.
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

    @property
    def has_interval(self) -> bool:
        """Whether there is an interval."""
        return not math.isnan(self.low)

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
        why = f": {self.reason}" if self.reason else ""
        if self.is_missing:
            return f"undefined{why}"
        if not self.has_interval:
            return f"{self.value:.4f} (no interval{why})"
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

    def estimate(
        self, measure: Measure, among: Mapping[str, Kinds] | None = None, *, others: Collection[str] = ()
    ) -> dict[str, Estimate]:
        """Measure all images, with 95% intervals from resamplings (Efron 1979).

        The interval of a proportion is `logit_interval` with the variance of the resamplings. That of other values
        goes from the 2.5% to the 97.5% quantile of the resamplings. Where fewer than `MIN_IMAGES` groups have images
        of a kind that a value rests on, it has no interval.

        Args:
            measure: from weights (resamplings, n), how often each image counts, to values (resamplings,).
            among: for each value, the kinds of images that it rests on, such as the fakes for recall, and both reals
                and fakes for the AUC; all images by default.
            others: names of values that are not proportions, such as losses and differences.

        Returns:
            An estimate for each value; it is missing where the value is not finite.
        """
        values = measure(np.ones((1, len(self._group))))
        parts = [measure(weights) for weights in self._weights()]
        all_images = {"images": np.ones(len(self._group), bool)}
        estimates = {}
        for name, value in values.items():
            resampled = np.concatenate([part[name] for part in parts])
            kinds = (among or {}).get(name, all_images)
            estimates[name] = self._estimate(
                float(value[0]), resampled[np.isfinite(resampled)], kinds, is_proportion=name not in others
            )
        return estimates

    def _estimate(self, value: float, resampled: np.ndarray, kinds: Kinds, *, is_proportion: bool) -> Estimate:
        if not math.isfinite(value):
            return Estimate.missing()
        counts = [len(np.unique(self._group[mask])) for mask in kinds.values()]
        for (name, mask), count in zip(kinds.items(), counts, strict=True):
            if count < MIN_IMAGES:
                units = name if count == mask.sum() else f"groups of {name}"
                return Estimate(value, math.nan, math.nan, f"fewer than {MIN_IMAGES} {units}")
        if is_proportion:
            return Estimate(value, *logit_interval(value, float(resampled.var()), counts))
        low, high = np.quantile(resampled, _QUANTILES)
        return Estimate(value, float(low), float(high))

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
