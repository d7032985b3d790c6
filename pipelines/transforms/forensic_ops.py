"""What images meet on their way to a detector (compression, blur, resizing, cropping), as training augmentation.

Each class is one augmentation, and a step in `augmenter.STEPS`. It is constructed with its parameters and the
probability of applying it to an image, and called with

    images: float32 (batch, height, width, 3), RGB in 0..255; height and width static
    keys: uint32 (batch,), from `stateless_random.keys`

It returns images of the same shape and range; images it is not applied to are bitwise unchanged. Only `Crop` differs:
it has no probability, and returns smaller images. The random numbers of an image depend on its key and the name of
the class: to apply a class twice, `stateless_random.fold` the keys for one of the two. Works with every backend of
Keras, compiled or not.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from keras import ops

from pipelines.transforms import stateless_random
from pipelines.transforms.jpeg import compress

Range = tuple[float, float]  # low and high, inclusive


@dataclass(frozen=True)
class _Augmentation:
    """The base of every augmentation but `Crop`: a subclass has its parameters as fields, and `_apply`.

    Raises:
        ValueError: the probability, or a range in `_bounds`, is out of bounds.
    """

    probability: float
    _bounds: ClassVar[dict[str, Range]] = {}  # of each field that is a range

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
        is_applied = stateless_random.uniform(stateless_random.fold(keys, "touched")) < self.probability

        def augmented():
            return ops.where(_per_image(is_applied), ops.clip(self._apply(images, keys), 0.0, 255.0), images)

        # The condition does more than skip batches with nothing to do: XLA does not fuse through it. Without it, XLA
        # recomputes one augmentation wherever the next one reads a pixel; a chain took 3.5 times as long.
        return ops.cond(ops.any(is_applied), augmented, lambda: images)

    def _apply(self, images, keys):
        """All images augmented; values may be out of range. `keys` are already folded with the name of the class."""
        raise NotImplementedError


def _is_range(value, lowest: float, highest: float) -> bool:
    try:
        low, high = value
        return lowest <= low <= high <= highest
    except (TypeError, ValueError):
        return False


# --- compression and scaling -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Jpeg(_Augmentation):
    """JPEG compression as by libjpeg, with full (4:4:4) or subsampled chroma (4:2:0), equally likely.

    Attributes:
        probability: of compressing an image.
        quality: libjpeg's, 1 to 100; uniform over the integers.
    """

    probability: float = 0.5
    quality: tuple[int, int] = (30, 100)
    _bounds: ClassVar = {"quality": (1, 100)}

    def _apply(self, images, keys):
        low, high = self.quality
        quality = low + ops.floor((high - low + 1) * stateless_random.uniform(stateless_random.fold(keys, "quality")))
        return compress(images, quality, stateless_random.uniform(stateless_random.fold(keys, "subsampled")) < 0.5)


@dataclass(frozen=True)
class Blur(_Augmentation):
    """Gaussian blur, with reflection at the edges as in scipy.ndimage.

    Attributes:
        probability: of blurring an image.
        sigma: standard deviation, in pixels; uniform.
    """

    probability: float = 0.3
    sigma: Range = (0.0, 3.0)
    _bounds: ClassVar = {"sigma": (0, 10)}  # a wider kernel would reach beyond the reflected image

    def _apply(self, images, keys):
        sigma = ops.maximum(_uniform(keys, "sigma", self.sigma), 1e-3)  # avoids dividing by 0; has no effect either
        return _apply_separable(images, lambda length: _blur_matrices(length, sigma))


@dataclass(frozen=True)
class Resize(_Augmentation):
    """Resizing and resizing back, each bilinear and anti-aliased as by tf.image.resize.

    Attributes:
        probability: of resizing an image.
        factor: ratio of the intermediate height and width (rounded to whole pixels) to the original; log-uniform, so
            that half the size is as likely as double.
    """

    probability: float = 0.3
    factor: Range = (0.5, 2.0)
    _bounds: ClassVar = {"factor": (0.1, 4)}

    def _apply(self, images, keys):
        factor = _log_uniform(keys, "factor", self.factor)
        return _apply_separable(
            images, lambda length: _resize_matrices(length, factor, math.ceil(length * self.factor[1]))
        )


def _apply_separable(images, matrices):
    """Multiply height and width by the matrices (batch, length, length) that `matrices` returns for a length."""
    # A GPU may compute these products in TF32: an error below 0.2 grey levels, 0.02 on average.
    height, width = images.shape[1:3]
    rows = matrices(height)
    columns = rows if width == height else matrices(width)
    return ops.einsum("bwx,byxc->bywc", columns, ops.einsum("byh,bhxc->byxc", rows, images))


def _blur_matrices(length: int, sigma):
    """Matrices (batch, length, length) that blur a line of pixels by `sigma`, (batch,)."""
    pixels = np.arange(length, dtype="float32")
    # A pixel, and its reflections at either end.
    positions = (pixels, -1 - pixels, 2 * length - 1 - pixels)
    distances = [np.subtract.outer(pixels, position) for position in positions]
    return _normalise(sum(ops.exp(-0.5 * ops.square(distance / _per_line(sigma))) for distance in distances), axis=2)


def _resize_matrices(length: int, factor, longest: int):
    """Matrices (batch, length, length) that resize a line of pixels by `factor`, (batch,), and back.

    `longest` is the largest intermediate length of all images.
    """
    resized_length = ops.clip(ops.round(length * _per_line(factor)), 1.0, longest)
    scale = resized_length / length
    resized = np.arange(longest, dtype="float32")[:, None] + 0.5  # pixel centres
    pixels = np.arange(length, dtype="float32") + 0.5
    there = _triangle((pixels - resized / scale) / ops.maximum(1 / scale, 1.0))
    is_used = ops.cast(resized < resized_length, "float32")
    back = _triangle((resized - pixels * scale) / ops.maximum(scale, 1.0)) * is_used
    return ops.einsum("bkp,bkq->bpq", _normalise(back, axis=1), _normalise(there, axis=2))


def _triangle(x):
    return ops.maximum(1.0 - ops.abs(x), 0.0)


def _normalise(weights, axis: int):
    # Rows of `there` beyond the last intermediate pixel can be all 0; they are not used.
    return weights / ops.maximum(ops.sum(weights, axis=axis, keepdims=True), 1e-6)


# --- geometry --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Crop:
    """A square crop of each image at a random position, uniform over all positions.

    Crops are not scaled, which would remove the traces that a detector relies on. Every image is cropped, because all
    must have the same shape: (batch, size, size, 3).

    Attributes:
        size: height and width of the crop, in pixels.
    """

    size: int

    def __post_init__(self):
        if not self.size >= 1:
            raise ValueError(f"Crop.size must be 1 or more, not {self.size}")

    def __call__(self, images, keys):
        """Crop each image of a batch at a place of its own."""
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
    """Horizontal flip.

    Attributes:
        probability: of flipping an image.
    """

    probability: float = 0.5

    def _apply(self, images, keys):
        return ops.flip(images, axis=2)


# --- brightness, contrast, noise ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Brightness(_Augmentation):
    """One value added to all pixels and channels of an image.

    Attributes:
        probability: of changing an image.
        shift: the value, as a fraction of 255; uniform.
    """

    probability: float = 0.3
    shift: Range = (-0.2, 0.2)
    _bounds: ClassVar = {"shift": (-1, 1)}

    def _apply(self, images, keys):
        return images + _per_image(255.0 * _uniform(keys, "shift", self.shift))


@dataclass(frozen=True)
class Contrast(_Augmentation):
    """Pixels moved away from or towards the mean of the image, over all pixels and channels.

    Attributes:
        probability: of changing an image.
        factor: by which the distance from the mean is multiplied; log-uniform, so that 4/5 is as likely as 5/4.
    """

    probability: float = 0.3
    factor: Range = (0.8, 1.25)
    _bounds: ClassVar = {"factor": (0.1, 10)}

    def _apply(self, images, keys):
        means = ops.mean(images, axis=(1, 2, 3), keepdims=True)
        return means + (images - means) * _per_image(_log_uniform(keys, "factor", self.factor))


@dataclass(frozen=True)
class Noise(_Augmentation):
    """Gaussian noise, independent for every pixel and channel.

    Attributes:
        probability: of changing an image.
        sigma: standard deviation, in grey levels of 255; uniform.
    """

    probability: float = 0.3
    sigma: Range = (0.0, 5.0)
    _bounds: ClassVar = {"sigma": (0, 255)}

    def _apply(self, images, keys):
        noise = stateless_random.normal(stateless_random.fold(keys, "noise"), tuple(images.shape[1:]))
        return images + noise * _per_image(_uniform(keys, "sigma", self.sigma))


# --- random parameters per image ---------------------------------------------------------------------------------


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
