"""Loaded detectors that score batches of images: a run, an ensemble of runs, or an export."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf

from ddkeras.exceptions import ConfigError
from ddkeras.exporting.bundle import LITERT, ONNX, SAVED_MODEL, digest, open_export
from ddkeras.metrics.calibration import OperatingPoint, require_finite
from ddkeras.models.aggregation import aggregate
from ddkeras.models.frozen_graph import freeze_graph
from ddkeras.models.precision import xla_by_default
from ddkeras.runs.detector import Detector
from ddkeras.runs.ensemble import Ensemble, combine, open_ensemble
from ddkeras.runs.run import ENSEMBLE, MODEL, Run, open_run
from pipelines.views import Pixels, View, Windowed, flat

Outputs = dict[str, np.ndarray]  # arrays by name, each with one entry per image
ScoreFunction = Callable[[np.ndarray], Outputs]
_OF_WINDOWS = ("logit", "category_probabilities", "attention")  # what is aggregated; the rest follows


class ImageScorer(Protocol):
    """A loaded detector that scores images; implemented by `Scorer` and `EnsembleScorer`."""

    @property
    def name(self) -> str:
        """The name of the run, export or ensemble it was loaded from."""

    @property
    def views(self) -> list[View]:
        """How `score` needs to see images, each once, in the order of their sizes."""

    @property
    def min_side(self) -> int:
        """Images with fewer pixels on their shorter side, before they are resized, get the verdict unsure."""

    @property
    def batch(self) -> int:
        """The batch size to score with."""

    @property
    def categories(self) -> list[str]:
        """Class names, in the order of `category_probabilities`; empty without a category head."""

    @property
    def digest(self) -> str:
        """A fingerprint that changes whenever scores may change."""

    @property
    def point(self) -> OperatingPoint:
        """The calibration and thresholds that turn logits into probabilities and verdicts."""

    def score_images(self, images: Mapping[View, Pixels]) -> Outputs:
        """Score images that are given in each of the `views`, from images of at least `min_side` pixels.

        Args:
            images: by view, the pixels of n images.

        Returns:
            `logit` and `fake_probability`, float32 (n,); `verdict` (n,), indices of `calibration.VERDICTS`; and, with
            a category head, `category_probabilities`, float32 (n, categories).

        Raises:
            ConfigError: a logit is NaN or infinite.
        """


@dataclass(frozen=True)
class Scorer:
    """A single loaded network.

    Args:
        name: the name of its run.
        view: how it sees images.
        batch: the batch size to score with.
        categories: class names, in the order of `category_probabilities`.
        digest: a fingerprint that changes whenever the outputs of `score` may change.
        score: maps squares, uint8 (n, view.size, view.size, 3), RGB, to the outputs of `ImageScorer.score_images`,
            unchecked; of `Windows`, each by itself.
        point: the calibration and thresholds.
        min_side: images with fewer pixels on their shorter side get the verdict unsure.
        aggregate: how the scores of windows become that of their image; see `aggregation.aggregate`.
    """

    name: str
    view: View
    batch: int
    categories: list[str]
    digest: str
    score: ScoreFunction
    point: OperatingPoint = field(default_factory=OperatingPoint)
    min_side: int = 0
    aggregate: str = "mean"

    @property
    def image_size(self) -> int:
        """Height and width of the network's input, in pixels."""
        return self.view.size

    @property
    def views(self) -> list[View]:
        """The one view it takes."""
        return [self.view]

    def score_images(self, images: Mapping[View, Pixels]) -> Outputs:
        """See `ImageScorer.score_images`."""
        pixels = images[self.view]
        outputs = self._score_windows(pixels) if isinstance(pixels, Windowed) else self.score(pixels)
        require_finite(outputs["logit"], self.name)
        return outputs

    def _score_windows(self, images: Windowed) -> Outputs:
        squares = flat(images).numpy()
        parts = [self.score(squares[at : at + self.batch]) for at in range(0, len(squares), self.batch)]
        outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return self.aggregated(outputs, images.counts)

    def aggregated(self, outputs: Mapping[str, np.ndarray], counts: np.ndarray) -> Outputs:
        """The outputs for images, from those of `score` for their windows, of which each has so many."""
        of_windows = {name: tf.constant(outputs[name]) for name in _OF_WINDOWS if name in outputs}
        of_images = aggregate(of_windows, tf.constant(counts), self.aggregate, whole=self.view.whole)
        scores = {name: values.numpy() for name, values in of_images.items()}
        return apply_operating_point(self, scores["logit"], scores.get("category_probabilities"))


