"""A file gets the same score from evaluate, predict and the SavedModel; test_parity.py covers all formats."""

import numpy as np
import pytest
from tiny import serve, with_each_verdict

from ddkeras.evaluation import results, scoring
from ddkeras.exporting.saved_model import export_saved_model
from ddkeras.inference.prediction import predict
from ddkeras.inference.scorers import scorer_for_run


@pytest.fixture(scope="module", params=[pytest.param("run", id="squash"), pytest.param("windows_run", id="windows")])
def run(request, records, tmp_path_factory):
    return with_each_verdict(request.getfixturevalue(request.param), records, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    return export_saved_model(run, tmp_path_factory.mktemp("export"))


def predictions(run, records):
    """The predictions.csv of an evaluation of the run."""
    scores = scoring.score(run, records, ["validation"])["validation"]
    return results.report(run, records, "validation", scores).predictions


def test_evaluate_predict_and_the_saved_model_agree(run, records, data, exported):
    evaluated = predictions(run, records)
    paths = [data / path for path in evaluated["path"]]
    predicted = list(predict(scorer_for_run(run), paths))
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
