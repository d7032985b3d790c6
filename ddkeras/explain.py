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

import keras
import numpy as np
import tensorflow as tf

from ddkeras import scorers
from ddkeras.calibration import VERDICTS
from ddkeras.errors import ConfigError
from ddkeras.freezing import frozen
from ddkeras.model import POOLED, of_both_sides
from ddkeras.runs import Run
from pipelines.decoding import load_image
from pipelines.media.headers import UnreadableError

METHODS = ("gradcam", "gradcam++", "occlusion")
HEADS = ("authenticity", "category")
_PATCHES = 9  # down and across
_SIDE = 0.2  # of a patch, as a share of the image's: they overlap by half
_NOISES = 4  # images on which it is measured where a feature map looks


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
        self.scorer = scorers.of_run(run, self._model)

    def explain(
        self, images: np.ndarray, *, method: str = "gradcam", head: str = "authenticity", category: str | None = None
    ) -> list[Explanation]:
        """Say where the model looked in each image.

        Args:
            images: uint8 (n, image_size, image_size, 3), RGB.
            method: one of `METHODS`.
            head: one of `HEADS`. Of authenticity the verdict is explained, real as well as fake; of an image of which
                the model is unsure, the label that is the more probable.
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
            logits, heats = self._by_features(images, head, directions, _WEIGHTED[method])
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
    def _feature_map(self) -> "_FeatureMap":
        return _FeatureMap(self._model, self.scorer.name)

    @cached_property
    def _occlusion(self) -> "_Occlusion":
        return _Occlusion(of_both_sides(self._model) if self._is_mirrored else self._model, self.scorer.batch)

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


def grad_cam(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Selvaraju et al. 2017, equations 1 and 2.

    Args:
        features: float32 (n, rows, columns, channels), a feature map.
        gradients: of the same shape, how what is explained grows with each feature.

    Returns:
        float32 (n, rows, columns), 0 or more.
    """
    weights = gradients.mean(axis=(1, 2))
    return np.maximum(np.einsum("nyxc,nc->nyx", features, weights), 0)