@dataclass(frozen=True)
class EnsembleScorer:
    """Several scorers that act as one.

    The ensemble's logit is the weighted mean of the members' calibrated logits, logit / temperature; its category
    probabilities are the weighted mean of theirs.

    Args:
        name: the name of the ensemble.
        members: scorers with the same categories.
        weights: one per member; they sum to 1.
        point: the calibration and thresholds of the ensemble's logit.
    """

    name: str
    members: Sequence[ImageScorer]
    weights: Sequence[float]
    point: OperatingPoint

    @property
    def views(self) -> list[View]:
        """The distinct views of the members, in the order of their sizes."""
        distinct = {view for member in self.members for view in member.views}
        return sorted(distinct, key=lambda view: (view.size, view.parts))

    @property
    def min_side(self) -> int:
        """The largest of the members'."""
        return max(member.min_side for member in self.members)

    @property
    def batch(self) -> int:
        """The smallest batch size of the members."""
        return min(member.batch for member in self.members)

    @property
    def categories(self) -> list[str]:
        """The class names that all members share."""
        return self.members[0].categories

    @property
    def digest(self) -> str:
        """A fingerprint of the members, their weights and the operating point."""
        identity = [[member.digest for member in self.members], list(self.weights), self.point.to_dict()]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()

    def score_images(self, images: Mapping[View, Pixels]) -> Outputs:
        """See `ImageScorer.score_images`."""
        scores = [member.score_images(images) for member in self.members]
        logits = self._mean(
            [
                outputs["logit"] / member.point.temperature
                for outputs, member in zip(scores, self.members, strict=True)
            ]
        )
        probabilities = None
        if self.categories:
            probabilities = self._mean([outputs["category_probabilities"] for outputs in scores])
        return apply_operating_point(self, logits, probabilities)

    def _mean(self, values: list[np.ndarray]) -> np.ndarray:
        return np.average(np.asarray(values, np.float64), axis=0, weights=self.weights).astype(np.float32)


def apply_operating_point(
    scorer: ImageScorer, logits: np.ndarray, category_probabilities: np.ndarray | None
) -> Outputs:
    """Turn logits into the outputs of `ImageScorer.score_images`, at the scorer's operating point.

    Args:
        logits: float32 (n,).
        category_probabilities: float32 (n, categories), or None without a category head.
    """
    outputs = {"logit": logits, "fake_probability": np.asarray(scorer.point.probabilities(logits))}
    if category_probabilities is not None:
        outputs["category_probabilities"] = category_probabilities
    verdicts = scorer.point.verdicts(logits, category_probabilities, scorer.categories)
    return outputs | {"verdict": np.asarray(verdicts)}


def combine_scorers(members: Sequence[ImageScorer], weights: Sequence[float] | None = None) -> EnsembleScorer:
    """Combine scorers into an ensemble at the mean of their operating points.

    Args:
        members: scorers of runs or exports, in any mixture.
        weights: one per member, in any proportion; None weights all equally.

    Raises:
        ConfigError: a member is an ensemble itself, the categories differ, or the weights do not match the members.
    """
    for member in members:
        if isinstance(member, EnsembleScorer):
            raise ConfigError(f"{member.name} is an ensemble itself; give its members in its place")
    shares, point = combine(members, weights)
    return EnsembleScorer("+".join(member.name for member in members), members, shares, point)


# --- from a trained detector -----------------------------------------------------------------------------------


def scorer_for(detector: Detector) -> ImageScorer:
    """Load the scorer of a run or an ensemble of runs."""
    if isinstance(detector, Ensemble):
        return scorer_for_ensemble(detector)
    if isinstance(detector, Run):
        return scorer_for_run(detector)
    raise TypeError(f"{type(detector).__name__} is neither a Run nor an Ensemble")


