"""Classification metrics of one split: pure functions of labels, scores and weights.

A bootstrap interval needs each metric a thousand times, so all of them take the weights of many resamplings at once.
The tests compare them with scikit-learn, which has no such form.
"""

import numpy as np
from sklearn.metrics import roc_auc_score

FALSE_POSITIVE_RATES = (0.01, 0.001)  # at which recall is reported
_BINS = 15  # of the calibration error, as in its paper


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """The area under the ROC curve, without resampling; NaN if there is only one label.

    Args:
        labels: (n,), 0 real or 1 fake.
        scores: (n,), rising with the probability of fake.
    """
    if len(np.unique(labels)) < 2:
        return float("nan")
    return float(roc_auc_score(labels, scores))


def ranking_metrics(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics that depend only on the order of the scores; fake is the positive class.

    Args:
        labels: (n,), 0 real or 1 fake.
        scores: (n,), rising with the probability of fake.
        weights: (resamplings, n), how often each image counts.

    Returns:
        Each float64 (resamplings,), NaN where one label is missing: `auc`; `average_precision`; `equal_error_rate`,
        where the false positive rate equals the false negative rate; and `recall_at_` each of
        `FALSE_POSITIVE_RATES`, the highest recall at a false positive rate no higher than that.
    """
    order = np.argsort(-scores, kind="stable")
    weights = weights[:, order].astype(np.float64)
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # tied scores share a threshold
    fakes = _cumulative(weights * labels[order], ends)
    reals = _cumulative(weights * (1 - labels[order]), ends)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, false_positive_rate = fakes / fakes[:, -1:], reals / reals[:, -1:]
        precision = np.nan_to_num(fakes / (fakes + reals))
        values = {
            "auc": (np.diff(false_positive_rate) * (recall[:, 1:] + recall[:, :-1]) / 2).sum(axis=1),
            "average_precision": (np.diff(recall) * precision[:, 1:]).sum(axis=1),
            "equal_error_rate": _equal_error_rate(false_positive_rate, recall),
        }
    for rate in FALSE_POSITIVE_RATES:
        values[f"recall_at_{rate:g}"] = np.where(false_positive_rate <= rate, recall, 0).max(axis=1)
    has_both = (fakes[:, -1] > 0) & (reals[:, -1] > 0)
    return {name: np.where(has_both, value, np.nan) for name, value in values.items()}


def threshold_metrics(labels: np.ndarray, is_positive: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of decisions; fake is the positive class.

    Args:
        labels: (n,), 0 real or 1 fake.
        is_positive: bool (n,), whether each image is called fake.
        weights: (resamplings, n), how often each image counts.

    Returns:
        `accuracy`, `balanced_accuracy`, `precision`, `recall`, `f1` and `false_positive_rate`, each float64
        (resamplings,), NaN where undefined.
    """
    is_fake = labels == 1
    cells = np.stack([is_fake & is_positive, is_fake, ~is_fake & is_positive, ~is_fake], axis=1)
    true_positives, fakes, false_positives, reals = (weights @ cells.astype(np.float64)).T
    recall, false_positive_rate = _ratio(true_positives, fakes), _ratio(false_positives, reals)
    return {
        "accuracy": _ratio(true_positives + reals - false_positives, fakes + reals),
        "balanced_accuracy": (recall + 1 - false_positive_rate) / 2,
        "precision": _ratio(true_positives, true_positives + false_positives),
        "recall": recall,
        "f1": _ratio(2 * true_positives, true_positives + false_positives + fakes),
        "false_positive_rate": false_positive_rate,
    }


def probability_metrics(labels: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """How reliable the predicted probabilities are.

    Args:
        labels: (n,), 0 real or 1 fake.
        logits: (n,), of fake.
        weights: (resamplings, n), how often each image counts.

    Returns:
        Each float64 (resamplings,): `log_loss` in nats; `brier`, the mean squared error of the probability; and
        `calibration_error`, the expected calibration error of the probability of fake in 15 bins of equal width
        (Naeini et al. 2015, https://doi.org/10.1609/aaai.v29i1.9602).
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
    """Metrics of the category head.

    Args:
        labels, predicted: (n,), class indices.
        classes: number of classes.
        weights: (resamplings, n), how often each image counts.

    Returns:
        `accuracy` and `macro_f1`, the latter over the classes that occur, float64 (resamplings,); and for each class
        `precision`, `recall` and `f1`, (resamplings, classes), NaN where undefined.
    """
    one_hot = np.eye(classes)
    correct, occurring, predictions = (
        weights @ rows for rows in (one_hot[labels] * one_hot[predicted], one_hot[labels], one_hot[predicted])
    )
    f1 = np.where(occurring > 0, _ratio(2 * correct, occurring + predictions), np.nan)
    return {
        "accuracy": _ratio(correct.sum(axis=1), occurring.sum(axis=1)),
        "macro_f1": _ratio(np.nansum(f1, axis=1), np.isfinite(f1).sum(axis=1)),
        "precision": _ratio(correct, predictions),
        "recall": _ratio(correct, occurring),
        "f1": f1,
    }


def kinds_by_metric(labels: np.ndarray, is_positive: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """The kinds of images on which each metric rests; those not listed rest on all.

    Args:
        labels: (n,), 0 real or 1 fake.
        is_positive: bool (n,), whether each image is called fake.

    Returns:
        By the name of a metric, masks of the images, bool (n,), by the plural name of their kind.
    """
    reals, fakes = {"reals": labels == 0}, {"fakes": labels == 1}
    return {
        **dict.fromkeys(("auc", "average_precision", "equal_error_rate", "balanced_accuracy"), reals | fakes),
        **{f"recall_at_{rate:g}": reals | fakes for rate in FALSE_POSITIVE_RATES},
        **dict.fromkeys(("recall", "f1"), fakes),
        "false_positive_rate": reals,
        "precision": {"images called fake": is_positive},
    }


def probability(logits):
    """The sigmoid, without overflow."""
    return np.exp(-np.logaddexp(0, -logits))


def _cumulative(weights: np.ndarray, ends: np.ndarray) -> np.ndarray:
    sums = np.cumsum(weights, axis=1)[:, ends]
    return np.pad(sums, ((0, 0), (1, 0)))


def _equal_error_rate(false_positive_rate: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """Where both error rates are equal, interpolated linearly between the two nearest thresholds."""
    gap = false_positive_rate + recall - 1  # rises from -1 to 1
    after = np.maximum((gap >= 0).argmax(axis=1), 1)
    rows = np.arange(len(gap))
    share = gap[rows, after] / (gap[rows, after] - gap[rows, after - 1])
    step = false_positive_rate[rows, after] - false_positive_rate[rows, after - 1]
    return false_positive_rate[rows, after] - share * step


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Element by element, NaN where `whole` is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)
