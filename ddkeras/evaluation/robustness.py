"""Scores of perturbed images: robustness, dependence on the codec, and stability of the verdicts.

All three follow from one pass: a sample of a split, scored under every perturbation of
`pipelines.transforms.perturbations`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from ddkeras.evaluation.scoring import Scores
from ddkeras.inference.scorers import ImageScorer
from ddkeras.interrupts import StopRequest
from ddkeras.metrics import classification
from ddkeras.metrics.bootstrap import Bootstrap, Estimate
from ddkeras.metrics.calibration import VERDICTS, OperatingPoint
from ddkeras.metrics.split_metrics import BiasProbe, PerturbedMetrics, Robustness, Stability, UnstableImage
from pipelines.loading.perturbed import perturbed_images
from pipelines.records import corruption
from pipelines.records.store import Records
from pipelines.transforms import perturbations

IMAGES = 400  # of a split, half of each label; the 95% interval of the AUC is then about 0.05 wide
PROBE_CODECS = ("JPEG 90", "JPEG 75", "WebP 80")
UNCHANGED = "as they are"
_BATCH = 4  # images, each under all perturbations
_WORST = 12
_REENCODED = {
    "neither": "on unchanged images",
    "reals": "with the reals saved as {}",
    "fakes": "with the fakes saved as {}",
    "both": "with all images saved as {}",
}
_FAIL, _WARN = 0.1, 0.03  # lower ends of the interval of the swing, in AUC


@dataclass(frozen=True)
class PerturbedScores:
    """Scores of n images as they are, and under each perturbation in `names`.

    Args:
        scores: as they are.
        names: of the perturbations.
        logits: float32 (perturbations, n).
        verdicts: (perturbations, n), indices of `calibration.VERDICTS`.
    """

    scores: Scores
    names: list[str]
    logits: np.ndarray
    verdicts: np.ndarray


def sample(labels: np.ndarray, images: int = IMAGES, seed: int = 0) -> np.ndarray:
    """Draw images to perturb: half of each label, as far as there are enough.

    Args:
        labels: (n,), 0 real or 1 fake.
        images: how many to draw at most; an odd number is rounded up.
        seed: of the random generator.

    Returns:
        Their indices, rising.
    """
    random, per_label = np.random.default_rng(seed), (images + 1) // 2
    indices = [random.permutation(np.flatnonzero(labels == label))[:per_label] for label in (0, 1)]
    return np.sort(np.concatenate(indices))


def score_perturbed(
    scorer: ImageScorer,
    records: Records,
    split: str,
    scores: Scores,
    indices: np.ndarray,
    advance: Callable[[int, int], None],
) -> PerturbedScores:
    """Score images of a split under every perturbation.

    Args:
        scorer: of the detector that gave `scores`.
        records: contain the split.
        split: its name.
        scores: of the whole split, as it is.
        indices: of the images to perturb, rising; see `sample`.
        advance: is called with the number of images done and the number of all.

    Raises:
        DataError: the records are damaged.
        Interrupted: a signal asked to stop.
    """
    names = list(perturbations.PERTURBATIONS)
    logits, verdicts, done = [], [], 0
    datasets = [
        perturbed_images(records, split, indices.tolist(), names, view=view).batch(_BATCH) for view in scorer.views
    ]
    with corruption.locate_errors(records.splits[split]), StopRequest() as stop:
        for batches in stop.interruptible(zip(*datasets, strict=True)):
            images = [tf.nest.map_structure(_without_versions, batch) for batch in batches]
            outputs = scorer.score_images(dict(zip(scorer.views, images, strict=True)))
            logits.append(outputs["logit"].reshape(-1, len(names)))
            verdicts.append(outputs["verdict"].reshape(-1, len(names)))
            done += len(logits[-1])
            advance(done, len(indices))
    sampled = scores.at(indices)
    return PerturbedScores(
        scores=sampled,
        names=names,
        logits=np.concatenate(logits).T,
        verdicts=sampled.unsure_if_small(np.concatenate(verdicts).T),
    )


def _without_versions(values: tf.Tensor) -> tf.Tensor:
    """(images, versions, ...) as (images * versions, ...)."""
    return tf.reshape(values, (-1, *values.shape[2:]))


def robustness(perturbed: PerturbedScores, point: OperatingPoint, categories: list[str]) -> Robustness:
    """Metrics under each perturbation, applied to both labels alike; first those of the unchanged images."""
    scores = perturbed.scores
    variants = [
        (UNCHANGED, scores.logits, scores.verdicts(point, categories)),
        *zip(perturbed.names, perturbed.logits, perturbed.verdicts, strict=True),
    ]
    bootstrap = Bootstrap(scores.groups)
    return Robustness(
        images=len(scores.labels),
        variants=[
            _perturbed_metrics(name, bootstrap, scores.labels, logits, verdicts)
            for name, logits, verdicts in variants
        ],
    )


def _perturbed_metrics(
    name: str, bootstrap: Bootstrap, labels: np.ndarray, logits: np.ndarray, verdicts: np.ndarray
) -> PerturbedMetrics:
    is_fake = verdicts == VERDICTS.index("fake")

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        decisions = classification.threshold_metrics(labels, is_fake, weights)
        return {
            "auc": classification.ranking_metrics(labels, logits, weights)["auc"],
            "false_positive_rate": decisions["false_positive_rate"],
            "recall": decisions["recall"],
        }

    return PerturbedMetrics(name, **bootstrap.estimate(measure, classification.kinds_by_metric(labels, is_fake)))


def bias_probe(perturbed: PerturbedScores) -> BiasProbe:
    """Re-encode only the reals, only the fakes, and both: how much does the AUC depend on whose codec changes?

    A detector that looks at the content is hardly affected by a codec, whichever label it is applied to. One that has
    learned how the files of each label were saved is misled if those of one label are saved like the other's. As it
    is not known how these were saved, several codecs are tried.

    Returns:
        The AUCs and their swing; the verdict depends on the lower end of the interval of the largest swing.
    """
    auc, swings = {}, {}
    for codec in PROBE_CODECS:
        estimates = _probe(perturbed, codec)
        swings[codec] = estimates.pop("swing")
        auc[codec] = estimates
    by = max(PROBE_CODECS, key=lambda codec: 0 if swings[codec].is_missing else swings[codec].value)
    swing = swings[by]
    if swing.is_missing:
        text = "all images have the same label, so it is not known whether the model relies on the codec"
        return BiasProbe(by, auc, swing, "warn", text)
    if not swing.has_interval:
        text = f"{swing.reason} were re-encoded, so it is not known whether the model relies on the codec"
        return BiasProbe(by, auc, swing, "warn", text)
    verdict = "fail" if swing.low >= _FAIL else "warn" if swing.low >= _WARN else "ok"
    return BiasProbe(by, auc, swing, verdict, _probe_text(verdict, by, auc[by]))


def _probe(perturbed: PerturbedScores, codec: str) -> dict[str, Estimate]:
    """The AUC with the images of neither label, of one, and of both re-encoded, and the `swing` of these four."""
    labels, unchanged = perturbed.scores.labels, perturbed.scores.logits
    reencoded = perturbed.logits[perturbed.names.index(codec)]
    variants = {
        "neither": unchanged,
        "reals": np.where(labels == 0, reencoded, unchanged),
        "fakes": np.where(labels == 1, reencoded, unchanged),
        "both": reencoded,
    }

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        auc = {
            name: classification.ranking_metrics(labels, logits, weights)["auc"] for name, logits in variants.items()
        }
        return {**auc, "swing": np.ptp(list(auc.values()), axis=0)}

    among = dict.fromkeys([*variants, "swing"], classification.kinds_by_metric(labels, unchanged >= 0)["auc"])
    return Bootstrap(perturbed.scores.groups).estimate(measure, among, others=("swing",))


def _probe_text(verdict: str, codec: str, auc: dict[str, Estimate]) -> str:
    least, most = (choose(auc, key=lambda variant: auc[variant].value) for choose in (min, max))
    values = " and ".join(
        f"{auc[variant].value:.3f} {_REENCODED[variant].format(codec)}" for variant in (most, least)
    )
    if verdict == "ok":
        return f"the model does not rely on the codec: its AUC is {values}"
    relies = "may rely" if verdict == "warn" else "relies"
    return (
        f"the model {relies} on the codec: its AUC is {values}; run ddk audit on the data, and make the records "
        "with --equalise crop, which does not scale (or resize, for small images)"
    )


def stability(perturbed: PerturbedScores, point: OperatingPoint, categories: list[str]) -> Stability:
    """How many verdicts change under mild re-encoding."""
    scores = perturbed.scores
    mild = [perturbed.names.index(name) for name in perturbations.MILD_PERTURBATIONS]
    verdicts = np.stack([scores.verdicts(point, categories), *perturbed.verdicts[mild]])
    probabilities = np.asarray(point.probabilities(np.stack([scores.logits, *perturbed.logits[mild]])))
    flips = (verdicts != verdicts[0]).any(axis=0)
    change = np.where(flips, np.abs(probabilities - probabilities[0]).max(axis=0), -1)
    worst = [index for index in np.argsort(-change, kind="stable")[:_WORST] if flips[index]]
    share = Bootstrap(scores.groups).estimate(lambda weights: {"flips": weights @ flips / weights.sum(axis=1)})
    return Stability(
        by=list(perturbations.MILD_PERTURBATIONS),
        examples=len(flips),
        flips=share["flips"],
        worst=[
            UnstableImage(
                path=str(scores.paths[index]),
                label=int(scores.labels[index]),
                verdicts=[VERDICTS[verdict] for verdict in verdicts[:, index]],
                probabilities=probabilities[:, index].tolist(),
            )
            for index in worst
        ],
    )
