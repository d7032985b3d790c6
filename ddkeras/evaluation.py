"""Scores against labels: a Report, which holds numbers and draws nothing."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn import metrics

from ddkeras.runs import Run, package_versions
from pipelines import damage, reading
from pipelines.errors import DataError
from pipelines.examples import LABELS
from pipelines.records import NO_CATEGORY, Records


@dataclass(frozen=True)
class Report:
    """What a run scored on one split.

    `predictions` has one row per image: path, source, label (0 real, 1 fake), fake_probability, and where there
    are classes category, predicted_category (names, the first empty when unknown) and category_probability.
    """

    metrics: dict  # all numbers, ready for JSON
    predictions: pd.DataFrame


def evaluate(run: Run, records: Records, splits: list[str], *, verbose: int = 0) -> dict[str, Report]:
    """Score the labelled `splits` of `records` with the model of `run`.

    Raises:
        DataError: the records have other classes than the run, or a split is missing, unlabelled or
            damaged.
    """
    if run.categories and records.categories != run.categories:
        raise DataError(
            f"{records.folder} has the classes {', '.join(records.categories) or 'none'}, but the run {run.name} was "
            f"trained on {', '.join(run.categories) or 'none'}; give the records it was trained on, or train again"
        )
    for split in splits:
        records.split(split, labelled=True)
    scorer = run.load_scorer()
    with damage.named(*(records.splits[split] for split in splits)):
        return {split: _evaluate_split(run, scorer, records, split, verbose) for split in splits}


def authenticity_metrics(labels: np.ndarray, probabilities: np.ndarray, threshold: float) -> dict:
    """The numbers of the authenticity head; fake is the positive class.

    Args:
        labels: (n,), 0 real or 1 fake.
        probabilities: (n,), of being fake, in [0, 1].
        threshold: a probability from here on counts as fake.

    Returns:
        auc and average_precision (None when only one class is present), accuracy, precision, recall, f1 (0 where
        nothing was called fake), log_loss in nats, the threshold, and the confusion matrix (rows true, columns
        called; real first).
    """
    called = (probabilities >= threshold).astype(int)
    both = len(np.unique(labels)) == 2
    return {
        "auc": float(metrics.roc_auc_score(labels, probabilities)) if both else None,
        "average_precision": float(metrics.average_precision_score(labels, probabilities)) if both else None,
        "accuracy": float(metrics.accuracy_score(labels, called)),
        "precision": float(metrics.precision_score(labels, called, zero_division=0)),
        "recall": float(metrics.recall_score(labels, called, zero_division=0)),
        "f1": float(metrics.f1_score(labels, called, zero_division=0)),
        "log_loss": float(metrics.log_loss(labels, probabilities.astype(np.float64), labels=[0, 1])),
        "threshold": threshold,
        "confusion": metrics.confusion_matrix(labels, called, labels=range(len(LABELS))).tolist(),
        "labels": list(LABELS),
    }


def category_metrics(labels: np.ndarray, predicted: np.ndarray, names: list[str]) -> dict:
    """The numbers of the category head; examples without a category (-1) are left out.

    Args:
        labels, predicted: (n,), class indices.
        names: the classes.

    Returns:
        accuracy, macro_f1 over the classes that occur (both None when no example has a category), the confusion
        matrix (rows true, columns predicted), the names of its rows, and the number of examples.
    """
    known = labels != NO_CATEGORY
    labels, predicted = labels[known], predicted[known]
    numbers = {"accuracy": None, "macro_f1": None}
    confusion = np.zeros((len(names), len(names)), int)
    if len(labels):
        numbers["accuracy"] = float(metrics.accuracy_score(labels, predicted))
        numbers["macro_f1"] = float(
            metrics.f1_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0)
        )
        confusion = metrics.confusion_matrix(labels, predicted, labels=range(len(names)))
    return {**numbers, "confusion": confusion.tolist(), "categories": names, "examples": len(labels)}


def _evaluate_split(run: Run, scorer, records: Records, split: str, verbose: int) -> Report:
    batches = reading.inference(records, split, image_size=run.recipe.image_size, batch_size=run.recipe.batch)
    scores = scorer.predict(batches, verbose=verbose)
    facts = {name: np.array(values) for name, values in reading.facts(records, split).items()}
    predictions = pd.DataFrame({name: facts[name] for name in ("path", "source", "label")})
    predictions["fake_probability"] = scores["fake_probability"]
    numbers = {
        "split": split,
        "examples": len(predictions),
        "authenticity": authenticity_metrics(facts["label"], scores["fake_probability"], run.threshold),
    }
    if run.categories:
        predicted = scores["category_probabilities"].argmax(axis=-1)
        numbers["category"] = category_metrics(facts["category"], predicted, run.categories)
        names = np.array([*run.categories, ""])  # so that -1, no category, is the empty name
        predictions["category"] = names[facts["category"]]
        predictions["predicted_category"] = names[predicted]
        predictions["category_probability"] = scores["category_probabilities"].max(axis=-1)
    return Report(numbers | _provenance(run, records), predictions)


def _provenance(run: Run, records: Records) -> dict:
    """Every number has its data."""
    return {
        "run": run.name,
        "recipe": dataclasses.asdict(run.recipe),
        "records": records.fingerprint,
        "skipped_records": records.skipped,
        "trained_on_records": run.fingerprint,
        "versions": package_versions(),
    }
