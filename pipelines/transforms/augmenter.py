"""What is done to the images of a training batch: on the device, batched, outside the tf.data workers.

A chain names the steps, in the order in which they are taken, and their strengths:

    {"flip": {"probability": 0.5}, "jpeg": {"probability": 0.5, "quality": [30, 100]}}

The steps that detectors are about (`forensics`) are written here, from `keras.ops`; the others are layers of Keras
and keras-cv. Draws depend on the seed, the step of the training and an image's place in the batch and on nothing
else, so that a training can be taken up again; but for `rand_augment`, whose draws keras-cv keeps to itself.
"""

import difflib
import inspect
from collections.abc import Callable, Mapping

import keras
from keras import ops

from pipelines.transforms import forensic_ops, stateless_random

Chain = Mapping[str, Mapping]
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
    """A chain of steps, as a layer that is given the step of the training.

    Args:
        chain: names and strengths; see `STEPS`.
        image_size: height and width of the images.
        seed: of all draws, 0 to 2**31 - 1.

    Raises:
        ValueError: a step or a strength is not known, or out of its range; one line.
    """

    def __init__(self, chain: Chain, image_size: int, *, seed: int = 0, **options):
        super().__init__(trainable=False, autocast=False, **options)
        self.image_size, self.seed = image_size, seed
        self.built = True  # there are no weights
        self.steps = [_build(name, strengths, image_size) for name, strengths in chain.items()]
        is_mixing = [isinstance(step, _Mixing) for step in self.steps]
        if is_mixing != sorted(is_mixing):
            raise ValueError("mix_up and cut_mix come last: what they make of two images is touched no more")

    @property
    def size(self) -> int:
        """Height and width of what comes out."""
        return next((step.size for step in self.steps if isinstance(step, forensic_ops.Crop)), self.image_size)

    @property
    def compiles(self) -> bool:
        """Whether XLA can compile it, which it cannot where images are turned or mixed."""
        return not any(isinstance(step, (_Library, _Mixing)) for step in self.steps)

    def call(self, images, *, step, first=0):
        """Augment the images of a batch.

        Args:
            images: uint8 or float (batch, image_size, image_size, 3), RGB in 0..255.
            step: integer scalar, the number of the batch in the training.
            first: integer scalar, the place of the first of these images in a batch divided among devices.

        Returns:
            The layer's compute dtype, (batch, size, size, 3), RGB in 0..255.
        """
        keys = stateless_random.keys(self.seed, step, first, ops.shape(images)[0])
        images = ops.cast(images, "float32")
        for one in self.steps:
            if not isinstance(one, _Mixing):
                images = one(images, keys)
        return ops.cast(images, self.compute_dtype)

    def mix(self, images, targets: dict, weights: dict, classes: int, *, step, first=0):
        """Mix augmented images and what is known of them with others of the batch, where the chain says so.

        Args:
            images, step, first: as `call` gives and takes them.
            targets: `authenticity` (batch, 1) and, with `classes`, `category` (batch,), class indices.
            weights: of each target, (batch,).

        Returns:
            images, targets and weights; mixed targets are shares, float32 (batch, 1) and (batch, classes).
        """
        keys = stateless_random.keys(self.seed, step, first, ops.shape(images)[0])
        for one in self.steps:
            if isinstance(one, _Mixing):
                images, targets, weights = one(images, targets, weights, classes, keys)
        return images, targets, weights


def check(chain: Chain, image_size: int) -> None:
    """Look whether an `Augmenter` can be made of `chain`.

    Raises:
        ValueError: it cannot; one line.
    """
    Augmenter(chain, image_size)


def _build(name: str, strengths: Mapping, image_size: int) -> Callable:
    if name not in STEPS:
        nearest = difflib.get_close_matches(str(name), STEPS, 1) or sorted(STEPS)
        raise ValueError(f"there is no augmentation {name}; did you mean {', '.join(nearest)}?")
    make = STEPS[name]
    known = [field for field in inspect.signature(make).parameters if field != "image_size"]
    if unknown := set(strengths) - set(known):
        raise ValueError(f"{name} has no {min(map(str, unknown))}; it has {', '.join(known)}")
    if name == "crop":
        strengths = {**strengths, "image_size": image_size}
    try:
        return make(**strengths)
    except TypeError as error:  # a word for a number, or a strength that has no default
        given = ", ".join(f"{field} {value}" for field, value in strengths.items() if field in known)
        raise ValueError(f"{name} cannot be had with {given or 'nothing'}; it has {', '.join(known)}") from error


def _crop(share: float, image_size: int = 0) -> forensic_ops.Crop:
    if not 0.1 <= share <= 1:
        raise ValueError(f"crop.share must be between 0.1 and 1, not {share}")
    return forensic_ops.Crop(max(min(32, image_size), round(share * image_size)))


# --- layers of others ------------------------------------------------------------------------------------------


class _Library:
    """A layer of Keras or keras-cv that touches some images, with draws that follow the keys."""

    def __init__(self, layer: keras.layers.Layer, probability: float):
        if not 0 <= probability <= 1:
            raise ValueError(f"the probability of {type(layer).__name__} must be from 0 to 1, not {probability}")
        self.layer, self.probability, self.seeds = layer, probability, _own_seeds(layer)

    def __call__(self, images, keys):
        _begin(self.seeds, self.layer, keys)
        touched = stateless_random.uniform(stateless_random.fold(keys, type(self.layer).__name__)) < self.probability
        return ops.where(touched[:, None, None, None], self.layer(images, training=True), images)


