"""Two runs compared: the paired difference, and the images that changed sides."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from ddkeras.evaluation import comparison, error_analysis
from ddkeras.exceptions import ConfigError


def predictions(logits, labels, **columns) -> pd.DataFrame:
    paths = [f"{number}.jpg" for number in range(len(labels))]
    probabilities = 1 / (1 + np.exp(-np.asarray(logits, float)))
    verdicts = np.where(probabilities >= 0.5, "fake", "real")
    table = {"path": paths, "group": paths, "label": labels, "logit": logits, "fake_probability": probabilities}
    return pd.DataFrame(table | {"verdict": verdicts} | columns)


@pytest.fixture
def labels():
    return np.tile([0, 1], 200)


def test_a_small_difference_that_all_images_share_is_none_of_luck(labels):
    logits = np.random.default_rng(0).normal(np.where(labels, 0.5, -0.5), 1)
    better = logits + np.where(labels, 0.2, -0.2)
    found, _ = comparison.compare(predictions(logits, labels), predictions(better, labels))
    auc = found["measures"]["auc"]
    assert auc["differs"]
    assert auc["difference"]["value"] == pytest.approx(auc["b"]["value"] - auc["a"]["value"])
    assert auc["difference"]["high"] - auc["difference"]["low"] < (auc["a"]["high"] - auc["a"]["low"]) / 2


def test_a_difference_of_noise_may_be_luck(labels):
    random = np.random.default_rng(1)
    a, b = (random.normal(np.where(labels, 0.5, -0.5), 1) for _ in range(2))
    found, _ = comparison.compare(predictions(a, labels), predictions(b, labels))
    assert not found["measures"]["auc"]["differs"]


def test_a_run_is_no_better_than_itself(labels):
    logits = np.random.default_rng(0).normal(size=400)
    found, changed = comparison.compare(predictions(logits, labels), predictions(logits, labels))
    assert found["measures"]["auc"]["difference"] == {"value": 0, "low": 0, "high": 0}
    assert (found["fixed"], found["regressed"], len(changed)) == (0, 0, 0)
    assert not any(one["differs"] for one in found["measures"].values())


def test_images_that_changed_sides_are_listed_by_how_far_they_moved():
    labels = [0, 1, 1, 0, 1]
    a = predictions([-1.0, -1.0, -3.0, -1.0, 2.0], labels)
    b = predictions([2.0, 1.0, 3.0, -2.0, 0.0], labels, verdict=["fake", "fake", "fake", "real", "unsure"])
    found, changed = comparison.compare(a, b.sample(frac=1, random_state=0))
    assert (found["examples"], found["fixed"], found["regressed"]) == (5, 2, 2)
    assert list(zip(changed["path"], changed["change"], strict=True)) == [
        ("2.jpg", "fixed"),
        ("1.jpg", "fixed"),
        ("0.jpg", "regressed"),
        ("4.jpg", "regressed"),
    ]
    assert list(changed["verdict_b"]) == ["fake", "fake", "fake", "unsure"]


def test_only_the_same_images_are_compared(labels):
    table = predictions(np.zeros(400), labels)
    with pytest.raises(ConfigError, match="were evaluated on different images"):
        comparison.compare(table, table[1:])
    with pytest.raises(ConfigError, match="the labels were changed between the two evaluations"):
        comparison.compare(table, table.assign(label=1 - table["label"]))


def test_a_path_that_is_no_utf8_is_read_as_it_was_written_and_compared(run, tmp_path):
    table = predictions([1.0, -2.0], [1, 0], source="", category="cats", predicted_category="cats")
    table["path"] = pd.Series(["caf\udce9.jpg", "007"], dtype=object)
    folder = tmp_path / "evaluation" / "test"
    folder.mkdir(parents=True)
    table.to_csv(folder / "predictions.csv", index=False, errors="surrogateescape")
    found = comparison.stored_predictions(dataclasses.replace(run, folder=tmp_path), "test")
    assert list(found["path"]) == ["caf\udce9.jpg", "007"]
    assert comparison.compare(found, found)[0]["examples"] == 2
    wrong = error_analysis.find(found.assign(verdict=["real", "real"], category_probability=0.9))
    assert [list(rows["path"]) for _, rows in wrong.groupby("path")] == [["caf\udce9.jpg"]]


def test_a_run_that_was_not_evaluated_says_how(run):
    with pytest.raises(ConfigError, match=r"was not evaluated on holdout; do so with: ddk .* --split holdout$"):
        comparison.stored_predictions(run, "holdout")
