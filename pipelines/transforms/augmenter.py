"""Augmentation of training batches: on the accelerator, batched, outside the tf.data workers.

A chain maps steps, in the order in which they are applied, to their parameters:

    {"flip": {"probability": 0.5}, "jpeg": {"probability": 0.5, "quality": [30, 100]}}

The steps that matter for detectors (`forensic_ops`) are implemented with `keras.ops`; the others are layers of Keras
and keras-cv. Random numbers depend only on the seed, the training step and the position of an image in the batch, so
that a training can be resumed; except for `rand_augment`, because keras-cv seeds its layers itself.
"""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from pipelines.exceptions import DataError
from pipelines.transforms import forensic_ops, stateless_random
from pipelines.transforms.keras_internals import KeyedSeeds, replace_seed_generators

Chain = Mapping[str, Mapping[str, Any]]  # parameters are numbers and pairs of numbers, as YAML has them
CHAINS: dict[str, Chain] = {
    # What images meet on their way to a detector, mild and often.
    "forensic": {
        "crop": {"share": 0.9},
        "flip": {"probability": 0.5},
        "resize": {"probability": 0.2, "factor": [0.5, 2.0]},
        "blur": {"probability": 0.2, "sigma": [0.0, 3.0]},
        "brightness": {"probability": 0.3, "shift": [-0.2, 0.2]},
        "contrast": {"probability": 0.3, "factor": [0.8, 1.25]},
        "noise": {"probability": 0.2, "sigma": [0.0, 5.0]},
        "jpeg": {"probability": 0.5, "quality": [30, 100]},
    },
    "flip": {"flip": {"probability": 0.5}},
    "none": {},
}


class Augmenter(keras.layers.Layer):
    """A chain of augmentation steps as a layer, called with the number of the training step.

    Args:
        chain: steps and their parameters; see `STEPS`.
        image_size: height and width of the images, in pixels.
        seed: of all random numbers, 0 to 2**31 - 1.
        dtype: of the layer, as for any layer of Keras; None for Keras's default.

    Raises:
        ValueError: a step or a parameter is unknown or out of range.
        DataError: keras-cv is not installed, or the installed Keras is not supported.
    """

    def __init__(self, chain: Chain, image_size: int, *, seed: int = 0, dtype: str | None = None):
        super().__init__(trainable=False, autocast=False, dtype=dtype)
        self.image_size, self.seed = image_size, seed
        self.built = True  # there are no weights
        self.steps = [_build(name, parameters, image_size) for name, parameters in chain.items()]
        is_mixing = [isinstance(step, _MixingLayer) for step in self.steps]
        if is_mixing != sorted(is_mixing):
            raise ValueError("mix_up and cut_mix come last: mixed images cannot be augmented further")

    @property
    def size(self) -> int:
        """Height and width of the augmented images."""
        return next((step.size for step in self.steps if isinstance(step, forensic_ops.Crop)), self.image_size)

    @property
    def compiles(self) -> bool:
        """Whether XLA can compile the chain, which it cannot if the chain has layers of Keras or keras-cv."""
        return not any(isinstance(step, (_RandomLayer, _MixingLayer)) for step in self.steps)

    def call(self, images, *, step, first=0):
        """Augment the images of a batch; mixing is left to `mix`.

        Args:
            images: uint8 or float (batch, image_size, image_size, 3), RGB in 0..255.
            step: integer scalar, the number of the training step.
            first: integer scalar, the position of the first of these images in the global batch.

        Returns:
            The compute dtype of the layer, (batch, size, size, 3), RGB in 0..255.
        """
        keys = stateless_random.keys(self.seed, step, first, ops.shape(images)[0])
        images = ops.cast(images, "float32")
        for augment in self.steps:
            if not isinstance(augment, _MixingLayer):
                images = augment(images, keys)
        return ops.cast(images, self.compute_dtype)

    def mix(self, images, targets: dict, weights: dict, classes: int, *, step, first=0):
        """Mix augmented images, targets and weights with others of the batch, if the chain has such steps.

        Args:
            images, step, first: as returned and taken by `call`.
            targets: `authenticity` (batch, 1) and, if there are classes, `category` (batch,), class indices.
            weights: of each target, (batch,).
            classes: number of classes, 0 if the data has none.

        Returns:
            images, targets and weights; mixed targets are float32, (batch, 1) and (batch, classes).
        """
        keys = stateless_random.keys(self.seed, step, first, ops.shape(images)[0])
        for mix in self.steps:
            if isinstance(mix, _MixingLayer):
                images, targets, weights = mix(images, targets, weights, classes, keys)
        return images, targets, weights


