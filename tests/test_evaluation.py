"""Metrics against numbers worked out by hand, and a run measured."""

from dataclasses import replace

import numpy as np
import pytest

from ddkeras import evaluation
from ddkeras.evaluation import authenticity_metrics, category_metrics
from pipelines.errors import DataError


def test_authenticity_numbers():
    # Ranked from fake to real: 0.9 fake, 0.8 real, 0.6 fake, 0.3 fake, 0.2 real, 0.1 real
    labels = np.array([1, 0, 1, 1, 0, 0])
    probabilities = np.array([0.9, 0.8, 0.6, 0.3, 0.2, 0.1])
    found = authenticity_metrics(labels, probabilities, threshold=0.5)
    assert found["auc"] == pytest.approx(7 / 9)  # 7 of the 9 fake-real pairs are in order
    assert found["average_precision"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["precision"] == found["recall"] == found["f1"] == pytest.approx(2 / 3)
    assert found["log_loss"] == pytest.approx(-np.log(np.array([0.9, 0.2, 0.6, 0.3, 0.8, 0.9])).mean())
    assert found["labels"] == ["real", "fake"]
    assert found["confusion"] == [[2, 1], [1, 2]]  # true against called


def test_the_threshold_itself_counts_as_fake():
    found = authenticity_metrics(np.array([0, 1]), np.array([0.4, 0.7]), threshold=0.7)
    assert (found["precision"], found["recall"]) == (1, 1)


def test_with_one_label_only_what_ranks_is_undefined_and_the_rest_is_given():
    found = authenticity_metrics(np.array([1, 1]), np.array([0.9, 0.2]), threshold=0.5)
    assert found["auc"] is None
    assert found["average_precision"] is None
    assert found["accuracy"] == found["recall"] == 0.5


def test_category_numbers_leave_out_what_has_no_category():
    labels = np.array([0, 0, 1, 1, -1])
    predicted = np.array([0, 1, 1, 1, 0])
    found = category_metrics(labels, predicted, ["cats", "dogs"])
    assert found["accuracy"] == 3 / 4
    assert found["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found["confusion"] == [[1, 1], [0, 2]]
    assert found["examples"] == 4


def test_category_numbers_of_nothing_are_none():
    found = category_metrics(np.array([-1]), np.array([0]), ["cats", "dogs"])
    assert (found["accuracy"], found["macro_f1"], found["confusion"]) == (None, None, [[0, 0], [0, 0]])


def test_a_run_is_measured_on_each_split(run, records):
    reports = evaluation.evaluate(run, records, ["train", "validation"])
    assert {split: report.metrics["examples"] for split, report in reports.items()} == {"train": 24, "validation": 12}
    report = reports["validation"]
    assert list(report.predictions) == [
        "path",
        "source",
        "label",
        "fake_probability",
        "category",
        "predicted_category",
        "category_probability",
    ]
    assert report.metrics["records"] == report.metrics["trained_on_records"] == records.fingerprint
    assert report.metrics["recipe"]["backbone"] == "tiny"
    assert {"ddkeras", "keras", "tensorflow"} <= set(report.metrics["versions"])
    again = authenticity_metrics(
        report.predictions["label"].to_numpy(), report.predictions["fake_probability"].to_numpy(), 0.5
    )
    assert again == report.metrics["authenticity"]
    in_path = report.predictions["path"].str.split("/").str[-2]
    assert (report.predictions["category"] == in_path).all()


def test_records_of_other_classes_are_refused(run, records):
    with pytest.raises(DataError, match=r"has the classes cats, but the run .* was trained on animals, vehicles"):
        evaluation.evaluate(run, replace(records, categories=["cats"]), ["validation"])


def test_an_unlabelled_split_is_refused(run, records):
    with pytest.raises(DataError, match="has no labelled split test; it has train, validation"):
        evaluation.evaluate(run, records, ["test"])