def scorer_for_run(run: Run, model: keras.Model | None = None) -> Scorer:
    """Load the network of a run as a frozen TensorFlow graph.

    Args:
        model: the result of `Run.load_model`, if it is loaded already.
    """
    network, image_size, batch = run.load_scorer(model), run.recipe.image_size, run.recipe.batch

    @cache  # takes seconds, and an explanation by Grad-CAM scores with a graph of its own
    def graph() -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        frozen = freeze_graph(network, image_size)
        return tf.function(frozen, jit_compile=True) if xla_by_default() else frozen

    def score(images: np.ndarray) -> Outputs:
        return {name: values.numpy() for name, values in graph()(tf.constant(images)).items()}

    aggregate = run.recipe.aggregate
    return Scorer(run.name, run.view, batch, run.categories, run.digest(), score, run.point, run.min_side, aggregate)


def scorer_for_ensemble(ensemble: Ensemble) -> EnsembleScorer:
    """Load the networks of an ensemble of runs."""
    members = [scorer_for_run(run) for run in ensemble.members]
    return EnsembleScorer(ensemble.name, members, ensemble.weights, ensemble.point)


# --- from a path -----------------------------------------------------------------------------------------------


def open_scorer(path: Path) -> ImageScorer:
    """Load a detector from a file or folder, without running code that it may contain.

    Args:
        path: a run's folder or its model.keras; an export's folder, its model file, or the folder of its versions;
            or an ensemble's folder.

    Raises:
        ConfigError: there is no detector, it was changed since it was exported, or its runtime is not installed.
    """
    if not path.exists():
        raise ConfigError(f"there is no {path}; give an export, or the folder of a run")
    if (path / ENSEMBLE).is_file():
        return scorer_for_ensemble(open_ensemble(path))
    if path.name == MODEL or (path / MODEL).is_file():
        return scorer_for_run(open_run(path))
    model, card = open_export(path)
    load = {SAVED_MODEL: _load_saved_model, LITERT: _load_litert, ONNX: _load_onnx}[model.name]
    scorer = Scorer(
        name=card.name,
        view=card.view,
        batch=card.batch,
        categories=card.categories,
        digest=digest(model.parent),
        score=load(model),
        point=card.point,
        min_side=card.min_side,
        aggregate=card.aggregate,
    )
    return scorer if model.name != SAVED_MODEL else _with_verdicts(scorer)


def _load_saved_model(model: Path) -> ScoreFunction:
    signatures = tf.saved_model.load(os.fspath(model.parent)).signatures
    signature = signatures["windows"] if "windows" in signatures else signatures["images"]

    def score(images: np.ndarray) -> Outputs:
        outputs = signature(images=tf.constant(images))
        return {name: values.numpy() for name, values in outputs.items() if values.dtype == tf.float32}

    return score


def _with_verdicts(scorer: Scorer) -> Scorer:
    """The scorer of a SavedModel with verdicts of its own: the graph's are names, and of the size of its input."""

    def score(images: np.ndarray) -> Outputs:
        outputs = scorer.score(images)
        return outputs | apply_operating_point(scorer, outputs["logit"], outputs.get("category_probabilities"))

    return replace(scorer, score=score)


def _load_litert(model: Path) -> ScoreFunction:
    try:
        from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415  an extra
    except ImportError as error:
        raise ConfigError(f'{model} needs LiteRT; install it with: pip install "ddkeras[litert]"') from error
    runner = Interpreter(os.fspath(model), num_threads=os.cpu_count()).get_signature_runner()
    return lambda images: runner(images=images.astype(np.float32))


def _load_onnx(model: Path) -> ScoreFunction:
    try:
        import onnxruntime  # noqa: PLC0415  an extra
    except ImportError as error:
        raise ConfigError(f'{model} needs ONNX Runtime; install it with: pip install "ddkeras[onnx]"') from error
    session = onnxruntime.InferenceSession(os.fspath(model), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def score(images: np.ndarray) -> Outputs:
        return dict(zip(names, session.run(names, {"images": images.astype(np.float32)}), strict=True))

    return score
