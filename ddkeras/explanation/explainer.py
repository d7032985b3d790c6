"""Where the model looked: a map of what in an image speaks for what the model says of it.

Three methods, none of which needs the network to be made for it:

- `gradcam` (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391): the channels of the last feature map, weighted
  by what the logit gains from each;
- `gradcam++` (Chattopadhay et al. 2018, https://arxiv.org/abs/1710.11063): the same with other weights, by which what
  is small counts as well;
- `occlusion` (Zeiler and Fergus 2014, https://arxiv.org/abs/1311.2901): what the logit loses when a part of the image
  is covered. It looks at 81 copies of each image, and knows nothing of the network: a check on the others.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from ddkeras.exceptions import ConfigError
from ddkeras.explanation.gradcam import WEIGHTINGS, FeatureMap
from ddkeras.explanation.heatmaps import scaled
from ddkeras.explanation.occlusion import Occlusion
from ddkeras.inference import scorers
from ddkeras.metrics.calibration import VERDICTS
from ddkeras.models.detector import average_with_mirror
from ddkeras.runs.run import Run
from pipelines.decoding import load_image
from pipelines.media.headers import UnreadableError

METHODS = ("gradcam", "gradcam++", "occlusion")


@dataclass(frozen=True)
class Explanation:
    """Where the model looked in one image, and what it says of it.

    Args:
        heat: float32 (image_size, image_size), 1 where most speaks for what is explained, 0 where nothing does.
        explained: that: real, fake or a category.
        logit: its own, higher the more speaks for it.
        fake_probability, verdict, category, category_probability: what `ddk predict` says.
    """

    heat: np.ndarray
    explained: str
    logit: float
    fake_probability: float
    verdict: str
    category: str | None = None
    category_probability: float | None = None


@dataclass(frozen=True)
class Explained:
    """A file: its pixels, uint8 (image_size, image_size, 3), and explanation; or the `error` why it has none."""

    path: str
    image: np.ndarray | None = None
    explanation: Explanation | None = None
    error: str = ""


class Explainer:
    """The network of a run, loaded once, to explain any number of images.

    Of a run whose scores are the mean with the mirror image (`test_augment: flip`), so are logits and maps.

    Raises:
        ConfigError: the model cannot be loaded; see `Run.load_model`.
    """

    def __init__(self, run: Run):
        self._model, self._is_mirrored = run.load_model(), run.recipe.test_augment == "flip"
        self.scorer = scorers.scorer_for_run(run, self._model)

    def explain(
        self, images: np.ndarray, *, method: str = "gradcam", head: str = "authenticity", category: str | None = None
    ) -> list[Explanation]:
        """Say where the model looked in each image.

        Args:
            images: uint8 (n, image_size, image_size, 3), RGB.
            method: one of `METHODS`.
            head: one of `detector.HEADS`. Of authenticity the verdict is explained, real as well as fake; of an image
                of which the model is unsure, the label that is the more probable.
            category: what the category head is to explain, in place of the category that it predicts.

        Raises:
            ConfigError: the run has no such category, or no feature map of more than one place.
        """
        scores = self.scorer.score(images)
        names, directions = self._explained(scores, head, category)
        directions = directions.astype(np.float32)
        if method == "occlusion":
            logits, heats = self._occlusion.look(images, head, directions)
        else:
            logits, heats = self._by_features(images, head, directions, WEIGHTINGS[method])
        said = _in_words(scores, self.scorer.categories)
        each = zip(scaled(heats), names, logits.tolist(), said, strict=True)
        return [Explanation(heat, name, logit, **words) for heat, name, logit, words in each]

    def _by_features(
        self, images: np.ndarray, head: str, directions: np.ndarray, weighted: Callable
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `_FeatureMap.look`; each view weighs half where scores are the mean of two."""
        logits, heats = self._feature_map.look(images, head, directions, weighted)
        if self._is_mirrored:
            others, mirrored = self._feature_map.look(images[:, :, ::-1], head, directions, weighted)
            logits, heats = (logits + others) / 2, (heats + mirrored[:, :, ::-1]) / 2
        return logits, heats

    @cached_property
    def _feature_map(self) -> "FeatureMap":
        return FeatureMap(self._model, self.scorer.name)

    @cached_property
    def _occlusion(self) -> "Occlusion":
        return Occlusion(average_with_mirror(self._model) if self._is_mirrored else self._model, self.scorer.batch)

    def _explained(
        self, scores: dict[str, np.ndarray], head: str, category: str | None
    ) -> tuple[list[str], np.ndarray]:
        """What is explained of each image, and which way that is among the logits of the head, (n, logits)."""
        categories = self.scorer.categories
        if head == "authenticity":
            is_unsure = scores["verdict"] == VERDICTS.index("unsure")
            is_fake = np.where(is_unsure, scores["fake_probability"] >= 0.5, scores["verdict"] == 1)
            return [VERDICTS[fake] for fake in is_fake.astype(int)], np.where(is_fake, 1, -1)[:, np.newaxis]
        if not categories:
            raise ConfigError(f"{self.scorer.name} has no categories; leave out --head category")
        if category and category not in categories:
            raise ConfigError(f"{self.scorer.name} has no category {category}; give one of {', '.join(categories)}")
        columns = scores["category_probabilities"].argmax(axis=1)
        if category:
            columns[:] = categories.index(category)
        return [categories[column] for column in columns], np.eye(len(categories))[columns]


def explain_files(explainer: Explainer, paths: Iterable[Path], method: str, **asked) -> Iterator[Explained]:
    """Explain image files, in the order given and in constant memory.

    Args:
        method, asked: as `Explainer.explain` takes them.
    """
    paths, size = iter(paths), explainer.scorer.image_size
    number = 1 if method == "occlusion" else explainer.scorer.batch  # to occlude is to make batches of each image
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while batch := list(islice(paths, number)):
            loaded = list(pool.map(lambda path: _load(path, size), batch))
            images = [image for image in loaded if not isinstance(image, str)]
            found = iter(explainer.explain(np.stack(images), method=method, **asked) if images else [])
            for path, image in zip(batch, loaded, strict=True):
                if isinstance(image, str):
                    yield Explained(os.fspath(path), error=image)
                else:
                    yield Explained(os.fspath(path), image, next(found))


def _load(path: Path, image_size: int) -> np.ndarray | str:
    """The pixels of one file, or a sentence on why there are none."""
    try:
        return load_image(path, image_size)
    except UnreadableError as error:
        return str(error)


def _in_words(scores: dict[str, np.ndarray], categories: list[str]) -> Iterator[dict]:
    """The scores of each image, as an `Explanation` holds them."""
    for place, verdict in enumerate(scores["verdict"]):
        words = {"fake_probability": float(scores["fake_probability"][place]), "verdict": VERDICTS[verdict]}
        if categories:
            probabilities = scores["category_probabilities"][place]
            words["category"] = categories[probabilities.argmax()]
            words["category_probability"] = float(probabilities.max())
        yield words


# --- by the feature map ----------------------------------------------------------------------------------------


# --- by occlusion ----------------------------------------------------------------------------------------------


# --- from places to pixels -------------------------------------------------------------------------------------
