"""What scores images, the same to whoever asks: a run, or what was exported of one."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf

from ddkeras.exceptions import ConfigError
from ddkeras.exporting.bundle import LITERT, ONNX, SAVED_MODEL, digest, open_export
from ddkeras.metrics.calibration import VERDICTS, OperatingPoint
from ddkeras.models.frozen_graph import freeze_graph
from ddkeras.models.precision import xla_by_default
from ddkeras.runs.detector import Detector
from ddkeras.runs.ensemble import Ensemble, combine, open_ensemble
from ddkeras.runs.run import ENSEMBLE, MODEL, Run, open_run

Score = Callable[[np.ndarray], dict[str, np.ndarray]]


class ImageScorer(Protocol):
    """A loaded detector that scores images; implemented by `Scorer` and `EnsembleScorer`."""

    @property
    def name(self) -> str:
        """The name of the run or ensemble that it comes from."""

    @property
    def sizes(self) -> list[int]:
        """The image sizes that `score_sizes` takes, in pixels, rising."""

    @property
    def batch(self) -> int:
        """How many images to score at once."""

    @property
    def categories(self) -> list[str]:
        """In the order of `category_probabilities`."""

    @property
    def digest(self) -> str:
        """Changes whenever scores may change."""

    @property
    def point(self) -> OperatingPoint:
        """Calibration and thresholds, by which probabilities and verdicts follow from logits."""

    def score_sizes(self, images: Mapping[int, np.ndarray]) -> dict[str, np.ndarray]:
        """Score the same images, given in each of the `sizes`.

        Args:
            images: by size, uint8 (n, size, size, 3), RGB.

        Returns:
            `logit` and `fake_probability`, float32 (n,); `verdict` (n,), indices of `calibration.VERDICTS`; and, with
            categories, `category_probabilities`, float32 (n, categories).
        """


@dataclass(frozen=True)
class Scorer:
    """A detector that is loaded.

    Args:
        name: of the run that it comes from.
        image_size: height and width of the images that it takes.
        batch: how many to give it at once.
        categories: in the order of `category_probabilities`.
        digest: another one when what `score` says may be another.
        score: from uint8 (n, image_size, image_size, 3), RGB, to `logit` and `fake_probability`, float32 (n,);
            `verdict` (n,), indices of `calibration.VERDICTS`; and, where there are categories,
            `category_probabilities`, float32 (n, categories).
        point: by which probabilities and verdicts follow from logits.
    """

    name: str
    image_size: int
    batch: int
    categories: list[str]
    digest: str
    score: Score
    point: OperatingPoint = field(default_factory=OperatingPoint)

    @property
    def sizes(self) -> list[int]:
        """Of the images that `score_sizes` takes."""
        return [self.image_size]

    def score_sizes(self, images: Mapping[int, np.ndarray]) -> dict[str, np.ndarray]:
        """`score`, of the same images in each of the `sizes`."""
        return self.score(images[self.image_size])


@dataclass(frozen=True)
class EnsembleScorer:
    """Detectors that answer together; to whoever asks by `sizes` and `score_sizes`, what a `Scorer` is.

    Their logit is the weighted mean of the members' calibrated logits, logit / temperature; the probability of a
    category that of theirs.

    Args:
        name: of the ensemble.
        members: of the same categories.
        weights: one for each, of sum 1.
        point: of that logit.
    """

    name: str
    members: list[Scorer]
    weights: list[float]
    point: OperatingPoint

    @property
    def sizes(self) -> list[int]:
        """Of the images that `score_sizes` takes: those of the members, each once, rising."""
        return sorted({member.image_size for member in self.members})

    @property
    def batch(self) -> int:
        """How many images to give it at once."""
        return min(member.batch for member in self.members)

    @property
    def categories(self) -> list[str]:
        """In the order of `category_probabilities`."""
        return self.members[0].categories

    @property
    def digest(self) -> str:
        """Another one when what `score_sizes` says may be another."""
        told = [[member.digest for member in self.members], self.weights, self.point.to_dict()]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def score_sizes(self, images: Mapping[int, np.ndarray]) -> dict[str, np.ndarray]:
        """As `Scorer.score`, of the same images in each of the `sizes`."""
        scores = [member.score(images[member.image_size]) for member in self.members]
        calibrated = [
            each["logit"] / member.point.temperature for each, member in zip(scores, self.members, strict=True)
        ]
        logits = self._mean(calibrated)
        found = {"logit": logits, "fake_probability": np.asarray(self.point.probabilities(logits))}
        if self.categories:
            found["category_probabilities"] = self._mean([each["category_probabilities"] for each in scores])
        verdict = self.point.verdicts(logits, found.get("category_probabilities"), self.categories)
        return found | {"verdict": np.asarray(verdict)}

    def _mean(self, values: list[np.ndarray]) -> np.ndarray:
        return np.average(np.asarray(values, np.float64), axis=0, weights=self.weights).astype(np.float32)


def combined(members: list[ImageScorer], weights: Sequence[float] | None = None) -> EnsembleScorer:
    """Detectors of any kind as one, at the mean of their operating points.

    Args:
        weights: one for each, in any proportion; None for the same of all.

    Raises:
        ConfigError: they have different categories, one is an ensemble, or the weights do not go with them.
    """
    for member in members:
        if isinstance(member, EnsembleScorer):
            raise ConfigError(f"{member.name} is an ensemble itself; give its members in its place")
    shares, point = combine(members, weights)
    return EnsembleScorer("+".join(member.name for member in members), members, shares, point)


def open_scorer(path: Path) -> ImageScorer:
    """Load a detector from a file or folder. No code is run that lies in it.

    Args:
        path: a run's folder or its model.keras; an export's folder or its model; or the folder of its versions; or
            the folder of an ensemble.

    Raises:
        ConfigError: there is none, it was changed since it was exported, or what runs it is not installed.
    """
    if not path.exists():
        raise ConfigError(f"there is no {path}; give an export, or the folder of a run")
    if (path / ENSEMBLE).is_file():
        return of_ensemble(open_ensemble(path))
    if path.name == MODEL or (path / MODEL).is_file():
        return of_run(open_run(path))
    model, card = open_export(path)
    score = {SAVED_MODEL: _of_saved_model, LITERT: _of_litert, ONNX: _of_onnx}[model.name](model)
    size, batch = card["image_size"], card["recipe"]["batch"]
    point = OperatingPoint.from_dict(card["operating_point"])
    return Scorer(card["name"], size, batch, card["categories"], digest(model.parent), score, point)


def of_run(run: Run, model: keras.Model | None = None) -> Scorer:
    """The network of a run, by TensorFlow; `model` is what `Run.load_model` gave, where it is at hand."""
    graph = freeze_graph(run.load_scorer(model), run.recipe.image_size)
    if xla_by_default():
        graph = tf.function(graph, jit_compile=True)

    def score(images: np.ndarray) -> dict[str, np.ndarray]:
        return {name: values.numpy() for name, values in graph(tf.constant(images)).items()}

    return Scorer(run.name, run.recipe.image_size, run.recipe.batch, run.categories, run.digest(), score, run.point)


def of_ensemble(ensemble: Ensemble) -> EnsembleScorer:
    """The networks of several runs, likewise."""
    members = [of_run(member) for member in ensemble.members]
    return EnsembleScorer(ensemble.name, members, ensemble.weights, ensemble.point)


def of(detector: Detector) -> ImageScorer:
    """`of_run` or `of_ensemble`."""
    return of_ensemble(detector) if isinstance(detector, Ensemble) else of_run(detector)


def _of_saved_model(model: Path) -> Score:
    loaded = tf.saved_model.load(os.fspath(model.parent))

    def score(images: np.ndarray) -> dict[str, np.ndarray]:
        answer = loaded.signatures["images"](images=tf.constant(images))
        scores = {name: values.numpy() for name, values in answer.items() if name != "category"}
        scores["verdict"] = np.array([VERDICTS.index(verdict.decode()) for verdict in scores["verdict"]])
        return scores

    return score


def _of_litert(model: Path) -> Score:
    try:
        from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415  an extra
    except ImportError as error:
        raise ConfigError(f'{model} needs LiteRT; install it with: pip install "ddkeras[litert]"') from error
    runner = Interpreter(os.fspath(model), num_threads=os.cpu_count()).get_signature_runner()
    return lambda images: runner(images=images.astype(np.float32))


def _of_onnx(model: Path) -> Score:
    try:
        import onnxruntime  # noqa: PLC0415  an extra
    except ImportError as error:
        raise ConfigError(f'{model} needs ONNX Runtime; install it with: pip install "ddkeras[onnx]"') from error
    session = onnxruntime.InferenceSession(os.fspath(model), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def score(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {"images": images.astype(np.float32)}), strict=True))

    return score
