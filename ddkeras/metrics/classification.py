"""What is counted while a model trains, and what a split is measured by: pure functions of targets and logits.

Those of a split take the weights of many resamplings at once, as an interval needs a thousand of them; scikit-learn,
which they are held against in the tests, would take longer over these than the network over the images.
"""

import numpy as np
from sklearn.metrics import roc_auc_score

FALSE_ALARM_RATES = (0.01, 0.001)  # at which recall is told
_BINS = 15  # of the calibration error, as in its source

# --- in training -----------------------------------------------------------------------------------------------


def auc(labels, logits) -> float:
    """The area under the ROC curve of any score that rises with the logit; NaN where there is one label alone.

    Args:
        labels: (n,), 0 real or 1 fake.
        logits: (n,).
    """
    if len(np.unique(labels)) < 2:
        return float("nan")
    return float(roc_auc_score(labels, logits))


# --- of a split ------------------------------------------------------------------------------------------------


def ranking(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """What depends on the order of the scores alone; fake is the positive class.

    Args:
        labels: (n,), 0 real or 1 fake.
        scores: (n,), which rise with the probability of fake.
        weights: (resamplings, n), how often each image counts.

    Returns:
        Each float64 (resamplings,), NaN where one label is missing: `auc`; `average_precision`, the mean of the
        precisions at each recall; `equal_error_rate`, where as large a share of reals as of fakes is on the wrong
        side; and `recall_at_` each of `FALSE_ALARM_RATES`, at the lowest threshold that raises no more false alarms.
    """
    order = np.argsort(-scores, kind="stable")
    weights = weights[:, order].astype(np.float64)
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # ties are called together
    fakes = _cumulative(weights * labels[order], ends)
    reals = _cumulative(weights * (1 - labels[order]), ends)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, false_alarms = fakes / fakes[:, -1:], reals / reals[:, -1:]
        precision = np.nan_to_num(fakes / (fakes + reals))
        values = {
            "auc": (np.diff(false_alarms) * (recall[:, 1:] + recall[:, :-1]) / 2).sum(axis=1),
            "average_precision": (np.diff(recall) * precision[:, 1:]).sum(axis=1),
            "equal_error_rate": _equal_error_rate(false_alarms, recall),
        }
    for rate in FALSE_ALARM_RATES:
        values[f"recall_at_{rate:g}"] = np.where(false_alarms <= rate, recall, 0).max(axis=1)
    has_both = (fakes[:, -1] > 0) & (reals[:, -1] > 0)
    return {name: np.where(has_both, found, np.nan) for name, found in values.items()}


def threshold_metrics(labels: np.ndarray, is_called: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """What depends on which images are called fake.

    Args:
        labels: (n,), 0 real or 1 fake.
        is_called: (n,), whether each is.
        weights: (resamplings, n), how often each image counts.

    Returns:
        Each float64 (resamplings,), NaN where it is a share of nothing: `accuracy`; `balanced_accuracy`, the mean of
        that on reals and on fakes; `precision`, `recall` and `f1` of the fakes; `false_positive_rate`, of the reals.
    """
    is_fake = labels == 1
    cells = np.stack([is_fake & is_called, is_fake, ~is_fake & is_called, ~is_fake], axis=1)
    hits, fakes, alarms, reals = (weights @ cells.astype(np.float64)).T
    recall, false_positive_rate = _share(hits, fakes), _share(alarms, reals)
    return {
        "accuracy": _share(hits + reals - alarms, fakes + reals),
        "balanced_accuracy": (recall + 1 - false_positive_rate) / 2,
        "precision": _share(hits, hits + alarms),
        "recall": recall,
        "f1": _share(2 * hits, hits + alarms + fakes),
        "false_positive_rate": false_positive_rate,
    }


def probabilistic(labels: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """How far probabilities can be taken at their word.

    Args:
        labels: (n,), 0 real or 1 fake.
        logits: (n,), of fake.
        weights: (resamplings, n), how often each image counts.

    Returns:
        Each float64 (resamplings,): `log_loss` in nats; `brier`, the mean squared error of the probability; and
        `calibration_error`, by how much probabilities of fake are off the shares of fakes, in 15 bins of equal
        width (Naeini et al. 2015, https://doi.org/10.1609/aaai.v29i1.9602, for the class of fakes).
    """
    logits, weights = logits.astype(np.float64), weights.astype(np.float64)
    probabilities = probability(logits)
    total = weights.sum(axis=1)
    losses = np.logaddexp(0, np.where(labels == 1, -logits, logits))
    bins = np.minimum((probabilities * _BINS).astype(int), _BINS - 1)
    surplus = np.eye(_BINS)[bins] * (probabilities - labels)[:, None]
    return {
        "log_loss": weights @ losses / total,
        "brier": weights @ (probabilities - labels) ** 2 / total,
        "calibration_error": np.abs(weights @ surplus).sum(axis=1) / total,
    }


def multiclass_metrics(
    labels: np.ndarray, predicted: np.ndarray, classes: int, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """The measures of the category head.

    Args:
        labels, predicted: (n,), class indices.
        classes: how many there are.
        weights: (resamplings, n), how often each image counts.

    Returns:
        `accuracy` and `macro_f1`, over the classes that occur, float64 (resamplings,); and of each class `precision`,
        `recall` and `f1`, (resamplings, classes), NaN where it is a share of nothing.
    """
    of = np.eye(classes)
    right, occurs, is_said = (weights @ rows for rows in (of[labels] * of[predicted], of[labels], of[predicted]))
    f1 = np.where(occurs > 0, _share(2 * right, occurs + is_said), np.nan)
    return {
        "accuracy": _share(right.sum(axis=1), occurs.sum(axis=1)),
        "macro_f1": _share(np.nansum(f1, axis=1), np.isfinite(f1).sum(axis=1)),
        "precision": _share(right, is_said),
        "recall": _share(right, occurs),
        "f1": f1,
    }


def probability(logits):
    """The sigmoid, without overflow."""
    return np.exp(-np.logaddexp(0, -logits))


def _cumulative(weights: np.ndarray, ends: np.ndarray) -> np.ndarray:
    sums = np.cumsum(weights, axis=1)[:, ends]
    return np.pad(sums, ((0, 0), (1, 0)))


def _equal_error_rate(false_alarms: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """Where both rates of error meet, on the line between the two thresholds around that."""
    gap = false_alarms + recall - 1  # rises from -1 to 1
    after = np.maximum((gap >= 0).argmax(axis=1), 1)
    rows = np.arange(len(gap))
    share = gap[rows, after] / (gap[rows, after] - gap[rows, after - 1])
    return false_alarms[rows, after] - share * (false_alarms[rows, after] - false_alarms[rows, after - 1])


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)
