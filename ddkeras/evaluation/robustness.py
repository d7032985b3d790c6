"""What is left of a run's answers when images are degraded: robustness, whether it reads the codec, stability.

All three follow from one sweep: some images of a split, each perturbed in all the ways of
`pipelines.transforms.perturbations`, scored once.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from ddkeras.evaluation.scoring import Scores
from ddkeras.inference import scorers
from ddkeras.metrics import classification
from ddkeras.metrics.bootstrap import Bootstrap
from ddkeras.metrics.calibration import VERDICTS, OperatingPoint
from ddkeras.runs.detector import Detector
from pipelines.loading import perturbed
from pipelines.records import corruption
from pipelines.records.store import Records
from pipelines.transforms import perturbations

IMAGES = 400  # of a split, as many of each label; intervals of AUC are then some 0.05 wide
PROBES = ("JPEG 90", "JPEG 75", "WebP 80")
_BATCH = 4  # images, each in all ways
_WORST = 12
_PROBED = {
    "neither": "on images as they are",
    "reals": "with the reals saved as {}",
    "fakes": "with the fakes saved as {}",
    "both": "with all images saved as {}",
}
_FAIL, _WARN = 0.1, 0.03  # of AUC, that the swing is at least


@dataclass(frozen=True)
class Sweep:
    """Scores of some images as they are, and their logits and verdicts, (ways, n), in each of the ways `names`."""

    scores: Scores
    names: list[str]
    logits: np.ndarray
    verdicts: np.ndarray


def chosen(scores: Scores, images: int = IMAGES, seed: int = 0) -> np.ndarray:
    """The places of the images to degrade: at most so many, as many of each label where there are as many."""
    random, each = np.random.default_rng(seed), images // 2
    places = [random.permutation(np.flatnonzero(scores.labels == label))[:each] for label in (0, 1)]
    return np.sort(np.concatenate(places))


def sweep(
    run: Detector,
    records: Records,
    split: str,
    scores: Scores,
    places: np.ndarray,
    progress: Callable[[int, int], None],
) -> Sweep:
    """Degrade and score.

    Args:
        scores: of the whole split, as it is.
        places: of the images that are taken, rising; see `chosen`.
        progress: is called with how many images are done, and how many there are.

    Raises:
        DataError: the records are damaged.
    """
    names = list(perturbations.PERTURBATIONS)
    scorer, parts = scorers.scorer_for(run), []
    seen = [
        perturbed.perturbed_images(records, split, places, names, image_size=size).batch(_BATCH)
        for size in scorer.sizes
    ]
    with corruption.locate_errors(records.splits[split]):
        for batches in zip(*seen, strict=True):
            images = [tf.reshape(batch, (-1, *batch.shape[2:])) for batch in batches]
            outputs = scorer.score_sizes(dict(zip(scorer.sizes, images, strict=True)))
            parts.append([outputs[name].reshape(len(batches[0]), -1) for name in ("logit", "verdict")])
            progress(sum(len(logits) for logits, _ in parts), len(places))
    logits, verdicts = (np.concatenate(arrays).T for arrays in zip(*parts, strict=True))
    return Sweep(scores.at(places), names, logits, verdicts)


def robustness(found: Sweep, point: OperatingPoint, categories: list[str]) -> dict:
    """The numbers of each way, both labels degraded alike; the first row is the images as they are.

    Returns:
        `images`, how many, and `variants`: each with its `name` and estimates (see `intervals.Sample`) of `auc`,
        `called_fake_of_real` and `called_fake_of_fake`.
    """
    own = found.scores.verdicts(point, categories)
    rows = [("as they are", found.scores.logits, own), *zip(found.names, found.logits, found.verdicts, strict=True)]
    sample, labels = Bootstrap(found.scores.groups), found.scores.labels
    return {
        "images": len(labels),
        "variants": [{"name": name} | _row(sample, labels, logits, verdicts) for name, logits, verdicts in rows],
    }


def bias_probe(found: Sweep) -> dict:
    """Re-encode only the reals, only the fakes, both: how far the AUC moves with whose codec is changed.

    A detector that looks at the picture hardly notices what everybody's images go through, whichever label it is
    done to. One that has learnt how the files of each label were saved is led astray when those of one label are
    saved as the other's were; as nobody knows how that was, several codecs are tried.

    Returns:
        Estimates of the `auc`, by codec, when it is done to `neither`, `reals`, `fakes` and `both`, and of the
        `swing`, the greatest of the four less the least, of the codec `by` which it is greatest; the `verdict`, ok,
        warn or fail, by the lower end of its interval; and a `text` that says it.
    """
    labels, plain = found.scores.labels, found.scores.logits

    def probed(codec: str) -> tuple[dict[str, dict], dict]:
        """The four estimates, and that of their swing."""
        saved = found.logits[found.names.index(codec)]
        ways = {
            "neither": plain,
            "reals": np.where(labels == 0, saved, plain),
            "fakes": np.where(labels == 1, saved, plain),
            "both": saved,
        }

        def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
            auc = {way: classification.ranking(labels, logits, weights)["auc"] for way, logits in ways.items()}
            return {**auc, "swing": np.ptp(list(auc.values()), axis=0)}

        estimates = Bootstrap(found.scores.groups).estimate(measure)
        return estimates, estimates.pop("swing")

    auc, swings = zip(*map(probed, PROBES), strict=True)
    auc, swings = dict(zip(PROBES, auc, strict=True)), dict(zip(PROBES, swings, strict=True))
    by = max(PROBES, key=lambda codec: swings[codec]["value"] or 0)
    swing = swings[by]
    if swing["value"] is None:
        verdict, text = "warn", "it cannot be told whether the model reads the codec, as all images have one label"
    else:
        verdict = "fail" if swing["low"] >= _FAIL else "warn" if swing["low"] >= _WARN else "ok"
        text = _probe_text(verdict, by, auc[by])
    return {"by": by, "auc": auc, "swing": swing, "verdict": verdict, "text": text}


def stability(found: Sweep, point: OperatingPoint, categories: list[str]) -> dict:
    """How many verdicts do not survive mild re-encoding.

    Returns:
        `by`, the ways; `examples`; an estimate of the share that `flips` in at least one of them; and of the `worst`,
        those that flip with the greatest change of probability, `path`, `label`, `verdicts` and `probabilities`, each
        as it is and then in each of the ways.
    """
    rows = [found.names.index(name) for name in perturbations.MILD_PERTURBATIONS]
    verdicts = np.stack([found.scores.verdicts(point, categories), *found.verdicts[rows]])
    logits = np.stack([found.scores.logits, *found.logits[rows]])
    probabilities = np.asarray(point.probabilities(logits))
    flips = (verdicts != verdicts[0]).any(axis=0)
    change = np.where(flips, np.abs(probabilities - probabilities[0]).max(axis=0), -1)
    worst = [place for place in np.argsort(-change, kind="stable")[:_WORST] if flips[place]]
    share = Bootstrap(found.scores.groups).estimate(
        lambda weights: {"flips": weights @ flips / weights.sum(axis=1)}, {"flips": len(flips)}
    )
    return {
        "by": list(perturbations.MILD_PERTURBATIONS),
        "examples": len(flips),
        **share,
        "worst": [
            {
                "path": str(found.scores.paths[place]),
                "label": int(found.scores.labels[place]),
                "verdicts": [VERDICTS[verdict] for verdict in verdicts[:, place]],
                "probabilities": [float(probability) for probability in probabilities[:, place]],
            }
            for place in worst
        ],
    }


def _row(sample: Bootstrap, labels: np.ndarray, logits: np.ndarray, verdicts: np.ndarray) -> dict:
    is_fake = verdicts == VERDICTS.index("fake")

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        called = classification.threshold_metrics(labels, is_fake, weights)
        return {
            "auc": classification.ranking(labels, logits, weights)["auc"],
            "called_fake_of_real": called["false_positive_rate"],
            "called_fake_of_fake": called["recall"],
        }

    reals, fakes = int((labels == 0).sum()), int((labels == 1).sum())
    return sample.estimate(
        measure, {"auc": min(reals, fakes), "called_fake_of_real": reals, "called_fake_of_fake": fakes}
    )


def _probe_text(verdict: str, codec: str, auc: dict[str, dict]) -> str:
    least, most = (choose(auc, key=lambda way: auc[way]["value"]) for choose in (min, max))
    moved = " and ".join(f"{auc[way]['value']:.3f} {_PROBED[way].format(codec)}" for way in (most, least))
    if verdict == "ok":
        return f"the model does not read the codec: its AUC is {moved}"
    how = "may read" if verdict == "warn" else "reads"
    return f"the model {how} the codec: its AUC is {moved}; see what ddk audit says of the data, and --equalise it"
