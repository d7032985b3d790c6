"""How far a number can be trusted: 95% intervals by resampling groups of images."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

RESAMPLINGS = 1000
_CELLS = 2_000_000  # of weights held at once
_QUANTILES = (0.025, 0.975)
_Z2 = 3.841458820694124  # the square of the 97.5% quantile of the normal distribution
Measure = Callable[[np.ndarray], Mapping[str, np.ndarray]]


class Bootstrap:
    """Images, some of which belong together, as those made from one photo: one says little that the other does not.

    Args:
        groups: (n,), a name or number for each image; images of one group are drawn together.
        resamplings: how many.
        seed: decides which.
    """

    def __init__(self, groups: np.ndarray, *, resamplings: int = RESAMPLINGS, seed: int = 0):
        names, self._group = np.unique(groups, return_inverse=True)
        self._groups, self._resamplings, self._seed = len(names), resamplings, seed

    def estimate(self, measure: Measure, counts: Mapping[str, int] | None = None) -> dict[str, dict]:
        """What is measured on all images, and its 95% interval: percentiles over resamplings (Efron 1979).

        Where all resamplings come to 0 or to 1, as when no image is on the wrong side, they say nothing of how far
        that is luck; there the interval ends where Wilson's does for so many images (1927).

        Args:
            measure: from weights (resamplings, n), how often each image counts, to values (resamplings,).
            counts: of how many images each value is a share; what is not named is not a share.

        Returns:
            For each name a `value`, `low` and `high`, all None where there is no value.
        """
        point = measure(np.ones((1, len(self._group))))
        parts = [measure(weights) for weights in self._weights()]
        found = {}
        for name, value in point.items():
            drawn = np.concatenate([part[name] for part in parts])
            found[name] = _estimate(float(value[0]), drawn[np.isfinite(drawn)], (counts or {}).get(name))
        return found

    def _weights(self) -> Iterator[np.ndarray]:
        """(resamplings, n) in parts that fit into memory: how often each image is drawn."""
        random = np.random.default_rng(self._seed)
        rows = max(1, _CELLS // max(1, len(self._group)))
        for begin in range(0, self._resamplings, rows):
            number = min(rows, self._resamplings - begin)
            drawn = random.integers(self._groups, size=(number, self._groups))
            drawn += np.arange(number)[:, None] * self._groups
            counts = np.bincount(drawn.ravel(), minlength=number * self._groups).reshape(number, self._groups)
            yield counts[:, self._group].astype(np.float64)


def _estimate(value: float, drawn: np.ndarray, count: int | None) -> dict:
    if not np.isfinite(value):
        return {"value": None, "low": None, "high": None}
    low, high = np.quantile(drawn, _QUANTILES) if len(drawn) else (value, value)
    if count and low == high and value in (0, 1):
        slack = _Z2 / (count + _Z2)
        low, high = (0.0, slack) if value == 0 else (1 - slack, 1.0)
    return {"value": value, "low": float(low), "high": float(high)}
