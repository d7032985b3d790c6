"""What scores images, the same to whoever asks: a run, or what was exported of one."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from ddkeras.calibration import VERDICTS, OperatingPoint
from ddkeras.devices import xla_pays
from ddkeras.errors import ConfigError
from ddkeras.export_folder import LITERT, ONNX, SAVED_MODEL, digest, open_export
from ddkeras.freezing import frozen
from ddkeras.runs import MODEL, Run, open_run

Score = Callable[[np.ndarray], dict[str, np.ndarray]]


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


def open_scorer(path: Path) -> Scorer:
    """Load a detector from a file or folder. No code is run that lies in it.

    Args:
        path: a run's folder or its model.keras; an export's folder or its model; or the folder of its versions.

    Raises:
        ConfigError: there is none, it was changed since it was exported, or what runs it is not installed.
    """
    if not path.exists():
        raise ConfigError(f"there is no {path}; give an export, or the folder of a run")
    if path.name == MODEL:
        return of_run(open_run(path.parent))
    if (path / MODEL).is_file():
        return of_run(open_run(path))
    model, card = open_export(path)
    score = {SAVED_MODEL: _of_saved_model, LITERT: _of_litert, ONNX: _of_onnx}[model.name](model)
    size, batch = card["image_size"], card["recipe"]["batch"]
    point = OperatingPoint.from_dict(card["operating_point"])
    return Scorer(card["name"], size, batch, card["categories"], digest(model.parent), score, point)


def of_run(run: Run, model: keras.Model | None = None) -> Scorer:
    """The network of a run, by TensorFlow; `model` is what `Run.load_model` gave, where it is at hand."""
    graph = frozen(run.load_scorer(model), run.recipe.image_size)
    if xla_pays():
        graph = tf.function(graph, jit_compile=True)

    def score(images: np.ndarray) -> dict[str, np.ndarray]:
        return {name: values.numpy() for name, values in graph(tf.constant(images)).items()}

    return Scorer(run.name, run.recipe.image_size, run.recipe.batch, run.categories, run.digest(), score, run.point)


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
