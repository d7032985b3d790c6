"""Explanations of a detector: heatmaps of the evidence in an image for its verdict or its category.

Three methods, none of which needs a network made for it: `gradcam` and `gradcam++` (see `gradcam`) weight the last
feature map, `occlusion` covers parts of the image. Occlusion is slow and knows nothing of the network's inside, which
makes it a check on the others.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from scipy.special import softmax

from ddkeras.exceptions import ConfigError
from ddkeras.explanation.gradcam import WEIGHTINGS, GradCAM, Weighting
from ddkeras.explanation.heatmaps import normalize
from ddkeras.explanation.occlusion import Occlusion
from ddkeras.explanation.pictures import Picture, load_picture
from ddkeras.inference import scorers
from ddkeras.inference.prediction import shorter_side, unsure_if_small
from ddkeras.inference.scorers import Scorer
from ddkeras.metrics.calibration import VERDICTS, require_finite
from ddkeras.models.aggregation import category_weights, logit_weights
from ddkeras.models.detector import average_with_mirror
from ddkeras.runs.run import Run
from pipelines.media.headers import UnreadableError
from pipelines.views import View


@dataclass(frozen=True)
class Explanation:
    """An image, what the model says of it, and the evidence for that.

    Args:
        image: uint8 (height, width, 3), RGB; with the view squash (image_size, image_size, 3), with windows the whole
            picture, reduced to at most `pictures.MAX_SIDE`.
        heatmap: float32 (height, width), from 0, no evidence, to 1, the strongest in this image; NaN in no window.
        target: the class whose logit is explained: real, fake or a category.
        logit: of the target; with fake, the network's own, with real, its negative.
        fake_probability, verdict, category, category_probability, reason: as `ddk predict` gives them.
    """

    image: np.ndarray
    heatmap: np.ndarray
    target: str
    logit: float
    fake_probability: float
    verdict: str
    category: str | None = None
    category_probability: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class ExplainedFile:
    """The explanation of an image file, or the `error` for which there is none."""

    path: str
    explanation: Explanation | None = None
    error: str = ""


class Explainer:
    """Explains any number of images with a network that is loaded once.

    Args:
        model: from images in 0..255 to the logits of its heads.
        scorer: the same network with verdicts and probabilities.
        is_mirrored: whether scores are the mean of an image and its mirror image (`test_augment: flip`); then logits
            and heatmaps are, too.
    """

    def __init__(self, model: keras.Model, scorer: Scorer, *, is_mirrored: bool = False):
        self.scorer = scorer
        self._model, self._is_mirrored = model, is_mirrored

    def explain(
        self, images: np.ndarray, *, method: str = "gradcam", head: str = "authenticity", category: str | None = None
    ) -> list[Explanation]:
        """Explain what the model says of each image.

        Args:
            images: uint8 (n, image_size, image_size, 3), RGB.
            method: one of `ddkeras.api.ExplanationMethod`.
            head: one of `HEADS`. For authenticity the target is the verdict; where that is unsure, the more probable
                label.
            category: the target for the category head, instead of the category that it predicts.

        Raises:
            ConfigError: the run has no such category, no feature map with more than one place, or no finite score.
        """
        pictures = [Picture.of_square(image) for image in images]
        return self.explain_pictures(pictures, method=method, head=head, category=category)

    def explain_pictures(
        self, pictures: Sequence[Picture], *, method: str, head: str, category: str | None = None
    ) -> list[Explanation]:
        """As `explain`, of pictures of which the network sees one or several squares."""
        if not pictures:
            return []
        squares = np.concatenate([picture.squares for picture in pictures])
        counts = np.array([len(picture.squares) for picture in pictures], np.int32)
        features = [] if method == "occlusion" else self._features(squares)
        of_squares = self._scores(features) if features else self.scorer.score(squares)
        scores = self.scorer.aggregated(of_squares, counts)
        require_finite(scores["logit"], self.scorer.name)
        targets, directions = self._targets(scores, head, category)
        directions = directions.repeat(counts, axis=0)
        if method == "occlusion":
            logits, heatmaps = self._occlusion.heatmaps(squares, head, directions)
        else:
            logits, heatmaps = self._grad_cam_heatmaps(features, head, directions, WEIGHTINGS[method])
        weights = self._weights(of_squares, counts, head)
        ends = np.cumsum(counts)[:-1]
        logits_of = np.split(logits * weights, ends)
        heatmaps_of = np.split(heatmaps * weights[:, np.newaxis, np.newaxis], ends)
        is_used = np.split(self._are_seen(counts, head), ends)
        return [
            Explanation(
                picture.whole,
                normalize(picture.stitch(heatmaps_of[index], is_used[index])),
                target,
                float(logits_of[index].sum()),
                float(scores["fake_probability"][index]),
                VERDICTS[scores["verdict"][index]],
                *self._predicted_category(scores, index),
            )
            for index, (picture, target) in enumerate(zip(pictures, targets, strict=True))
        ]

    def _features(self, images: np.ndarray) -> list[tf.Tensor]:
        """The feature maps of the images, and of their mirror images if scores are averaged over both."""
        views = [images, images[:, :, ::-1]] if self._is_mirrored else [images]
        return [self._grad_cam.features(view) for view in views]

    def _scores(self, features: list[tf.Tensor]) -> dict[str, np.ndarray]:
        """What `scorer.score` gives, up to its verdict, from feature maps: another pass would take as long."""
        views = [self._grad_cam.logits(each) for each in features]
        logits = {head: np.mean([view[head] for view in views], axis=0) for head in views[0]}
        scores = {"logit": logits["authenticity"][:, 0]}
        if self.scorer.categories:
            scores["category_probabilities"] = softmax(logits["category"], axis=1)
        if "attention" in logits:
            scores["attention"] = logits["attention"][:, 0]
        return scores

    def _weights(self, scores: dict[str, np.ndarray], counts: np.ndarray, head: str) -> np.ndarray:
        """The weight of each square in what is said of its image, float32 (squares,)."""
        whole = self.scorer.view.whole
        if head == "category":
            return category_weights(tf.constant(counts), whole=whole).numpy()
        outputs = {name: tf.constant(values) for name, values in scores.items()}
        return logit_weights(outputs, tf.constant(counts), self.scorer.aggregate, whole=whole).numpy()

    def _are_seen(self, counts: np.ndarray, head: str) -> np.ndarray:
        """Whether each square is one that the head sees, bool (squares,)."""
        if not self.scorer.view.whole:
            return np.ones(counts.sum(), bool)
        is_whole = category_weights(tf.constant(counts), whole=True).numpy() > 0
        return is_whole == (head == "category")

    def _grad_cam_heatmaps(
        self, features: list[tf.Tensor], head: str, directions: np.ndarray, weighting: Weighting
    ) -> tuple[np.ndarray, np.ndarray]:
        """`GradCAM.heatmaps`, averaged with the mirror image if scores are."""
        logits, heatmaps = self._grad_cam.heatmaps(features[0], head, directions, weighting)
        if self._is_mirrored:
            mirror_logits, mirrored = self._grad_cam.heatmaps(features[1], head, directions, weighting)
            logits, heatmaps = (logits + mirror_logits) / 2, (heatmaps + mirrored[:, :, ::-1]) / 2
        return logits, heatmaps

    @cached_property
    def _grad_cam(self) -> GradCAM:
        return GradCAM(self._model, self.scorer.name)

    @cached_property
    def _occlusion(self) -> Occlusion:
        return Occlusion(average_with_mirror(self._model) if self._is_mirrored else self._model, self.scorer.batch)

    def _targets(
        self, scores: dict[str, np.ndarray], head: str, category: str | None
    ) -> tuple[list[str], np.ndarray]:
        """The target class of each image, and its direction among the logits of the head, float32 (n, logits)."""
        if head == "authenticity":
            is_unsure = scores["verdict"] == VERDICTS.index("unsure")
            is_fake = np.where(is_unsure, scores["fake_probability"] >= 0.5, scores["verdict"] == 1)
            directions = np.where(is_fake, 1, -1)[:, np.newaxis]
            return [VERDICTS[label] for label in is_fake.astype(int)], directions.astype(np.float32)
        categories = self.scorer.categories
        if not categories:
            raise ConfigError(f"{self.scorer.name} has no categories; leave out --head category")
        if category and category not in categories:
            raise ConfigError(f"{self.scorer.name} has no category {category}; give one of {', '.join(categories)}")
        columns = scores["category_probabilities"].argmax(axis=1)
        if category:
            columns[:] = categories.index(category)
        return [categories[column] for column in columns], np.eye(len(categories), dtype=np.float32)[columns]

    def _predicted_category(self, scores: dict[str, np.ndarray], index: int) -> tuple[str, float] | tuple[None, None]:
        if not self.scorer.categories:
            return None, None
        probabilities = scores["category_probabilities"][index]
        return self.scorer.categories[probabilities.argmax()], float(probabilities.max())


def load_explainer(run: Run) -> Explainer:
    """Load the network of a run.

    Raises:
        ConfigError: it cannot be loaded; see `Run.load_model`.
    """
    model = run.load_model()
    return Explainer(model, scorers.scorer_for_run(run, model), is_mirrored=run.recipe.test_augment == "flip")


def explain_files(
    explainer: Explainer,
    paths: Iterable[Path],
    method: str,
    *,
    head: str = "authenticity",
    category: str | None = None,
) -> Iterator[ExplainedFile]:
    """Explain image files, in the order given and in constant memory.

    A file that cannot be read or decoded yields an ExplainedFile with its `error`.

    Args:
        method, head, category: as for `Explainer.explain`.
    """
    paths, scorer = iter(paths), explainer.scorer
    # Occlusion makes batches of each image.
    batch_size = 1 if method == "occlusion" else max(1, scorer.batch // scorer.view.parts)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while batch := list(islice(paths, batch_size)):
            loaded = list(pool.map(lambda path: _load(path, scorer.view), batch))
            pictures = [picture for picture in loaded if not isinstance(picture, str)]
            explained = explainer.explain_pictures(pictures, method=method, head=head, category=category)
            explanations = iter(explained)
            for path, picture in zip(batch, loaded, strict=True):
                if isinstance(picture, str):
                    yield ExplainedFile(os.fspath(path), error=picture)
                else:
                    explanation = unsure_if_small(next(explanations), shorter_side(path), scorer.min_side)
                    yield ExplainedFile(os.fspath(path), explanation)


def _load(path: Path, view: View) -> Picture | str:
    """The pixels of a file, or why it cannot be read."""
    try:
        return load_picture(path, view)
    except UnreadableError as error:
        return str(error)