def grad_cam_plus_plus(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Chattopadhay et al. 2018, equations 10 and 19, for the exponential of what is explained, and up to that factor.

    Only what speaks for it has weight. Features count as rectified in the sum over places, as they are in the paper.

    Args:
        features, gradients: as `grad_cam` takes them.

    Returns:
        As `grad_cam`.
    """
    gains = np.maximum(gradients, 0)
    sums = np.maximum(features, 0).sum(axis=(1, 2), keepdims=True)
    weights = (gains / (2 + sums * gains)).sum(axis=(1, 2))
    return np.maximum(np.einsum("nyxc,nc->nyx", features, weights), 0)


_WEIGHTED = {"gradcam": grad_cam, "gradcam++": grad_cam_plus_plus}


class _FeatureMap:
    """What a network makes of an image before it pools that for its heads."""

    def __init__(self, model: keras.Model, name: str):
        features, size = _pooled(model, name), model.input_shape[1]
        trunk = keras.Model(model.input, {"features": features})
        self._heads = keras.Model(features, model.output)
        self._features = frozen(trunk, size)
        self._spread = spread(centres(trunk), size)

    def look(
        self, images: np.ndarray, head: str, directions: np.ndarray, weighted: Callable
    ) -> tuple[np.ndarray, np.ndarray]:
        """The logits of what is explained, float32 (n,), and its heats, float32 (n, size, size), 0 or more."""
        features = self._features(tf.constant(images))["features"]
        with tf.GradientTape() as tape:
            tape.watch(features)
            logits = tf.reduce_sum(self._heads(features, training=False)[head] * directions, axis=1)
        gradients = tape.gradient(logits, features)
        heats = weighted(*(values.numpy().astype(np.float32) for values in (features, gradients)))
        return logits.numpy(), self._spread @ heats @ self._spread.T


def _pooled(model: keras.Model, name: str):
    """The feature map of a network, whatever that is made of: what is pooled for the heads."""
    pooled = next((layer.input for layer in model.layers if layer.name == POOLED), None)
    if pooled is None or len(pooled.shape) != 4:
        raise ConfigError(f"{name} has no feature map that is pooled for its heads; give --method occlusion")
    if pooled.shape[1] * pooled.shape[2] == 1:
        raise ConfigError(
            f"{name} makes of its images of {model.input_shape[1]} pixels a feature map of one place, which cannot "
            "tell where it looked; give --method occlusion, or train on larger images"
        )
    return pooled


# --- by occlusion ----------------------------------------------------------------------------------------------


class _Occlusion:
    """What the logits of a network lose when patches of the image are covered with its mean colour."""

    def __init__(self, model: keras.Model, batch: int):
        size = model.input_shape[1]
        self._logits, self._batch = frozen(model, size), batch
        self._side = max(1, round(_SIDE * size))
        self._edges = np.rint(np.linspace(0, size - self._side, _PATCHES)).astype(int)
        self._spread = spread(self._edges + self._side / 2, size)

    def look(self, images: np.ndarray, head: str, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `_FeatureMap.look`."""
        logits = np.stack([self._look(*each, head) for each in zip(images, directions, strict=True)])
        drops = np.maximum(logits[:, :1] - logits[:, 1:], 0).reshape(-1, _PATCHES, _PATCHES)
        return logits[:, 0], self._spread @ drops @ self._spread.T

    def _look(self, image: np.ndarray, direction: np.ndarray, head: str) -> np.ndarray:
        """The logit of what is explained, of the image and of all that are made of it by covering one patch."""
        images = np.stack([image] * (1 + _PATCHES**2))
        for place, covered in enumerate(images[1:]):
            top, left = self._edges[place // _PATCHES], self._edges[place % _PATCHES]
            covered[top : top + self._side, left : left + self._side] = np.rint(image.mean(axis=(0, 1)))
        batches = (images[first : first + self._batch] for first in range(0, len(images), self._batch))
        return np.concatenate([self._logits(tf.constant(batch))[head].numpy() for batch in batches]) @ direction


# --- from places to pixels -------------------------------------------------------------------------------------


def centres(trunk: keras.Model) -> np.ndarray:
    """Where each row of a feature map looks, and each column: float64 (rows,), pixels from the edge of the image.

    They are a stride apart, but not in the middles of equal shares of the image. Strided layers pad one side more
    than the other, some branches of residual networks skip pixels, and what kernels have learned need not lie in
    their middle; maps that leave that out are off by up to half a place. Where the middle of the feature map looks is
    therefore measured, as the centre of its effective field (Luo et al. 2016, https://arxiv.org/abs/1701.04128): of
    the squares of the gradients that images of noise get from it. It is the middle of the image where they get none.

    Args:
        trunk: from images to a dict of `features`, (batch, rows, columns, channels).
    """
    size, (_, places, _, channels) = trunk.input_shape[1], trunk.output["features"].shape
    inner = slice((places - 1) // 2, places // 2 + 1)  # one or two

    @tf.function  # which leaves out the gradients of the kernels
    def squares(noise: tf.Tensor, signs: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(noise)
            features = trunk(noise, training=False)["features"][:, inner, inner]
            seen = tf.reduce_sum(tf.cast(features, tf.float32) * signs)
        return tf.reduce_sum(tf.cast(tape.gradient(seen, noise), tf.float64) ** 2, axis=(0, 3))

    draws, middles = np.random.default_rng(0), []
    for _ in range(_NOISES):
        noise = draws.uniform(0, 255, (1, size, size, 3))
        signs = draws.choice([-1, 1], (inner.stop - inner.start, inner.stop - inner.start, channels))
        energy = squares(tf.constant(noise, tf.float32), tf.constant(signs, tf.float32)).numpy()
        if energy.any():
            middles += [np.average(np.arange(size) + 0.5, weights=energy.sum(axis=axis)) for axis in (0, 1)]
    middle = np.mean(middles) if middles else size / 2
    return middle + _stride(trunk) * (np.arange(places) - (places - 1) / 2)


def _stride(trunk: keras.Model) -> int:
    """Pixels from one place of the feature map to the next."""
    pixels = {id(trunk.input): 1}
    for layer in trunk.layers[1:]:
        source = layer.input[0] if isinstance(layer.input, list) else layer.input
        pixels[id(layer.output)] = pixels[id(source)] * getattr(layer, "strides", (1,))[0]
    return pixels[id(trunk.output["features"])]


def spread(at: np.ndarray, size: int) -> np.ndarray:
    """What makes a row of pixels of values that lie `at` some places, rising, in pixels from the edge.

    Between two of them it interpolates linearly; before the first and after the last it goes on with their values.

    Returns:
        float32 (size, values), which values are multiplied with.
    """
    pixels = np.arange(size) + 0.5
    return np.stack([np.interp(pixels, at, one) for one in np.eye(len(at))], axis=1).astype(np.float32)


def scaled(heats: np.ndarray) -> np.ndarray:
    """Each of float32 (n, height, width), 0 or more, with its highest value as 1; all 0 where that is 0."""
    peaks = heats.max(axis=(1, 2), keepdims=True)
    return np.divide(heats, peaks, out=np.zeros_like(heats), where=peaks > 0)
