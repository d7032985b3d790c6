"""Two runs compared: the paired difference, and the images whose verdict changed."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from ddkeras.evaluation import comparison, error_analysis
from ddkeras.exceptions import ConfigError
from ddkeras.metrics.bootstrap import Estimate
from pipelines.spreadsheets import harmless_table


def predictions(logits, labels, **columns) -> pd.DataFrame:
    paths = [f"{number}.jpg" for number in range(len(labels))]
    probabilities = 1 / (1 + np.exp(-np.asarray(logits, float)))
    verdicts = np.where(probabilities >= 0.5, "fake", "real")
    table = {"path": paths, "group": paths, "label": labels, "logit": logits, "fake_probability": probabilities}
    return pd.DataFrame(table | {"verdict": verdicts} | columns)


@pytest.fixture
def labels():
    return np.tile([0, 1], 200)


def test_a_small_difference_shared_by_all_images_is_significant(labels):
    logits = np.random.default_rng(0).normal(np.where(labels, 0.5, -0.5), 1)
    better = logits + np.where(labels, 0.2, -0.2)
    auc = comparison.compare(predictions(logits, labels), predictions(better, labels)).metrics["auc"]
    assert auc.differs
    assert auc.difference.value == pytest.approx(auc.b.value - auc.a.value)
    assert auc.difference.high - auc.difference.low < (auc.a.high - auc.a.low) / 2


def test_a_difference_from_noise_is_not_significant(labels):
    random = np.random.default_rng(1)
    a, b = (random.normal(np.where(labels, 0.5, -0.5), 1) for _ in range(2))
    assert not comparison.compare(predictions(a, labels), predictions(b, labels)).metrics["auc"].differs


def test_a_run_does_not_differ_from_itself(labels):
    logits = np.random.default_rng(0).normal(size=400)
    compared = comparison.compare(predictions(logits, labels), predictions(logits, labels))
    assert compared.metrics["auc"].difference == Estimate(0, 0, 0)
    assert (compared.fixed, compared.regressed, len(compared.changed)) == (0, 0, 0)
    assert not any(metric.differs for metric in compared.metrics.values())


def test_a_metric_that_is_undefined_does_not_differ():
    table = predictions([1.0, 2.0], [1, 1])
    compared = comparison.compare(table, table)
    assert not compared.metrics["auc"].differs
    assert compared.to_dict()["measures"]["auc"]["difference"] == {"value": None, "low": None, "high": None}


def test_a_comparison_as_json(labels):
    logits = np.random.default_rng(0).normal(size=400)
    as_dict = comparison.compare(predictions(logits, labels), predictions(logits, labels)).to_dict()
    assert list(as_dict) == ["examples", "measures", "fixed", "regressed"]
    measures = ["auc", "average_precision", "log_loss", "accuracy", "recall", "false_positive_rate"]
    assert list(as_dict["measures"]) == measures
    assert as_dict["measures"]["recall"]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert list(as_dict["measures"]["recall"]) == ["a", "b", "difference", "differs"]
    json.dumps(as_dict)


def test_images_whose_verdict_changed_are_listed_by_the_change_of_probability():
    labels = [0, 1, 1, 0, 1]
    a = predictions([-1.0, -1.0, -3.0, -1.0, 2.0], labels)
    b = predictions([2.0, 1.0, 3.0, -2.0, 0.0], labels, verdict=["fake", "fake", "fake", "real", "unsure"])
    compared = comparison.compare(a, b.sample(frac=1, random_state=0))
    changed = compared.changed
    assert (compared.examples, compared.fixed, compared.regressed) == (5, 2, 2)
    assert list(zip(changed["path"], changed["change"], strict=True)) == [
        ("2.jpg", "fixed"),
        ("1.jpg", "fixed"),
        ("0.jpg", "regressed"),
        ("4.jpg", "regressed"),
    ]
    assert list(changed["verdict_b"]) == ["fake", "fake", "fake", "unsure"]


def test_different_images_or_labels_are_refused(labels):
    table = predictions(np.zeros(400), labels)
    with pytest.raises(ConfigError, match="were evaluated on different images"):
        comparison.compare(table, table[1:])
    with pytest.raises(ConfigError, match="the labels were changed between the two evaluations"):
        comparison.compare(table, table.assign(label=1 - table["label"]))


def test_a_path_that_is_not_utf8_survives_storing_and_is_compared(run, tmp_path):
    table = predictions([1.0, -2.0], [1, 0], source="", true_category="cats", predicted_category="cats")
    table["path"] = pd.Series(["caf\udce9.jpg", "007"], dtype=object)
    folder = tmp_path / "evaluation" / "test"
    folder.mkdir(parents=True)
    table.to_csv(folder / "predictions.csv", index=False, errors="surrogateescape")
    stored = comparison.stored_predictions(dataclasses.replace(run, folder=tmp_path), "test")
    assert list(stored["path"]) == ["caf\udce9.jpg", "007"]
    assert comparison.compare(stored, stored).examples == 2
    errors = error_analysis.find(stored.assign(verdict=["real", "real"], category_probability=0.9))
    assert [list(rows["path"]) for _, rows in errors.groupby("path")] == [["caf\udce9.jpg"]]


def test_a_split_that_was_not_evaluated_is_refused(run):
    with pytest.raises(ConfigError, match=r"was not evaluated on holdout; do so with: ddk .* --split holdout$"):
        comparison.stored_predictions(run, "holdout")


def test_a_path_that_is_a_formula_is_written_harmless_and_read_as_it_is(run, tmp_path):
    folder = tmp_path / "evaluation/validation"
    folder.mkdir(parents=True)
    table = pd.DataFrame({"path": ["=1.jpg", "'=1.jpg", "007"], "fake_probability": [0.5, 0.25, 1.0]})
    harmless_table(table).to_csv(folder / "predictions.csv", index=False)
    assert (folder / "predictions.csv").read_text().splitlines()[1] == "'=1.jpg,0.5"
    read = comparison.stored_predictions(dataclasses.replace(run, folder=tmp_path), "validation")
    assert read.to_dict("list") == table.to_dict("list")