def check(chain: Chain, image_size: int) -> None:
    """Check that an `Augmenter` can be built from `chain`.

    Raises:
        ValueError, DataError: as `Augmenter`.
    """
    Augmenter(chain, image_size)


def _build(name: str, parameters: Mapping[str, Any], image_size: int) -> Callable:
    if name not in STEPS:
        nearest = difflib.get_close_matches(str(name), STEPS, 1) or sorted(STEPS)
        raise ValueError(f"there is no augmentation {name}; did you mean {', '.join(nearest)}?")
    make = STEPS[name]
    known = [parameter for parameter in inspect.signature(make).parameters if parameter != "image_size"]
    if unknown := set(parameters) - set(known):
        raise ValueError(f"{name} has no {min(map(str, unknown))}; it has {', '.join(known)}")
    if name == "crop":
        parameters = {**parameters, "image_size": image_size}
    try:
        return make(**parameters)
    except TypeError as error:  # a word instead of a number, or a missing parameter that has no default
        given = ", ".join(f"{parameter} {value}" for parameter, value in parameters.items() if parameter in known)
        problem = f"with {given}" if given else "without parameters"
        raise ValueError(f"{name} cannot be used {problem}; it has {', '.join(known)}") from error


def _crop(share: float, image_size: int = 0) -> forensic_ops.Crop:
    if not 0.1 <= share <= 1:
        raise ValueError(f"crop.share must be between 0.1 and 1, not {share}")
    return forensic_ops.Crop(max(min(32, image_size), round(share * image_size)))


# --- layers of Keras and keras-cv ------------------------------------------------------------------------------


class _RandomLayer:
    """A random layer applied to some of the images.

    Args:
        layer: of Keras or keras-cv.
        probability: of applying it to an image.
        seeds: of the layer, to follow from the keys of a batch; empty where keras-cv seeds the layer itself.
    """

    def __init__(self, layer: keras.layers.Layer, probability: float, seeds: list[KeyedSeeds]):
        if not 0 <= probability <= 1:
            raise ValueError(f"the probability of {type(layer).__name__} must be from 0 to 1, not {probability}")
        self.layer, self.probability, self.seeds = layer, probability, seeds

    def __call__(self, images, keys):
        _start(self.seeds, self.layer, keys)
        is_applied = (
            stateless_random.uniform(stateless_random.fold(keys, type(self.layer).__name__)) < self.probability
        )
        return ops.where(is_applied[:, None, None, None], self.layer(images, training=True), images)


class _MixingLayer:
    """MixUp or CutMix of Keras, for images with two targets and weights."""

    def __init__(self, layer: keras.layers.Layer):
        self.layer, self.seeds = layer, replace_seed_generators(layer)

    def __call__(self, images, targets: dict, weights: dict, classes: int, keys):
        _start(self.seeds, self.layer, keys)
        if classes and len(targets["category"].shape) == 1:
            targets = {**targets, "category": ops.one_hot(targets["category"], classes)}
        heads = list(targets)
        # Mixed are each target times its weight, and the weight, so that missing targets contribute nothing.
        columns = [ops.cast(targets[head], "float32") * weights[head][:, None] for head in heads]
        columns += [weights[head][:, None] for head in heads]
        mixed = self.layer({"images": images, "labels": ops.concatenate(columns, axis=1)}, training=True)
        widths = [column.shape[1] for column in columns]
        parts = ops.split(mixed["labels"], [sum(widths[: i + 1]) for i in range(len(widths) - 1)], axis=1)
        weights = {head: part[:, 0] for head, part in zip(heads, parts[len(heads) :], strict=True)}
        targets = {
            head: part / ops.maximum(weights[head][:, None], 1e-6)
            for head, part in zip(heads, parts[: len(heads)], strict=True)
        }
        return mixed["images"], targets, weights


def _start(seeds: list[KeyedSeeds], layer: keras.layers.Layer, keys) -> None:
    """Have the seeds of a layer follow from the first key of the batch and the kind of layer."""
    for generator in seeds:
        generator.start(stateless_random.fold(keys[:1], type(layer).__name__)[0])