class _Mixing:
    """MixUp or CutMix, of Keras, for images with two targets and weights."""

    def __init__(self, layer: keras.layers.Layer):
        self.layer, self.seeds = layer, _own_seeds(layer)

    def __call__(self, images, targets: dict, weights: dict, classes: int, keys):
        _begin(self.seeds, self.layer, keys)
        if classes and len(targets["category"].shape) == 1:
            targets = {**targets, "category": ops.one_hot(targets["category"], classes)}
        heads = list(targets)
        # A target without a weight is none: what is mixed is the target times its weight, and the weight.
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


class _Seeds(keras.random.SeedGenerator):
    """Seeds that follow from a key. Keras's own are in a variable, over which several devices would quarrel."""

    def __init__(self, dtype: str, place: int):  # in place of Keras's, which makes the variable
        self.dtype, self.place = dtype, place

    def begin(self, key) -> None:
        self.key, self.drawn = ops.cast(key, self.dtype), 0

    def next(self, ordered=True):
        seed = ops.stack([self.key, ops.cast(1000 * self.place + self.drawn, self.dtype)])
        self.drawn += 1
        return seed


def _own_seeds(layer: keras.layers.Layer) -> list[_Seeds]:
    """Give a layer of Keras, and those that it is made of, seeds of our own."""
    drawing = [
        part for part in layer._flatten_layers() if isinstance(getattr(part, "generator", None), _Seeds.__base__)
    ]
    seeds = [_Seeds(part.generator.state.dtype, place) for place, part in enumerate(drawing)]
    for part, own in zip(drawing, seeds, strict=True):
        object.__setattr__(part, "generator", own)  # unseen by Keras, which would look for the variable
    return seeds


def _begin(seeds: list[_Seeds], layer: keras.layers.Layer, keys) -> None:
    """Have all that a layer draws follow from the first key of the batch, and from which layer it is."""
    for own in seeds:
        own.begin(stateless_random.fold(keys[:1], type(layer).__name__)[0])


def _of_keras(name: str, **options) -> keras.layers.Layer:
    return getattr(keras.layers, name)(**options, seed=0, dtype="float32")


def _rotation(degrees: float = 15.0, probability: float = 1.0) -> _Library:
    return _Library(_of_keras("RandomRotation", factor=degrees / 360, fill_mode="reflect"), probability)


def _translation(share: float = 0.1, probability: float = 1.0) -> _Library:
    layer = _of_keras("RandomTranslation", height_factor=share, width_factor=share, fill_mode="reflect")
    return _Library(layer, probability)


def _shear(share: float = 0.1, probability: float = 1.0) -> _Library:
    return _Library(_of_keras("RandomShear", x_factor=share, y_factor=share, fill_mode="reflect"), probability)


def _zoom(share: float = 0.1, probability: float = 1.0) -> _Library:
    return _Library(_of_keras("RandomZoom", height_factor=share, fill_mode="reflect"), probability)


def _colour_jitter(
    brightness: float = 0.2,
    contrast: float = 0.2,
    saturation: float = 0.2,
    hue: float = 0.02,
    probability: float = 1.0,
) -> _Library:
    factors = {"brightness_factor": brightness, "contrast_factor": contrast}
    # Keras multiplies saturation by f / (1 - f).
    around_one = ((1 - saturation) / (2 - saturation), (1 + saturation) / (2 + saturation))
    factors |= {"saturation_factor": around_one, "hue_factor": hue}
    return _Library(_of_keras("RandomColorJitter", value_range=(0, 255), **factors), probability)


def _rand_augment(number: int = 2, magnitude: float = 0.3, probability: float = 1.0) -> _Library:
    import keras_cv  # noqa: PLC0415  seconds, for this step alone

    if not (number >= 1 and 0 <= magnitude <= 1):
        raise ValueError(f"rand_augment takes a number from 1 and a magnitude from 0 to 1, not {number}, {magnitude}")
    # Keras's own draws one operation for a whole batch.
    layer = keras_cv.layers.RandAugment((0, 255), augmentations_per_image=number, magnitude=magnitude, seed=0)
    return _Library(layer, probability)


def _mix_up(alpha: float = 0.2) -> _Mixing:
    if not 0 < alpha <= 1:
        raise ValueError(f"mix_up.alpha must be above 0 and at most 1, not {alpha}")
    return _Mixing(_of_keras("MixUp", alpha=alpha))


def _cut_mix(factor: float = 1.0) -> _Mixing:
    if not 0 < factor <= 1:
        raise ValueError(f"cut_mix.factor must be above 0 and at most 1, not {factor}")
    return _Mixing(_of_keras("CutMix", factor=factor))


STEPS: dict[str, Callable] = {
    "crop": _crop,  # a square of `share` of height and width, cut out anywhere
    "flip": forensic_ops.Flip,
    "resize": forensic_ops.Resize,
    "blur": forensic_ops.Blur,
    "brightness": forensic_ops.Brightness,
    "contrast": forensic_ops.Contrast,
    "noise": forensic_ops.Noise,
    "jpeg": forensic_ops.Jpeg,
    "rotation": _rotation,  # by up to so many degrees
    "translation": _translation,  # by up to a share of height and width
    "shear": _shear,
    "zoom": _zoom,
    "colour_jitter": _colour_jitter,
    "rand_augment": _rand_augment,
    "mix_up": _mix_up,
    "cut_mix": _cut_mix,
}
