"""What a sweep says, by hand on simulated scores; and one that is really done."""

import numpy as np
import pytest

from ddkeras.evaluation import robustness, scoring
from ddkeras.evaluation.robustness import Sweep
from ddkeras.evaluation.scoring import Scores
from ddkeras.metrics.calibration import Limits, OperatingPoint
from pipelines.transforms.perturbations import MILD_PERTURBATIONS, PERTURBATIONS

POINT = OperatingPoint(limits=Limits(0.0, 0.0))
NAMES = list(PERTURBATIONS)


def sweep(change=lambda name, labels, logits: logits, n: int = 200) -> Sweep:
    """As many fakes around a logit of 2 as reals around -2, each way changed as `change` says."""
    labels = np.tile([0, 1], n // 2)
    logits = np.random.default_rng(0).normal(np.where(labels, 2, -2), 1).astype(np.float32)
    paths = np.array([f"{number}.jpg" for number in range(n)])
    scores = Scores(paths, labels, np.array([""] * n), paths, np.full(n, -1), logits, None)
    changed = np.stack([change(name, labels, logits) for name in NAMES])
    return Sweep(scores, NAMES, changed, (changed >= 0).astype(np.int32))


def test_as_many_images_of_each_label_are_chosen():
    labels = np.repeat([0, 1], [300, 20])
    scores = Scores(*[labels] * 5, logits=labels, category_probabilities=None)
    places = robustness.chosen(scores, images=100)
    assert np.bincount(labels[places]).tolist() == [50, 20]
    assert (np.diff(places) > 0).all()
    np.testing.assert_array_equal(places, robustness.chosen(scores, images=100))


def test_robustness_has_a_row_for_each_way_and_one_for_none():
    found = robustness.robustness(
        sweep(lambda name, labels, logits: -logits if name == "JPEG 30" else logits - 9 * (name == "blur, sigma 3")),
        POINT,
        [],
    )
    assert found["images"] == 200
    rows = {row["name"]: row for row in found["variants"]}
    assert list(rows) == ["as they are", *NAMES]
    assert rows["as they are"]["auc"]["value"] > 0.99
    assert rows["JPEG 30"]["auc"]["value"] < 0.01
    assert rows["blur, sigma 3"]["auc"] == rows["as they are"]["auc"], "all images move alike"
    assert rows["blur, sigma 3"]["called_fake_of_fake"]["value"] == 0
    assert rows["as they are"]["called_fake_of_real"]["value"] < 0.05


def test_a_model_that_reads_the_picture_passes_the_bias_probe():
    noise = np.random.default_rng(1).normal(0, 0.2, 200)
    found = robustness.bias_probe(sweep(lambda name, labels, logits: logits + noise))
    assert found["verdict"] == "ok"
    assert found["swing"]["value"] < 0.01
    assert found["text"].startswith("the model does not read the codec: its AUC is ")


@pytest.mark.parametrize(("moved", "verdict"), [(2.3, "warn"), (3.0, "fail")])
def test_a_model_that_reads_the_codec_does_not(moved, verdict):
    """To which a fake that is saved as the reals were, by JPEG 75, looks more like one."""
    found = robustness.bias_probe(sweep(lambda name, labels, logits: logits - moved * labels * (name == "JPEG 75")))
    assert (found["by"], found["verdict"]) == ("JPEG 75", verdict)
    assert list(found["auc"]) == ["JPEG 90", "JPEG 75", "WebP 80"]
    auc = {way: estimate["value"] for way, estimate in found["auc"]["JPEG 75"].items()}
    assert auc["neither"] == auc["reals"] > auc["fakes"] == auc["both"]
    assert found["swing"]["value"] == pytest.approx(auc["neither"] - auc["fakes"])
    assert found["swing"]["low"] < found["swing"]["value"] < found["swing"]["high"]
    assert "see what ddk audit says" in found["text"]
    assert f"{auc['fakes']:.3f} with the fakes saved as JPEG 75" in found["text"]
    mild = {way: estimate["value"] for way, estimate in found["auc"]["JPEG 90"].items()}
    assert len(set(mild.values())) == 1


def test_the_bias_of_one_label_cannot_be_told():
    both = sweep()
    fakes = Sweep(both.scores.at(both.scores.labels == 1), NAMES, both.logits[:, 1::2], both.verdicts[:, 1::2])
    found = robustness.bias_probe(fakes)
    assert (found["verdict"], found["swing"]["value"]) == ("warn", None)


def test_stability_counts_verdicts_that_flip_in_any_mild_way():
    def change(name, labels, logits):
        changed = logits.copy()
        if name == "JPEG 90":
            changed[3], changed[4] = -0.1, 8.0  # a fake and a real
        if name == "WebP 90":
            changed[3] = -1.0
        if name not in MILD_PERTURBATIONS:
            changed = -logits
        return changed

    plain = sweep(change)
    found = robustness.stability(plain, POINT, [])
    assert found["by"] == ["JPEG 95", "JPEG 90", "WebP 90"]
    assert found["flips"]["value"] == 2 / 200
    assert [row["path"] for row in found["worst"]] == ["4.jpg", "3.jpg"]
    assert found["worst"][1]["label"] == 1
    assert found["worst"][1]["verdicts"] == ["fake", "fake", "real", "real"]
    np.testing.assert_allclose(found["worst"][0]["probabilities"][2], 1 / (1 + np.exp(-8)), rtol=1e-5)


def test_where_nothing_flips_none_is_the_worst():
    found = robustness.stability(sweep(), POINT, [])
    assert found["flips"]["value"] == 0
    assert found["flips"]["high"] == pytest.approx(0.0188, abs=1e-4)
    assert found["worst"] == []


def test_a_run_is_swept(run, records):
    scores = scoring.score(run, records, ["validation"])["validation"]
    places, seen = robustness.chosen(scores, images=6), []
    found = robustness.sweep(run, records, "validation", scores, places, lambda *done: seen.append(done))
    assert seen == [(4, 6), (6, 6)]
    assert found.logits.shape == found.verdicts.shape == (len(PERTURBATIONS), 6)
    np.testing.assert_array_equal(found.scores.paths, scores.paths[places])
    change = np.abs(found.logits - found.scores.logits).mean(axis=1)
    assert (change > 0).all(), "each way changes a score"
    again = robustness.sweep(run, records, "validation", scores, places, lambda *done: None)
    np.testing.assert_array_equal(again.logits, found.logits)
