"""What happens to images on their way to a detector (compressed, blurred, resized, cut), as training augmentation.

Each class is one such thing. Built with its strengths and the share of images it touches, it is called with

    images: float32 (batch, height, width, 3), RGB in 0..255; height and width static
    keys: uint32 (batch,), as `draws.keys` makes them

and returns images of the same shape and range; those not touched are the same to the last bit. Every image has draws
of its own, which depend on its key and the name of the class: where a class occurs twice in a chain, `draws.fold` the
keys for one of them. Any backend of Keras will do, compiled or not.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from keras import ops

from pipelines.transforms import stateless_random
from pipelines.transforms.jpeg import compress

Range = tuple[float, float]  # low and high, both included


@dataclass(frozen=True)
class _Augmentation:
    probability: float
    _bounds: ClassVar[dict[str, Range]] = {}  # what each field that is a range has to lie in

    def __post_init__(self):
        name = type(self).__name__
        if not 0 <= self.probability <= 1:
            raise ValueError(f"{name}.probability must be from 0 to 1, not {self.probability}")
        for field, (lowest, highest) in self._bounds.items():
            value = getattr(self, field)
            if not _is_range(value, lowest, highest):
                raise ValueError(f"{name}.{field} must be (low, high) within {lowest} to {highest}, not {value}")

    def __call__(self, images, keys):
        keys = stateless_random.fold(keys, type(self).__name__)
        touched = stateless_random.uniform(stateless_random.fold(keys, "touched")) < self.probability

        def changed():
            return ops.where(_per_image(touched), ops.clip(self._changed(images, keys), 0.0, 255.0), images)

        # Not only for the batch with nothing to do: XLA does not fuse through a condition. Without it what one
        # augmentation computes is computed again wherever the next one reads a pixel; a chain took 3.5 times as long.
        return ops.cond(ops.any(touched), changed, lambda: images)

    def _changed(self, images, keys):
        raise NotImplementedError


def _is_range(value, lowest: float, highest: float) -> bool:
    try:
        low, high = value
        return lowest <= low <= high <= highest
    except (TypeError, ValueError):
        return False


# --- encoding and scaling --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Jpeg(_Augmentation):
    """JPEG, encoded and decoded as libjpeg does, with chroma in full (4:4:4) or, as likely, at half the size (4:2:0).

    Attributes:
        probability: of touching an image.
        quality: libjpeg's, 1 to 100; every whole number is as likely.
    """

    probability: float = 0.5
    quality: tuple[int, int] = (30, 100)
    _bounds: ClassVar = {"quality": (1, 100)}

    def _changed(self, images, keys):
        low, high = self.quality
        quality = low + ops.floor((high - low + 1) * stateless_random.uniform(stateless_random.fold(keys, "quality")))
        return compress(images, quality, stateless_random.uniform(stateless_random.fold(keys, "subsampled")) < 0.5)


@dataclass(frozen=True)
class Blur(_Augmentation):
    """Gaussian blur. Beyond its edges an image goes on as its mirror image, as in scipy.ndimage.

    Attributes:
        probability: of touching an image.
        sigma: standard deviation of the Gaussian, in pixels; uniform.
    """

    probability: float = 0.3
    sigma: Range = (0.0, 3.0)
    _bounds: ClassVar = {"sigma": (0, 10)}  # a wider one would see the mirror image of the mirror image

    def _changed(self, images, keys):
        sigma = ops.maximum(_uniform(keys, "sigma", self.sigma), 1e-3)  # 0 would be divided by; this does as little
        return _along_both(images, lambda length: _blurring(length, sigma))


@dataclass(frozen=True)
class Resize(_Augmentation):
    """Resized and resized back, each with a triangle filter and anti-aliased, as tf.image.resize does.

    Attributes:
        probability: of touching an image.
        factor: height and width in between (rounded to whole pixels) over the image's own; log-uniform, so that
            half the size is as likely as double.
    """

    probability: float = 0.3
    factor: Range = (0.5, 2.0)
    _bounds: ClassVar = {"factor": (0.1, 4)}

    def _changed(self, images, keys):
        factor = _log_uniform(keys, "factor", self.factor)
        return _along_both(images, lambda length: _resizing(length, factor, math.ceil(length * self.factor[1])))


def _along_both(images, matrices):
    """Apply matrices (batch, length, length), made by `matrices` for a length, along height and width."""
    # A GPU may round these products to TF32: by less than 0.2 grey levels, 0.02 in the mean.
    height, width = images.shape[1:3]
    rows = matrices(height)
    columns = rows if width == height else matrices(width)
    return ops.einsum("bwx,byxc->bywc", columns, ops.einsum("byh,bhxc->byxc", rows, images))


def _blurring(length: int, sigma):
    """Matrices (batch, length, length) that blur a line of pixels by `sigma`, (batch,)."""
    pixels = np.arange(length, dtype="float32")
    # A pixel, and its mirror images beyond either end.
    distances = [np.subtract.outer(pixels, other) for other in (pixels, -1 - pixels, 2 * length - 1 - pixels)]
    return _normalised(sum(ops.exp(-0.5 * ops.square(distance / _per_line(sigma))) for distance in distances), axis=2)


def _resizing(length: int, factor, longest: int):
    """Matrices (batch, length, length) that resize a line of pixels by `factor`, (batch,), and back.

    `longest` is the largest number of pixels in between, of all images.
    """
    between = ops.clip(ops.round(length * _per_line(factor)), 1.0, longest)
    scale = between / length
    places = np.arange(longest, dtype="float32")[:, None] + 0.5  # of pixels in between
    pixels = np.arange(length, dtype="float32") + 0.5
    there = _triangle((pixels - places / scale) / ops.maximum(1 / scale, 1.0))
    back = _triangle((places - pixels * scale) / ops.maximum(scale, 1.0)) * ops.cast(places < between, "float32")
    return ops.einsum("bkp,bkq->bpq", _normalised(back, axis=1), _normalised(there, axis=2))


def _triangle(x):
    return ops.maximum(1.0 - ops.abs(x), 0.0)


def _normalised(weights, axis: int):
    # Lines of `there` beyond the last pixel in between can be all 0, and are not used.
    return weights / ops.maximum(ops.sum(weights, axis=axis, keepdims=True), 1e-6)


# --- geometry --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Crop:
    """A square out of each image, each cut elsewhere, as likely in one place as in another.

    It is not scaled: that would wipe out the traces a detector lives on. It touches every image, as all have to come
    out in one shape: (batch, size, size, 3).

    Attributes:
        size: height and width of the square, in pixels.
    """

    size: int

    def __post_init__(self):
        if not self.size >= 1:
            raise ValueError(f"Crop.size must be 1 or more, not {self.size}")

    def __call__(self, images, keys):
        batch, height, width, channels = ops.shape(images)
        if self.size > min(height, width):
            raise ValueError(f"Crop.size must be {min(height, width)} or less for these images, not {self.size}")
        keys = stateless_random.fold(keys, "Crop")
        rows = self._indices(keys, "row", height)[:, :, None]
        columns = self._indices(keys, "column", width)[:, None, :]
        firsts = ops.arange(batch)[:, None, None] * height
        return ops.take(ops.reshape(images, (-1, channels)), (firsts + rows) * width + columns, axis=0)

    def _indices(self, keys, purpose: str, length: int):
        starts = ops.floor((length - self.size + 1) * stateless_random.uniform(stateless_random.fold(keys, purpose)))
        return ops.cast(starts, "int32")[:, None] + np.arange(self.size, dtype="int32")


@dataclass(frozen=True)
class Flip(_Augmentation):
    """Mirrored, left to right.

    Attributes:
        probability: of touching an image.
    """

    probability: float = 0.5

    def _changed(self, images, keys):
        return ops.flip(images, axis=2)


# --- light -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Brightness(_Augmentation):
    """Lighter or darker: one value added to all pixels and colours of an image.

    Attributes:
        probability: of touching an image.
        shift: what is added, as a share of the range of 255; uniform.
    """

    probability: float = 0.3
    shift: Range = (-0.2, 0.2)
    _bounds: ClassVar = {"shift": (-1, 1)}

    def _changed(self, images, keys):
        return images + _per_image(255.0 * _uniform(keys, "shift", self.shift))


@dataclass(frozen=True)
class Contrast(_Augmentation):
    """More or less contrast: the distance from the image's own mean, over all pixels and colours, is multiplied.

    Attributes:
        probability: of touching an image.
        factor: of all distances; log-uniform, so that 4/5 is as likely as 5/4.
    """

    probability: float = 0.3
    factor: Range = (0.8, 1.25)
    _bounds: ClassVar = {"factor": (0.1, 10)}

    def _changed(self, images, keys):
        means = ops.mean(images, axis=(1, 2, 3), keepdims=True)
        return means + (images - means) * _per_image(_log_uniform(keys, "factor", self.factor))


@dataclass(frozen=True)
class Noise(_Augmentation):
    """Gaussian noise, added to every pixel and colour on its own.

    Attributes:
        probability: of touching an image.
        sigma: standard deviation of the noise, in grey levels of 255; uniform.
    """

    probability: float = 0.3
    sigma: Range = (0.0, 5.0)
    _bounds: ClassVar = {"sigma": (0, 255)}

    def _changed(self, images, keys):
        noise = stateless_random.normal(stateless_random.fold(keys, "noise"), tuple(images.shape[1:]))
        return images + noise * _per_image(_uniform(keys, "sigma", self.sigma))


# --- strengths, one for each image ------------------------------------------------------------------------------


def _uniform(keys, purpose: str, bounds: Range):
    low, high = bounds
    return low + (high - low) * stateless_random.uniform(stateless_random.fold(keys, purpose))


def _log_uniform(keys, purpose: str, bounds: Range):
    low, high = bounds
    return low * ops.power(high / low, stateless_random.uniform(stateless_random.fold(keys, purpose)))


def _per_image(values):
    return values[:, None, None, None]


def _per_line(values):
    return values[:, None, None]
