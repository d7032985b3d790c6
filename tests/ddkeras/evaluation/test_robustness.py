"""Metrics of perturbed images, by hand on simulated scores and from real perturbations."""

import numpy as np
import pytest

from ddkeras.evaluation import robustness, scoring
from ddkeras.evaluation.robustness import PerturbedScores
from ddkeras.evaluation.scoring import Scores
from ddkeras.inference import scorers
from ddkeras.metrics.calibration import Limits, OperatingPoint
from pipelines.transforms.perturbations import MILD_PERTURBATIONS, PERTURBATIONS

POINT = OperatingPoint(limits=Limits(0.0, 0.0))
NAMES = list(PERTURBATIONS)


def simulated(change=lambda name, labels, logits: logits, n: int = 200) -> PerturbedScores:
    """As many fakes around a logit of 2 as reals around -2; `change` gives the logits under a perturbation."""
    labels = np.tile([0, 1], n // 2)
    logits = np.random.default_rng(0).normal(np.where(labels, 2, -2), 1).astype(np.float32)
    paths = np.array([f"{number}.jpg" for number in range(n)])
    scores = Scores(paths, labels, np.array([""] * n), paths, np.full(n, -1), logits, None)
    changed = np.stack([change(name, labels, logits) for name in NAMES])
    return PerturbedScores(scores, NAMES, changed, (changed >= 0).astype(np.int32))


def test_a_sample_has_half_of_each_label_as_far_as_there_are_enough():
    labels = np.repeat([0, 1], [300, 20])
    indices = robustness.sample(labels, images=100)
    assert np.bincount(labels[indices]).tolist() == [50, 20]
    assert (np.diff(indices) > 0).all()
    np.testing.assert_array_equal(indices, robustness.sample(labels, images=100))
    assert np.bincount(labels[robustness.sample(labels, images=1)]).tolist() == [1, 1]
    assert np.bincount(labels[robustness.sample(labels, images=3)]).tolist() == [2, 2]


def test_robustness_has_a_row_for_each_perturbation_and_one_without():
    perturbed = simulated(
        lambda name, labels, logits: -logits if name == "JPEG 30" else logits - 9 * (name == "blur, sigma 3")
    )
    metrics = robustness.robustness(perturbed, POINT, [])
    assert metrics.images == 200
    variants = {variant.name: variant for variant in metrics.variants}
    assert list(variants) == ["as they are", *NAMES]
    assert variants["as they are"].auc.value > 0.99
    assert variants["JPEG 30"].auc.value < 0.01
    assert variants["blur, sigma 3"].auc == variants["as they are"].auc, "the ranking is the same"
    assert variants["blur, sigma 3"].recall.value == 0
    assert variants["as they are"].false_positive_rate.value < 0.05


def test_a_model_that_ignores_the_codec_passes_the_bias_probe():
    noise = np.random.default_rng(1).normal(0, 0.2, 200)
    probe = robustness.bias_probe(simulated(lambda name, labels, logits: logits + noise))
    assert probe.verdict == "ok"
    assert probe.swing.value < 0.01
    assert probe.text.startswith("the model does not rely on the codec: its AUC is ")


@pytest.mark.parametrize(("moved", "verdict"), [(2.3, "warn"), (3.0, "fail")])
def test_a_model_that_relies_on_the_codec_does_not(moved, verdict):
    """It takes a fake for a real when it is saved with the reals' codec, JPEG 75."""
    probe = robustness.bias_probe(
        simulated(lambda name, labels, logits: logits - moved * labels * (name == "JPEG 75"))
    )
    assert (probe.by, probe.verdict) == ("JPEG 75", verdict)
    assert list(probe.auc) == ["JPEG 90", "JPEG 75", "WebP 80"]
    auc = {variant: estimate.value for variant, estimate in probe.auc["JPEG 75"].items()}
    assert auc["neither"] == auc["reals"] > auc["fakes"] == auc["both"]
    assert probe.swing.value == pytest.approx(auc["neither"] - auc["fakes"])
    assert probe.swing.low < probe.swing.value < probe.swing.high
    assert "run ddk audit on the data" in probe.text
    assert f"{auc['fakes']:.3f} with the fakes saved as JPEG 75" in probe.text
    assert len({estimate.value for estimate in probe.auc["JPEG 90"].values()}) == 1


def test_with_one_label_the_bias_probe_is_undefined():
    both = simulated()
    fakes = PerturbedScores(
        both.scores.at(both.scores.labels == 1), NAMES, both.logits[:, 1::2], both.verdicts[:, 1::2]
    )
    probe = robustness.bias_probe(fakes)
    assert probe.verdict == "warn"
    assert probe.swing.is_missing


def test_stability_counts_verdicts_that_flip_under_any_mild_perturbation():
    def change(name, labels, logits):
        changed = logits.copy()
        if name == "JPEG 90":
            changed[3], changed[4] = -0.1, 8.0  # a fake and a real
        if name == "WebP 90":
            changed[3] = -1.0
        if name not in MILD_PERTURBATIONS:
            changed = -logits
        return changed

    stability = robustness.stability(simulated(change), POINT, [])
    assert stability.by == ["JPEG 95", "JPEG 90", "WebP 90"]
    assert stability.flips.value == 2 / 200
    assert [image.path for image in stability.worst] == ["4.jpg", "3.jpg"]
    assert stability.worst[1].label == 1
    assert stability.worst[1].verdicts == ["fake", "fake", "real", "real"]
    np.testing.assert_allclose(stability.worst[0].probabilities[2], 1 / (1 + np.exp(-8)), rtol=1e-5)


def test_without_flips_there_is_no_worst_image():
    stability = robustness.stability(simulated(), POINT, [])
    assert stability.flips.value == 0
    assert stability.flips.high == pytest.approx(0.0188, abs=1e-4)
    assert stability.worst == []


def test_a_run_scores_perturbed_images(run, records):
    scores = scoring.score(run, records, ["validation"])["validation"]
    indices, progress, scorer = robustness.sample(scores.labels, images=6), [], scorers.scorer_for(run)
    perturbed = robustness.score_perturbed(
        scorer, records, "validation", scores, indices, lambda *done: progress.append(done)
    )
    assert progress == [(4, 6), (6, 6)]
    assert perturbed.logits.shape == perturbed.verdicts.shape == (len(PERTURBATIONS), 6)
    np.testing.assert_array_equal(perturbed.scores.paths, scores.paths[indices])
    change = np.abs(perturbed.logits - perturbed.scores.logits).mean(axis=1)
    assert (change > 0).all(), "each perturbation changes a score"
    again = robustness.score_perturbed(scorer, records, "validation", scores, indices, lambda *done: None)
    np.testing.assert_array_equal(again.logits, perturbed.logits)
