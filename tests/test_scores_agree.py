"""The score of a file is the same in evaluate, predict and the SavedModel; test_parity.py has all formats of both."""

import csv

import numpy as np
import pytest
from conftest import encode, serve, with_each_verdict

from ddkeras import evaluation
from ddkeras.export import export_saved_model
from ddkeras.prediction import predict, write_csv
from ddkeras.scorers import of_run


@pytest.fixture(scope="module")
def run(run, records, tmp_path_factory):
    return with_each_verdict(run, records, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    return export_saved_model(run, tmp_path_factory.mktemp("export"))


def predictions(run, records):
    """What evaluating the run writes into predictions.csv."""
    scores = evaluation.score(run, records, ["validation"])["validation"]
    return evaluation.report(run, records, "validation", scores).predictions


def test_evaluate_predict_and_the_saved_model_agree(run, records, data, exported):
    evaluated = predictions(run, records)
    paths = [data / path for path in evaluated["path"]]
    predicted = list(predict(of_run(run), paths))
    served = serve(exported, paths)
    np.testing.assert_allclose([p.fake_probability for p in predicted], evaluated["fake_probability"], atol=1e-5)
    np.testing.assert_allclose(np.float64(served["fake_probability"]), evaluated["fake_probability"], atol=1e-5)
    np.testing.assert_allclose(
        np.float64(served["category_probabilities"]).max(axis=1), evaluated["category_probability"], atol=1e-5
    )
    np.testing.assert_allclose(np.float64(served["logit"]), evaluated["logit"], atol=1e-5)
    assert served["verdict"] == [p.verdict for p in predicted] == evaluated["verdict"].tolist()
    assert set(served["verdict"]) == {"real", "fake", "unsure"}
    assert served["category"] == [p.category for p in predicted]
    assert [p.category for p in predicted] == evaluated["predicted_category"].tolist()


def test_a_file_that_cannot_be_read_is_a_row_with_its_error(run, tmp_path):
    contents = {"good.jpg": encode(), "cut.jpg": encode()[:-300], "empty.png": b"", "page.jpg": b"<html>"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    summary = write_csv(tmp_path / "scores.csv", predict(of_run(run), sorted(tmp_path.glob("*.*g"))), total=5)
    with (tmp_path / "scores.csv").open() as file:
        rows = {row["path"].rpartition("/")[2]: row for row in csv.DictReader(file)}
    assert {name: row["error"] for name, row in rows.items()} == {
        "good.jpg": "",
        "cut.jpg": "damaged or cut short JPEG",
        "empty.png": "the file is empty",
        "page.jpg": "not an image in a known format",
        "gone.jpg": "No such file or directory",
    }
    assert rows["cut.jpg"]["fake_probability"] == rows["cut.jpg"]["verdict"] == ""
    assert 0 <= float(rows["good.jpg"]["fake_probability"]) <= 1
    assert (summary["images"], summary["errors"], sum(summary["verdicts"].values())) == (5, 4, 1)


def test_more_files_than_a_batch_keep_their_order(run, data):
    paths = sorted(data.rglob("*.jpg"))
    assert len(paths) > 4 * run.recipe.batch
    assert [prediction.path for prediction in predict(of_run(run), paths)] == [str(path) for path in paths]
