"""95% confidence intervals of proportions, and of means of proportions such as the area under a ROC curve."""

import math
from collections.abc import Sequence

import numpy as np

MIN_IMAGES = 20  # of each kind that a number rests on; with fewer no interval was found to cover
_Z = 1.959963984540054  # the 97.5% quantile of the standard normal distribution
_PRIOR = 40  # images by whose number the variance is drawn towards that of a plain proportion


def wilson_interval(proportions: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The score interval of proportions (Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953).

    Args:
        proportions: each from 0 to 1.
        counts: the number of images that each is a proportion of, at least 1.

    Returns:
        The lower and the upper ends.
    """
    centre = counts * proportions + _Z**2 / 2
    half = _Z * np.sqrt(counts * proportions * (1 - proportions) + _Z**2 / 4)
    return (centre - half) / (counts + _Z**2), (centre + half) / (counts + _Z**2)


def logit_interval(value: float, variance: float, counts: Sequence[int]) -> tuple[float, float]:
    """The interval that is symmetric on the scale of the logit, where an interval near 0 or 1 keeps inside.

    The images that make up most of the variance are rare where the value is near 1, and a small sample may have none
    of them: with 20 reals, 500 fakes and an AUC of 0.99, the interval from the variance of the scores alone covers
    the AUC in 83% of samples. So the variance is drawn towards v (1 - v) / n, the more, the fewer images there are. A
    value of 0 or 1 has no variance, and gets the Wilson interval.

    Args:
        value: a proportion, or a mean of proportions, from 0 to 1.
        variance: of the value, estimated from the sample.
        counts: the number of independent images of each kind on which the value rests.

    Returns:
        The lower and the upper end.
    """
    if value <= 0 or value >= 1:
        _, width = (float(end) for end in wilson_interval(np.array(0.0), np.array(min(counts))))
        return (0.0, width) if value <= 0 else (1 - width, 1.0)
    spread = value * (1 - value)
    effective = len(counts) ** 2 / sum(1 / count for count in counts)  # images of one kind that would say as much
    variance += _PRIOR / (_PRIOR + effective) * max(0.0, spread / effective - variance)
    factor = math.exp(_Z * math.sqrt(variance) / spread)
    return value / (value + (1 - value) * factor), value / (value + (1 - value) / factor)
