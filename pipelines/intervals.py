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
    value of 0 or 1 has no variance, and gets the Wilson interval. A value nearer to 0 or 1 than a single image would
    bring it keeps within the Wilson interval, as the logit's would reach from 0 to 1.

    Args:
        value: a proportion, or a mean of proportions, from 0 to 1.
        variance: of the value, estimated from the sample.
        counts: the number of independent images of each kind on which the value rests.

    Returns:
        The lower and the upper end.
    """
    if value > 0.5:
        low, high = logit_interval(1 - value, variance, counts)
        return 1 - high, 1 - low
    within = [float(end) for end in wilson_interval(np.array(max(0.0, value)), np.array(min(counts)))]
    if value <= 0:
        return 0.0, within[1]
    spread = value * (1 - value)
    effective = len(counts) ** 2 / sum(1 / count for count in counts)  # images of one kind that would say as much
    variance += _PRIOR / (_PRIOR + effective) * max(0.0, spread / effective - variance)
    shift = min(_Z * math.sqrt(variance) / spread, 700)  # a float ends at e^709
    low, high = (value / (value + (1 - value) * math.exp(way * shift)) for way in (1, -1))
    return (low, high) if value * min(counts) >= 1 else (max(low, within[0]), min(high, within[1]))