def _of_keras(layer: keras.layers.Layer, probability: float) -> _RandomLayer:
    return _RandomLayer(layer, probability, replace_seed_generators(layer))


def _rotation(degrees: float = 15.0, probability: float = 1.0) -> _RandomLayer:
    layer = keras.layers.RandomRotation(degrees / 360, fill_mode="reflect", seed=0, dtype="float32")
    return _of_keras(layer, probability)


def _translation(share: float = 0.1, probability: float = 1.0) -> _RandomLayer:
    layer = keras.layers.RandomTranslation(share, share, fill_mode="reflect", seed=0, dtype="float32")
    return _of_keras(layer, probability)


def _shear(share: float = 0.1, probability: float = 1.0) -> _RandomLayer:
    layer = keras.layers.RandomShear(share, share, fill_mode="reflect", seed=0, dtype="float32")
    return _of_keras(layer, probability)


def _zoom(share: float = 0.1, probability: float = 1.0) -> _RandomLayer:
    layer = keras.layers.RandomZoom(share, fill_mode="reflect", seed=0, dtype="float32")
    return _of_keras(layer, probability)


def _colour_jitter(
    brightness: float = 0.2,
    contrast: float = 0.2,
    saturation: float = 0.2,
    hue: float = 0.02,
    probability: float = 1.0,
) -> _RandomLayer:
    layer = keras.layers.RandomColorJitter(
        value_range=(0, 255),
        brightness_factor=brightness,
        contrast_factor=contrast,
        # Keras multiplies saturation by f / (1 - f).
        saturation_factor=((1 - saturation) / (2 - saturation), (1 + saturation) / (2 + saturation)),
        hue_factor=hue,
        seed=0,
        dtype="float32",
    )
    return _of_keras(layer, probability)


def _rand_augment(number: int = 2, magnitude: float = 0.3, probability: float = 1.0) -> _RandomLayer:
    if not (number >= 1 and 0 <= magnitude <= 1):
        raise ValueError(
            f"rand_augment needs a number of 1 or more and a magnitude from 0 to 1, not {number} and {magnitude}"
        )
    try:
        import keras_cv  # noqa: PLC0415  takes seconds, and only this step needs it
    except (ImportError, AttributeError) as error:  # AttributeError: it does not fit the installed Keras
        raise DataError(
            f"rand_augment needs keras-cv, which cannot be imported ({error}); install it with: pip install keras-cv"
        ) from error
    # Keras's own RandAugment draws the operations once for a whole batch.
    layer = keras_cv.layers.RandAugment((0, 255), augmentations_per_image=number, magnitude=magnitude, seed=0)
    return _RandomLayer(layer, probability, seeds=[])


def _mix_up(alpha: float = 0.2) -> _MixingLayer:
    if not 0 < alpha <= 1:
        raise ValueError(f"mix_up.alpha must be above 0 and at most 1, not {alpha}")
    return _MixingLayer(keras.layers.MixUp(alpha=alpha, seed=0, dtype="float32"))


def _cut_mix(factor: float = 1.0) -> _MixingLayer:
    if not 0 < factor <= 1:
        raise ValueError(f"cut_mix.factor must be above 0 and at most 1, not {factor}")
    return _MixingLayer(keras.layers.CutMix(factor=factor, seed=0, dtype="float32"))


# What builds each step. Its parameters are those that a chain may give; to add one, see docs/architecture.md.
STEPS: dict[str, Callable] = {
    "crop": _crop,  # a square of `share` of height and width, at a random position
    "flip": forensic_ops.Flip,
    "resize": forensic_ops.Resize,
    "blur": forensic_ops.Blur,
    "brightness": forensic_ops.Brightness,
    "contrast": forensic_ops.Contrast,
    "noise": forensic_ops.Noise,
    "jpeg": forensic_ops.Jpeg,
    "rotation": _rotation,  # by up to `degrees` in either direction
    "translation": _translation,  # by up to `share` of height and width
    "shear": _shear,
    "zoom": _zoom,
    "colour_jitter": _colour_jitter,
    "rand_augment": _rand_augment,
    "mix_up": _mix_up,
    "cut_mix": _cut_mix,
}
MIXING = {"mix_up", "cut_mix"}  # those that take several images of the batch
